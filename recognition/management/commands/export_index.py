"""A catalogue as an index directory of PaddleX."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from recognition.management import progress
from recognition.models import Catalogue, IndexType
from recognition.services import index_files
from recognition.services.index_files import Exported


class Command(BaseCommand):
    help = (
        "Write the vectors of a catalogue as the directory that PaddleX's `predict(index=...)` "
        "takes: vector.index and id_map.yaml; as a ZIP of both when the name ends in .zip."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--catalogue", required=True, help="name or key")
        parser.add_argument("--user", help="look only among catalogues of this user")
        parser.add_argument(
            "--output", type=Path, required=True, help="directory, or a file ending in .zip"
        )
        parser.add_argument("--index-type", choices=IndexType.values, help="default: its own")
        parser.add_argument("--metric", choices=["IP", "L2"], help="default: its own")

    def handle(self, **options: Any) -> None:
        output: Path = Path(options["output"])
        with progress.in_words():
            catalogue = progress.find_catalogue(options["catalogue"], options["user"])
            try:
                written = _write(catalogue, output, options["index_type"], options["metric"])
            except OSError as error:
                raise CommandError(
                    f"{output} cannot be written: {error.strerror}",
                    returncode=progress.NOTHING_DONE,
                ) from error
        model = catalogue.require_index().feature_model
        self.stdout.write(
            f"{output}: {written.vectors} vectors of {written.dimension} dimensions, "
            f"{written.index_type}, {written.metric}"
        )
        self.stdout.write(
            f"made by {model.name}, weights {model.digest[:12]}; the files do not say so"
        )


def _write(
    catalogue: Catalogue, output: Path, index_type: str | None, metric: str | None
) -> Exported:
    if output.suffix.lower() != ".zip":
        return index_files.export_directory(catalogue, output, index_type=index_type, metric=metric)
    part = output.with_name(f"{output.name}.part")
    try:
        with part.open("w+b") as file:
            written = index_files.write_zip(catalogue, file, index_type=index_type, metric=metric)
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)
    return written
