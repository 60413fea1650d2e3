"""PaddleX's `build_index`."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from recognition.errors import NotFound, RecognitionError
from recognition.management import progress
from recognition.models import Catalogue, CropPolicy, IndexType, Metric, Role
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
            help="afterwards remove whatever this list does not name, if no line of it failed",
        )

    def handle(self, **options: Any) -> None:
        progress.check_paths(options["labels"], folder=options["gallery"])
        with progress.in_words(), found_or_made(options) as catalogue:
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


@contextmanager
def found_or_made(options: dict[str, Any], **defaults: Any) -> Iterator[Catalogue]:
    """The catalogue that the options name, made with their settings when there is none.

    A user who is named must be an editor of one that is there; with the option `own`, it must be
    theirs. `defaults` are settings for a new one that the options do not give. The settings of one
    that is there are never changed: raises CommandError when an option contradicts them. One that
    was made here is gone after the block when nothing came into it, unless somebody interrupted
    that.
    """
    given = {name: options[name] for name in _SETTINGS if options.get(name) is not None}
    try:
        catalogue = progress.find_catalogue(
            options["catalogue"], options["user"], Role.EDITOR, own=bool(options.get("own"))
        )
    except NotFound:
        owner = progress.find_user(options["user"])
        catalogue = catalogues.create(options["catalogue"], owner=owner, **(defaults | given))
    else:
        _check_settings(catalogue, given)
        yield catalogue
        return
    try:
        yield catalogue
    except (CommandError, RecognitionError):
        progress.remove_if_empty(catalogue)
        raise
    progress.remove_if_empty(catalogue)  # a dry run


def _check_settings(catalogue: Catalogue, given: dict[str, Any]) -> None:
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
