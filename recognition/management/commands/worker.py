"""A worker: one process, one device, its networks loaded before it takes work."""

from __future__ import annotations

import time
import warnings
from argparse import ArgumentParser
from typing import Any

from celery.platforms import SecurityWarning
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from recognition.errors import RecognitionError
from recognition.models import Catalogue
from shitu_site.celery import app


class Command(BaseCommand):
    help = "Run a worker that detects, embeds and answers. Live queries go before bulk work."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--device", help="cpu, gpu:0, npu:0 ... (default: SHITU_DEVICE)")
        parser.add_argument(
            "--queues", default="live,bulk", help="in order of precedence (default: live,bulk)"
        )

    def handle(self, *, device: str | None, queues: str, **options: Any) -> None:
        from recognition.engine.devices import parse_device, probe
        from recognition.services import workers
        from recognition.services.runtime import get_runtime

        if device:
            settings.SHITU_DEVICE = device
        started = time.perf_counter()
        try:
            probe(parse_device(settings.SHITU_DEVICE))
            get_runtime().warm_up(self._names())
        except RecognitionError as error:
            raise CommandError(error.message) from error
        for network in get_runtime().describe():
            self.stdout.write(
                f"{network.name} {network.digest[:12]}: {network.engine} on {network.device}, "
                f"{network.threads} threads, loaded in {network.seconds:.1f} s"
            )
        self.stdout.write(
            f"ready after {time.perf_counter() - started:.1f} s: device {settings.SHITU_DEVICE}, "
            f"queues {queues}"
        )
        self.stdout.flush()
        # As root is how containers run; the networks and files are ours alone all the same.
        warnings.filterwarnings("ignore", category=SecurityWarning)
        workers.announce(queues)
        try:
            app.worker_main(
                [
                    "--quiet",
                    "worker",
                    "--pool=solo",
                    f"--queues={queues}",
                    f"--hostname=shitu-{workers.name()}@%h",
                    "--loglevel=INFO",
                    "--without-gossip",
                    "--without-mingle",
                ]
            )
        finally:
            workers.leave()

    def _names(self) -> list[str]:
        """The site's default networks and those that catalogues use."""
        names = {settings.SHITU_DETECTOR, settings.SHITU_FEATURE_MODEL}
        for detector, model in Catalogue.objects.values_list(
            "detector", "index__feature_model__name"
        ).distinct():
            names |= {detector, model}
        return sorted(name for name in names if name)
