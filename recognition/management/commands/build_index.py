"""PaddleX's `build_index`."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from recognition.errors import NotFound
from recognition.management import progress
from recognition.models import Catalogue, CropPolicy, IndexType, Metric
from recognition.services import catalogues, imports


class Command(BaseCommand):
    help = (
        "Make a catalogue of a folder of pictures and their gallery list. Run it again after an "
        "interruption: it goes on, and nothing is added twice. Exit code 0: all lines are in, "
        "1: some failed, 2: nothing could be done."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        progress.add_import_arguments(parser)
        parser.add_argument("--gallery", type=Path, required=True, help="folder of the pictures")
        parser.add_argument(
            "--labels", type=Path, required=True, help="gallery list: a path and a label a line"
        )
        parser.add_argument("--metric", choices=Metric.values)
        parser.add_argument("--index-type", choices=IndexType.values)
        parser.add_argument("--feature-model")
        parser.add_argument("--detector", help="'' for none")
        parser.add_argument("--crop-policy", choices=CropPolicy.values)
        parser.add_argument(
            "--replace",
            action="store_true",
            help="afterwards remove whatever this list does not name",
        )

    def handle(self, **options: Any) -> None:
        with progress.in_words():
            catalogue = find_or_create(options)
            job = imports.start_here(
                catalogue,
                options["gallery"],
                by=progress.find_user(options["user"]),
                labels=options["labels"],
            )
        progress.import_here(
            self,
            job,
            wait=not options["no_wait"],
            replace=options["replace"],
            report=options["report"],
        )


_SETTINGS = ("metric", "index_type", "feature_model", "detector", "crop_policy")


def find_or_create(options: dict[str, Any], **defaults: Any) -> Catalogue:
    """The catalogue that the options name, made with their settings when there is none.

    `defaults` are settings for a new one that the options do not give. The settings of one that is
    there are never changed: raises CommandError when an option contradicts them.
    """
    given = {name: options[name] for name in _SETTINGS if options.get(name) is not None}
    try:
        catalogue = progress.find_catalogue(options["catalogue"], options["user"])
    except NotFound:
        return catalogues.create(
            options["catalogue"],
            owner=progress.find_user(options["user"]),
            **(defaults | given),
        )
    space = catalogue.require_index()
    there = {
        "metric": space.metric,
        "index_type": space.index_type,
        "feature_model": space.feature_model.name,
        "detector": catalogue.detector,
        "crop_policy": catalogue.crop_policy,
    }
    for name, value in given.items():
        if value != there[name]:
            raise CommandError(
                f"“{catalogue}” is there already with {name.replace('_', ' ')} "
                f"“{there[name]}”, not “{value}”; leave the option out, or take another name",
                returncode=progress.NOTHING_DONE,
            )
    return catalogue
