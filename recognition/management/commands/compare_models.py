"""Which network recognises a catalogue's products better."""

from __future__ import annotations

import hashlib
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from recognition import images
from recognition.errors import BadInput, RecognitionError
from recognition.gallery_list import Entry, Severity, read_gallery_list
from recognition.management import progress
from recognition.models import Catalogue
from recognition.services import model_switch, training_sets
from recognition.services.imports.places import Folder
from recognition.services.model_switch import Compared, Question


class Command(BaseCommand):
    help = (
        "Ask every network a catalogue is embedded with (`reembed`) about labelled pictures, and "
        "print Recall@1 and Recall@5 of each. Pictures that are in the catalogue themselves are "
        "left out of its gallery. Exit code 0: all were asked, 1: some could not be, 2: none."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--catalogue", required=True, help="name or key")
        parser.add_argument("--user", help="look only among catalogues of this user")
        parser.add_argument("--queries", type=Path, help="list: a path and the true label a line")
        parser.add_argument("--root", type=Path, help="folder of the pictures")
        parser.add_argument(
            "--training-set",
            type=Path,
            help="instead: ask what `export_training_set` held back in this directory",
        )

    def handle(self, **options: Any) -> None:
        training_set = options["training_set"]
        if (training_set is None) != bool(options["queries"] and options["root"]):
            raise CommandError(
                "give either --queries and --root, or --training-set",
                returncode=progress.NOTHING_DONE,
            )
        self._failed = 0
        with progress.in_words():
            catalogue = progress.find_catalogue(options["catalogue"], options["user"])
            if training_set is not None:
                root = Path(training_set)
                queries = root / training_sets.QUERIES
                without = set(training_sets.held_back_queries(root, catalogue))
            else:
                root, queries = Path(options["root"]), Path(options["queries"])
                without = set()
            entries = self._read(queries)
            place = Folder(root)
            without |= _in_catalogue(catalogue, entries, place)
            asked = self._questions(entries, place)
            compared = model_switch.compare(
                catalogue, progress.followed(asked, len(entries), "ask", "picture"), without=without
            )
        self._print(compared, len(without))
        if self._failed:
            raise CommandError(
                f"{self._failed} lines could not be asked about", returncode=progress.SOME_FAILED
            )

    def _read(self, path: Path) -> list[Entry]:
        entries = []
        try:
            with path.open("rb") as file:
                for item in read_gallery_list(file, allow_absolute=True):
                    if isinstance(item, Entry):
                        entries.append(item)
                    elif item.severity == Severity.ERROR:
                        self._complain(item.line_number, item.reason)
        except OSError as error:
            raise BadInput(f"{path} cannot be read: {error.strerror}", field="queries") from error
        return entries

    def _questions(self, entries: list[Entry], place: Folder) -> Iterator[Question]:
        for entry in entries:
            try:
                with closing(place.open(entry.path)) as file:
                    pixels = images.check(file, name=entry.path).pixels
            except RecognitionError as error:
                self._complain(entry.line_number, error.message)
                continue
            yield Question(entry.label, pixels)

    def _complain(self, line: int, reason: str) -> None:
        self._failed += 1
        self.stderr.write(f"line {line}: {reason}")

    def _print(self, compared: list[Compared], left_out: int) -> None:
        out = self.stdout.write
        out(
            f"{compared[0].report.queries} pictures, {compared[0].images} images in the gallery"
            + (f", {left_out} left out because they are asked about" if left_out else "")
        )
        for one in compared:
            model = one.space.feature_model
            mark = "answers now" if one.current else ""
            out(
                f"{model.name:<30} weights {model.digest[:12]}  "
                f"Recall@1 {one.report.recall_at_1:.1%}  Recall@5 {one.report.recall_at_5:.1%}  "
                f"{mark}".rstrip()
            )
        if len(compared) == 1:
            out("there is nothing to compare it with: `./manage.py reembed` adds another network")


def _in_catalogue(catalogue: Catalogue, entries: list[Entry], place: Folder) -> set[int]:
    """Vector ids of the catalogue's images whose very bytes are asked about."""
    checksums = []
    for entry in entries:
        try:
            with closing(place.open(entry.path)) as file:
                data = file.read(settings.SHITU_MAX_IMAGE_BYTES)
            checksums.append(hashlib.sha256(data).hexdigest())
        except RecognitionError:  # reported when it is asked about
            continue
    found: set[int] = set()
    for start in range(0, len(checksums), 1000):
        found.update(
            catalogue.images.filter(checksum__in=checksums[start : start + 1000]).values_list(
                "number", flat=True
            )
        )
    return found
