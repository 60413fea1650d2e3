"""Queues have an end: beyond it the answer is "later", at once, instead of a wait without end."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db.models import QuerySet
from django.utils.translation import gettext as _

from recognition.errors import LimitReached
from recognition.models import Catalogue, GalleryImage, RecognitionQuery, State
from recognition.models.prepared import prepared
from recognition.services import workers

_UNFINISHED = State.unfinished()
_UNKNOWN_RATE = 30.0
_SOONEST, _LATEST = 1.0, 300.0  # seconds


def check_query() -> None:
    """Raises LimitReached when `SHITU_MAX_WAITING_QUERIES` questions are unfinished already."""
    most = settings.SHITU_MAX_WAITING_QUERIES
    if most and _last_query(most=most):
        raise LimitReached(
            _(
                "%(most)s questions are waiting for an answer already (SHITU_MAX_WAITING_QUERIES); "
                "ask again later"
            )
            % {"most": f"{most:,}"},
            retry_after=_seconds(most),
        )


def check_images(catalogue: Catalogue) -> None:
    """Raises LimitReached when `SHITU_MAX_WAITING_IMAGES` images of the catalogue wait already.

    For those who add while somebody waits; an import runs as a job and needs no limit.
    """
    most = settings.SHITU_MAX_WAITING_IMAGES
    if most and _last_of(GalleryImage.objects.filter(catalogue=catalogue), most).exists():
        raise LimitReached(
            _(
                "%(most)s pictures of the catalogue “%(catalogue)s” are waiting to be embedded "
                "already (SHITU_MAX_WAITING_IMAGES); add more later"
            )
            % {"most": f"{most:,}", "catalogue": catalogue.name},
            retry_after=_seconds(most),
        )


def _last_of(rows: QuerySet[Any], most: int) -> QuerySet[Any]:
    """The last of as many unfinished rows as there may be; none as long as there are fewer.

    A partial index holds exactly the unfinished, and at most `most` entries of it are looked at.
    """
    unfinished = rows.filter(state__in=_UNFINISHED).order_by()
    return unfinished.values_list("pk")[most - 1 : most]


@prepared
def _last_query(*, most: int) -> QuerySet[Any]:
    return _last_of(RecognitionQuery.objects.all(), most)


def _seconds(waiting: int) -> float:
    """How long the workers will take for so many, at the rate they have shown."""
    rate = workers.answers_per_second()
    return min(max(waiting / rate, _SOONEST), _LATEST) if rate else _UNKNOWN_RATE
