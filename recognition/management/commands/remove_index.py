"""PaddleX's `remove_index`."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from recognition.errors import BadInput
from recognition.gallery_list import Identifier, Severity, read_ids
from recognition.management import progress
from recognition.models import Role
from recognition.services import gallery

_CHUNK = 1000


class Command(BaseCommand):
    help = (
        "Remove images from a catalogue by their vector ids. Exit code 0: all are gone, 1: some "
        "ids were unknown or no numbers, 2: nothing was removed."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--catalogue", required=True, help="name or key")
        parser.add_argument("--user", help="look only among catalogues of this user")
        parser.add_argument(
            "--ids", type=Path, metavar="FILE", help="a file of an id a line, as PaddleX reads it"
        )
        parser.add_argument(
            "id", nargs="*", type=int, help="vector ids, as `export_index` and the API tell them"
        )

    def handle(self, **options: Any) -> None:
        with progress.in_words():
            catalogue = progress.find_catalogue(options["catalogue"], options["user"], Role.EDITOR)
            ids, bad = list(options["id"]), 0
            if options["ids"] is not None:
                from_file, bad = self._read(options["ids"])
                ids += from_file
            removed, unknown = 0, []
            for start in range(0, len(ids), _CHUNK):
                count, missing = gallery.remove_numbers(catalogue, ids[start : start + _CHUNK])
                removed += count
                unknown += missing
        self.stdout.write(f"removed {removed} images from “{catalogue}”")
        for number in unknown:
            self.stderr.write(f"id {number}: not in this catalogue")
        if unknown or bad or not ids:
            raise CommandError(
                f"{len(unknown)} unknown ids, {bad} unreadable lines" if ids else "no id was given",
                returncode=progress.SOME_FAILED if removed else progress.NOTHING_DONE,
            )

    def _read(self, path: Path) -> tuple[list[int], int]:
        ids, bad = [], 0
        try:
            with path.open("rb") as file:
                for item in read_ids(file):
                    if isinstance(item, Identifier):
                        ids.append(item.id)
                    elif item.severity == Severity.ERROR:
                        bad += 1
                        self.stderr.write(f"line {item.line_number}: {item.reason}")
        except OSError as error:
            raise BadInput(
                f"{path} cannot be read: {error.strerror}. --ids takes a file; numbers are given "
                "without it",
                field="ids",
            ) from error
        return ids, bad
