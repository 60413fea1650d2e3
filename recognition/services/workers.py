"""A worker tells that it is there, what it runs on, and how fast."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import structlog
from django.conf import settings
from django.db import DatabaseError, connection
from django.db.models import QuerySet
from django.utils import timezone

from recognition.models import Catalogue, Worker
from recognition.services.runtime import get_runtime

log = structlog.get_logger(__name__)

_EVERY_SECONDS = 5.0
_FORGET_AFTER_DAYS = 7


class _Tally:
    """Pictures and seconds since this process started; written by one thread, read by another."""

    def __init__(self) -> None:
        self.pictures = 0
        self.seconds = 0.0


_tally = _Tally()


@contextmanager
def counting(pictures: int) -> Iterator[None]:
    """Count `pictures` that go through the networks in this block."""
    started = time.perf_counter()
    yield
    _tally.pictures += pictures
    _tally.seconds += time.perf_counter() - started


def name() -> str:
    """`host:pid` of this process."""
    return f"{socket.gethostname()}:{os.getpid()}"


def listing() -> QuerySet[Worker]:
    """Every worker of the last days, the one heard of last first; `Worker.is_alive` tells who is
    gone. One that was stopped in order is not among them."""
    return Worker.objects.order_by("-seen_at", "name")


def models_in_use() -> list[str]:
    """Names of the site's default networks and of those that catalogues use."""
    names = {settings.SHITU_DETECTOR, settings.SHITU_FEATURE_MODEL}
    for detector, model in Catalogue.objects.values_list(
        "detector", "index__feature_model__name"
    ).distinct():
        names |= {detector, model}
    return sorted(name for name in names if name)


def answers_per_second() -> float | None:
    """Questions that the live workers can answer a second, as measured; None while none has
    worked."""
    alive = Worker.objects.alive().filter(queues__contains="live")
    rates = [rate for one in alive if (rate := one.pictures_per_second)]
    return sum(rates) or None


def announce(queues: str) -> None:
    """Write this process down as a worker, and keep saying so from a thread until it ends."""
    now = timezone.now()
    Worker.objects.filter(seen_at__lt=now - timedelta(days=_FORGET_AFTER_DAYS)).delete()
    Worker.objects.update_or_create(
        name=name(),
        defaults={
            "device": settings.SHITU_DEVICE,
            "queues": queues,
            "batch_size": settings.SHITU_BATCH_SIZE,
            "started_at": now,
            "pictures": 0,
            "busy_seconds": 0.0,
            **_now(),
        },
    )
    threading.Thread(target=_keep_announcing, name="announce", daemon=True).start()


def leave() -> None:
    """Take this process off the list."""
    Worker.objects.filter(name=name()).delete()


def _now() -> dict[str, object]:
    return {
        "seen_at": timezone.now(),
        "networks": [asdict(network) for network in get_runtime().describe()],
        "pictures": _tally.pictures,
        "busy_seconds": _tally.seconds,
        "memory_bytes": _resident_bytes(),
    }


def _keep_announcing() -> None:
    while True:
        time.sleep(_EVERY_SECONDS)
        try:
            Worker.objects.filter(name=name()).update(**_now())
        except DatabaseError as error:  # it restarts; the next round will find it
            log.warning("announce_failed", reason=str(error))
            connection.close()


def _resident_bytes() -> int:
    """Resident memory; 0 where the system has no /proc."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
