"""Queues have an end: beyond it the answer is "later", at once, instead of a wait without end."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db.models import QuerySet

from recognition.errors import LimitReached
from recognition.models import Catalogue, GalleryImage, RecognitionQuery, State
from recognition.services import workers

_UNFINISHED = (State.PENDING, State.RUNNING)
_UNKNOWN_RATE = 30.0
_SOONEST, _LATEST = 1.0, 300.0  # seconds


def check_query() -> None:
    """Raises LimitReached when `SHITU_MAX_WAITING_QUERIES` questions are unfinished already."""
    most = settings.SHITU_MAX_WAITING_QUERIES
    if _is_full(RecognitionQuery.objects.all(), most):
        raise LimitReached(
            f"{most:,} questions are waiting for an answer already (SHITU_MAX_WAITING_QUERIES); "
            "ask again later",
            retry_after=_seconds(most),
        )


def check_images(catalogue: Catalogue) -> None:
    """Raises LimitReached when `SHITU_MAX_WAITING_IMAGES` images of the catalogue wait already.

    For those who add while somebody waits; an import runs as a job and needs no limit.
    """
    most = settings.SHITU_MAX_WAITING_IMAGES
    if _is_full(GalleryImage.objects.filter(catalogue=catalogue), most):
        raise LimitReached(
            f"{most:,} pictures of the catalogue “{catalogue.name}” are waiting to be embedded "
            "already (SHITU_MAX_WAITING_IMAGES); add more later",
            retry_after=_seconds(most),
        )


def _is_full(rows: QuerySet[Any], most: int) -> bool:
    """Whether at least `most` of the rows are unfinished; 0 is no limit.

    A partial index holds exactly the unfinished, and at most `most` entries of it are looked at.
    """
    if not most:
        return False
    unfinished = rows.filter(state__in=_UNFINISHED).order_by()
    return bool(unfinished[most - 1 : most].exists())


def _seconds(waiting: int) -> float:
    """How long the workers will take for so many, at the rate they have shown."""
    rate = workers.answers_per_second()
    return min(max(waiting / rate, _SOONEST), _LATEST) if rate else _UNKNOWN_RATE
