"""A catalogue as a data set for PaddleX's image-feature training."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from recognition.management import progress
from recognition.services import training_sets


class Command(BaseCommand):
    help = (
        "Write the pictures of a catalogue as the data set (ShiTuRecDataset) that PaddleX trains "
        "its image-feature networks on: train, gallery and query lists, split by product."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        default = training_sets.Split()
        parser.add_argument("--catalogue", required=True, help="name or key")
        parser.add_argument("--user", help="look only among catalogues of this user")
        parser.add_argument("--output", type=Path, required=True, help="a new directory")
        parser.add_argument("--seed", type=int, default=0, help="the same seed, the same split")
        parser.add_argument(
            "--train",
            type=float,
            default=default.train,
            help=f"share of products to learn from (default {default.train})",
        )
        parser.add_argument(
            "--query",
            type=float,
            default=default.query,
            help="share of the pictures of the other products to ask about "
            f"(default {default.query})",
        )
        parser.add_argument("--crop", action="store_true", help="cut pictures to their boxes")

    def handle(self, **options: Any) -> None:
        output = Path(options["output"])
        with progress.in_words():
            catalogue = progress.find_catalogue(options["catalogue"], options["user"])
            try:
                with progress.bar(None, "export", "picture") as shown:

                    def written(done: int, total: int) -> None:
                        shown.total = total
                        shown.update(done - shown.n)

                    made = training_sets.export_training_set(
                        catalogue,
                        output,
                        seed=options["seed"],
                        split=training_sets.Split(options["train"], options["query"]),
                        crop=options["crop"],
                        progress=written,
                    )
            except OSError as error:
                raise CommandError(
                    f"{output} cannot be written: {error.strerror}",
                    returncode=progress.NOTHING_DONE,
                ) from error
        out = self.stdout.write
        out(f"{output}: {made.train} pictures of {made.num_classes} products to learn from,")
        out(
            f"{made.gallery} gallery and {made.query} query pictures of {made.held_back} products "
            "held back"
        )
        out(f"train with Train.num_classes={made.num_classes}; see docs/fine-tuning.md")
        if made.left_out:
            self.stderr.write(f"{len(made.left_out)} images have no picture and are left out")
