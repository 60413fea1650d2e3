"""Import in every format the platform reads."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand

from recognition.management import progress
from recognition.management.commands.build_index import found_or_made
from recognition.services import imports
from recognition.services.imports.site_archive import CATALOGUE_FIELDS, SPACE_FIELDS

_FROM_ARCHIVE = {*CATALOGUE_FIELDS, *SPACE_FIELDS, "feature_model"} - {"name"}


class Command(BaseCommand):
    help = (
        "Import a ZIP (gallery.txt and pictures, a folder for every label, a manifest and "
        "pictures, or an export of this platform), a CSV or XLSX manifest, Google's bulk CSV, or "
        "a folder. The catalogue is made when there is none; of an export, with its settings."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        progress.add_import_arguments(parser)
        parser.add_argument("source", type=Path, help="ZIP, CSV, XLSX or folder")
        parser.add_argument("--labels", type=Path, help="list of the pictures in the folder")
        parser.add_argument("--feature-model", help="for a new catalogue")
        parser.add_argument(
            "--dry-run", action="store_true", help="judge every line, change nothing"
        )

    def handle(self, **options: Any) -> None:
        source: Path = options["source"]
        progress.check_paths(source, options["labels"])
        with progress.in_words():
            with imports.archive_head(source) as head:
                kept = head["catalogue"] if head else {}
            defaults = {name: kept[name] for name in _FROM_ARCHIVE & kept.keys()}
            with found_or_made(options, **defaults) as catalogue:
                job = imports.start_here(
                    catalogue,
                    source,
                    by=progress.find_user(options["user"]),
                    labels=options["labels"],
                    dry_run=options["dry_run"],
                )
                progress.import_here(
                    self, job, wait=not options["no_wait"], report=options["report"]
                )
