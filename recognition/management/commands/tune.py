"""Which engine and how many threads are fastest on this machine."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from recognition.engine.devices import Device, parse_device, probe
from recognition.engine.runtime import usable_cores
from recognition.engine.store import ModelStore
from recognition.errors import RecognitionError
from recognition.services import tuning, workers
from recognition.services.tuning import Measured


class Command(BaseCommand):
    help = (
        "Measure every engine, number of threads and batch size with the networks in use, and "
        "keep the result: workers with SHITU_ENGINE=auto follow it from their next start. Best run "
        "while nothing else does."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--model",
            action="append",
            metavar="NAME",
            help="only this network, may be given several times (default: all that are in use)",
        )
        parser.add_argument("--device", help="cpu, gpu:0 ... (default: SHITU_DEVICE)")
        parser.add_argument(
            "--seconds", type=float, default=1.0, help="for each combination (default: 1)"
        )

    def handle(self, **options: Any) -> None:
        device = _device(options["device"] or settings.SHITU_DEVICE)
        cores = usable_cores()
        counts = _thread_counts(cores) if device.kind == "cpu" else [cores]
        store = ModelStore(settings.SHITU_MODELS_DIR)
        measured: list[Measured] = []
        self.stdout.write(
            f"{'network':<28} {'engine':<14} {'threads':>7} {'batch':>5} {'pictures/s':>11}"
        )
        try:
            for name in options["model"] or workers.models_in_use():
                for one in tuning.measure(
                    store.get(name),
                    device,
                    counts,
                    seconds=options["seconds"],
                    say=self.stderr.write,
                ):
                    measured.append(one)
                    self.stdout.write(_row(one))
                    self.stdout.flush()
        except RecognitionError as error:
            raise CommandError(error.message) from error
        if not measured:
            raise CommandError(f"nothing could be measured on {device}")
        tuning.save(measured)
        self._tell(measured, str(device), cores)

    def _tell(self, measured: list[Measured], device: str, cores: int) -> None:
        choice = tuning.choose(measured, device, cores)
        self.stdout.write(f"\nbest on {device} with {cores} cores: {choice.threads} threads")
        for digest, engine in choice.engines.items():
            best = max(
                (
                    one
                    for one in measured
                    if (one.digest, one.engine, one.threads) == (digest, engine, choice.threads)
                ),
                key=lambda one: one.pictures_per_second,
            )
            self.stdout.write(_row(best))
        self.stdout.write(f"kept in {tuning.path()}; workers take it up at their next start")


def _device(text: str) -> Device:
    """The one device that `text` names, which is there; raises CommandError."""
    try:
        device = parse_device(text)
        probe(device)
    except RecognitionError as error:
        raise CommandError(error.message) from error
    if len(device.ids) > 1:
        raise CommandError(f"{device}: name one device; devices of one kind are alike")
    return device


def _thread_counts(cores: int) -> list[int]:
    """All cores, then half of them and so on down to 1."""
    counts = []
    while cores:
        counts.append(cores)
        cores //= 2
    return counts


def _row(one: Measured) -> str:
    return (
        f"{one.model:<28} {one.engine:<14} {one.threads:>7} {one.batch:>5} "
        f"{one.pictures_per_second:>11.1f}"
    )
