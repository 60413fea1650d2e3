"""Export a catalogue as one ZIP."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from recognition.management import progress
from recognition.services import exports


class Command(BaseCommand):
    help = (
        "Write a catalogue as a ZIP: gallery.txt and pictures as PaddleX reads them, and all that "
        "`import_catalogue` needs to restore it elsewhere."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--catalogue", required=True, help="name or key")
        parser.add_argument("--user", help="look only among catalogues of this user")
        parser.add_argument("--output", type=Path, required=True, help="the ZIP to write")
        parser.add_argument(
            "--embeddings",
            action="store_true",
            help="with vectors, so that nothing is embedded again where the same weights are used",
        )

    def handle(self, **options: Any) -> None:
        output: Path = options["output"]
        part = output.with_name(output.name + ".part")
        with progress.in_words():
            catalogue = progress.find_catalogue(options["catalogue"], options["user"])
            try:
                with part.open("w+b") as file, progress.bar(None, "export", "image") as shown:

                    def written(done: int, total: int) -> None:
                        shown.total = total
                        shown.update(done - shown.n)

                    count = exports.write(
                        catalogue, file, embeddings=options["embeddings"], written=written
                    )
                part.replace(output)
            except OSError as error:
                raise CommandError(
                    f"{output} cannot be written: {error.strerror}",
                    returncode=progress.NOTHING_DONE,
                ) from error
            finally:
                part.unlink(missing_ok=True)
        self.stdout.write(f"{output}: {count} images, {output.stat().st_size:,} bytes")
