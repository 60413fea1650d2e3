"""How well a catalogue recognises labelled pictures."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from recognition import images
from recognition.errors import BadInput
from recognition.evaluation import Report, SingleAnswer, evaluate
from recognition.gallery_list import Entry, Severity, read_gallery_list
from recognition.images import Picture
from recognition.management import progress
from recognition.management.workers import worker_running
from recognition.models import Catalogue, Metric
from recognition.services import queries
from recognition.services.imports.places import Folder

_TOP_K = 5
_SHOWN = 15


class Command(BaseCommand):
    help = (
        "Ask about labelled pictures of one product each, and print Recall@1, Recall@5, the worst "
        "products and what is taken for what. Where several objects are detected, the one that "
        "is recognised best counts. Exit code 0: all were answered, 1: some failed, 2: none."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--catalogue", required=True, help="name or key")
        parser.add_argument("--user", help="on whose behalf (default: the first superuser)")
        parser.add_argument(
            "--queries", type=Path, required=True, help="list: a path and the true label a line"
        )
        parser.add_argument("--root", type=Path, required=True, help="folder of the pictures")
        parser.add_argument(
            "--whole", action="store_true", help="ask about the whole picture, without detection"
        )
        parser.add_argument(
            "--rec-threshold",
            type=float,
            help="below it an answer is unknown (default: none, recall is of the ranking alone)",
        )
        parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures as JSON")

    def handle(self, **options: Any) -> None:
        with progress.in_words():
            catalogue = progress.find_catalogue(options["catalogue"], options["user"])
            user = progress.find_user(options["user"])
            entries, failed = self._read(options["queries"])
        place = Folder(options["root"])
        threshold = options["rec_threshold"]
        asked = queries.Options(
            rec_threshold=_all_of(catalogue) if threshold is None else threshold,
            top_k=_TOP_K,
            boxes=[] if options["whole"] else None,
        )
        inputs = ((entry.path, partial(_load, place, entry.path)) for entry in entries)
        answers = []
        with worker_running(self.stderr):
            answered = queries.ask_all(catalogue, inputs, by=user, options=asked)
            followed = progress.followed(answered, len(entries), "ask", "picture")
            for entry, answer in zip(entries, followed, strict=True):
                if answer.query is None:
                    failed += 1
                    reason = answer.error.message if answer.error else "no answer"
                    self.stderr.write(f"line {entry.line_number}: {entry.path}: {reason}")
                else:
                    answers.append(SingleAnswer(entry.label, queries.best_labels(answer.query)))
        if not answers:
            raise CommandError("not one picture was answered", returncode=progress.NOTHING_DONE)
        report = evaluate(answers)
        self._print(report, catalogue)
        if options["json"]:
            options["json"].write_text(
                json.dumps(report.as_dict() | {"failed": failed}, ensure_ascii=False, indent=2)
                + "\n",
                encoding="utf-8",
            )
        if failed:
            raise CommandError(
                f"{failed} lines could not be asked about and are in no figure",
                returncode=progress.SOME_FAILED,
            )

    def _read(self, path: Path) -> tuple[list[Entry], int]:
        entries, failed = [], 0
        try:
            with path.open("rb") as file:
                for item in read_gallery_list(file, allow_absolute=True):
                    if isinstance(item, Entry):
                        entries.append(item)
                    elif item.severity == Severity.ERROR:
                        failed += 1
                        self.stderr.write(f"line {item.line_number}: {item.reason}")
        except OSError as error:
            raise BadInput(f"{path} cannot be read: {error.strerror}", field="queries") from error
        return entries, failed

    def _print(self, report: Report, catalogue: Catalogue) -> None:
        model = catalogue.require_index().feature_model
        out = self.stdout.write
        out(f"{'Feature model':<36} {model.name}, weights {model.digest[:12]}")
        for name, value in report.as_rows():
            if "cene" not in name:
                out(f"{name:<36} {value}")
        for line in _worst(report):
            out(line)


def _worst(report: Report) -> Iterator[str]:
    """The products that are recognised worst, and the most frequent mix-ups."""
    worst = sorted(report.products, key=lambda product: (product.recall, product.label))
    imperfect = [product for product in worst if product.recall < 1][:_SHOWN]
    if imperfect:
        yield "\nworst products (right of asked)"
    for product in imperfect:
        yield f"  {product.label:<34} {product.right} of {product.asked}"
    if report.confusions:
        yield "\ntaken for (times)"
    for mixed in report.confusions[:_SHOWN]:
        yield f"  {mixed.truth} -> {mixed.answer or 'unknown'} ({mixed.count})"


def _all_of(catalogue: Catalogue) -> float:
    """A threshold that lets every neighbour pass."""
    return 4.0 if catalogue.require_index().metric == Metric.L2 else -1.0


def _load(place: Folder, path: str) -> Picture:
    with closing(place.open(path)) as file:
        return images.check(file)
