"""Another network for a catalogue, beside the one that answers."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from recognition.errors import Conflict
from recognition.management import progress
from recognition.management.workers import worker_running
from recognition.models import Catalogue, Job, State, User
from recognition.services import model_switch

_LOOK_EVERY = 0.3
_ROUNDS = 5


class Command(BaseCommand):
    help = (
        "Have workers embed every image of a catalogue with another network, beside the vectors "
        "that answer now; nobody notices. Then compare (`compare_models`), and come back with "
        "--switch to answer with it, or with --drop to remove its vectors. Run it again after an "
        "interruption or for images added since: only what is missing is embedded. Exit code 0: "
        "done, 1: some images could not be embedded, 2: nothing could be done."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--catalogue", required=True, help="name or key")
        parser.add_argument("--user", help="on whose behalf (default: the first superuser)")
        parser.add_argument("--feature-model", required=True, help="as in `models list`")
        parser.add_argument(
            "--switch", action="store_true", help="answer with it once nothing is missing"
        )
        parser.add_argument(
            "--drop",
            action="store_true",
            help="remove its vectors; after --switch, those of the network that answered before",
        )
        parser.add_argument("--no-wait", action="store_true", help="leave it to the workers")

    def handle(self, **options: Any) -> None:
        name = options["feature_model"]
        if options["no_wait"] and (options["switch"] or options["drop"]):
            raise CommandError("--no-wait goes with neither --switch nor --drop", returncode=2)
        with progress.in_words():
            catalogue = progress.find_catalogue(options["catalogue"], options["user"])
            user = progress.find_user(options["user"])
            if options["drop"] and not options["switch"]:
                self._drop(catalogue, name, user)
                return
            if not options["switch"]:
                self._embed(catalogue, name, user, wait=not options["no_wait"])
                return
            before = self._switch(catalogue, name, user)
            self.stdout.write(f"“{catalogue}” answers with {name}, before with {before}")
            if options["drop"]:
                self._drop(catalogue, before, user)

    def _embed(self, catalogue: Catalogue, name: str, user: User, *, wait: bool) -> None:
        job = model_switch.start(catalogue, name, by=user)
        if not wait:
            self.stdout.write(f"queued as job {job.key}")
            return
        with worker_running(self.stdout):
            _follow(job)
        if job.state == State.FAILED:
            raise CommandError(job.error, returncode=progress.NOTHING_DONE)
        self.stdout.write(f"{job.done} of {job.total} images have a vector of {name}")
        for line in job.lines.order_by("number")[: progress.MOST_SHOWN]:
            self.stderr.write(f"{line.text}: {line.reason}")
        if job.failed:
            raise CommandError(
                f"{job.failed} images could not be embedded", returncode=progress.SOME_FAILED
            )

    def _switch(self, catalogue: Catalogue, name: str, user: User) -> str:
        """Switch; where images are added all the time, embed and try again a few times."""
        for round_ in range(_ROUNDS):
            space = catalogue.spaces.filter(feature_model__name=name).first()
            if space is None or model_switch.missing(space).exists():
                self._embed(catalogue, name, user, wait=True)
            try:
                return model_switch.switch(catalogue, name, by=user).feature_model.name
            except Conflict:
                space = model_switch.space_of(catalogue, name)
                if round_ == _ROUNDS - 1 or not model_switch.missing(space).exists():
                    raise
        raise AssertionError("unreachable")

    def _drop(self, catalogue: Catalogue, name: str, user: User) -> None:
        removed = model_switch.drop(catalogue, name, by=user)
        self.stdout.write(f"removed {removed} vectors of {name}")


def _follow(job: Job) -> None:
    """Show how far the job is until it has ended."""
    with progress.bar(None, "embed", "image") as shown:
        while True:
            job.refresh_from_db()
            shown.total = job.total or None
            shown.update(job.done + job.failed - shown.n)
            if job.is_finished:
                return
            time.sleep(_LOOK_EVERY)
