"""PaddleX's `append_index`."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand

from recognition.management import progress
from recognition.models import Role
from recognition.services import imports


class Command(BaseCommand):
    help = "Add a folder of pictures and their gallery list to a catalogue that is there already."

    def add_arguments(self, parser: ArgumentParser) -> None:
        progress.add_import_arguments(parser)
        parser.add_argument("--gallery", type=Path, required=True, help="folder of the pictures")
        parser.add_argument(
            "--labels", type=Path, required=True, help="gallery list: a path and a label a line"
        )

    def handle(self, **options: Any) -> None:
        with progress.in_words():
            catalogue = progress.find_catalogue(options["catalogue"], options["user"], Role.EDITOR)
            progress.check_paths(options["labels"], folder=options["gallery"])
            job = imports.start_here(
                catalogue,
                options["gallery"],
                by=progress.find_user(options["user"]),
                labels=options["labels"],
            )
        progress.import_here(self, job, wait=not options["no_wait"], report=options["report"])
