"""Workers: one process for each device, its networks loaded before it takes work."""

from __future__ import annotations

import signal
import sys
import time
import warnings
from argparse import ArgumentParser
from types import FrameType
from typing import Any, NoReturn

from celery.platforms import SecurityWarning
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from recognition.errors import RecognitionError
from recognition.management.workers import (
    CANNOT_START,
    Crew,
    devices_of,
    share_cores,
    usable_cores,
)
from shitu_site.celery import app

_QUEUES = ("live", "bulk")


class Command(BaseCommand):
    help = (
        "Run workers that detect, embed and answer: one process for each device. Live queries go "
        "before bulk work."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--device", help="cpu, gpu:0, gpu:0,1, npu:0 ... (default: SHITU_DEVICES, SHITU_DEVICE)"
        )
        parser.add_argument("--processes", type=int, default=1, help="on each device (default: 1)")
        parser.add_argument(
            "--queues",
            default=",".join(_QUEUES),
            help="in order of precedence (default: live,bulk); live: questions only",
        )

    def handle(self, *, device: str | None, processes: int, queues: str, **options: Any) -> None:
        from recognition.engine.devices import probe

        if not queues or set(queues.split(",")) - set(_QUEUES):
            raise CommandError(
                f"--queues {queues!r}: use live, bulk or live,bulk", returncode=CANNOT_START
            )
        if processes < 1:
            raise CommandError("--processes must be at least 1", returncode=CANNOT_START)
        try:
            devices = devices_of(device or settings.SHITU_DEVICES or settings.SHITU_DEVICE)
            for one in devices:
                probe(one)
        except RecognitionError as error:
            raise CommandError(error.message, returncode=CANNOT_START) from error
        names = [str(one) for one in devices for _ in range(processes)]
        if len(names) > 1:
            raise SystemExit(self._crew(names, queues).run())
        settings.SHITU_DEVICE = names[0]
        self._work(queues)

    def _crew(self, devices: list[str], queues: str) -> Crew:
        crew = Crew(self._say)
        cores = share_cores(usable_cores(), len(devices))
        for number, (device, share) in enumerate(zip(devices, cores, strict=True), start=1):
            command = [sys.executable, str(settings.BASE_DIR / "manage.py"), "worker"]
            crew.add(
                f"worker {number} ({device})",
                [*command, "--device", device, "--queues", queues],
                share,
            )
        self._say(f"{len(devices)} workers on {', '.join(devices)}")
        return crew

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()

    def _work(self, queues: str) -> None:
        """Be one worker, until a signal ends it."""
        from recognition.services import workers
        from recognition.services.runtime import get_runtime

        started = time.perf_counter()
        try:
            get_runtime().warm_up(workers.models_in_use())
        except RecognitionError as error:
            raise CommandError(error.message, returncode=CANNOT_START) from error
        for network in get_runtime().describe():
            self.stdout.write(
                f"{network.name} {network.digest[:12]}: {network.engine} on {network.device}, "
                f"{network.threads} threads, loaded in {network.seconds:.1f} s"
            )
        self._say(
            f"ready after {time.perf_counter() - started:.1f} s: device {settings.SHITU_DEVICE}, "
            f"queues {queues}"
        )
        # As root is how containers run; the networks and files are ours alone all the same.
        warnings.filterwarnings("ignore", category=SecurityWarning)
        signal.signal(signal.SIGTERM, _end)
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


def _end(number: int, frame: FrameType | None) -> NoReturn:
    """Until Celery has set up its own handler, so that the worker leaves the list then, too."""
    raise SystemExit(0)
