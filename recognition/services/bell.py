"""How somebody who waits learns that an answer is there, without looking again and again.

A bell is a Redis list with one entry, so ringing before anybody listens is not lost. The answer
itself is always read from its row; a bell that never rings only costs time.
"""

from __future__ import annotations

import time
from functools import lru_cache
from uuid import UUID

import redis
import structlog
from django.conf import settings

log = structlog.get_logger(__name__)

_KEEP_SECONDS = 60
_LOOK_EVERY = 5.0


@lru_cache(maxsize=1)
def _redis() -> redis.Redis:
    return redis.Redis.from_url(settings.REDIS_URL)


def ring(keys: list[UUID]) -> None:
    """Tell whoever waits for these keys."""
    try:
        with _redis().pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.rpush(f"shitu:bell:{key}", b"1")
                pipe.expire(f"shitu:bell:{key}", _KEEP_SECONDS)
            pipe.execute()
    except redis.RedisError as error:
        log.warning("bell_unreachable", reason=str(error))


def listen(key: UUID, deadline: float) -> None:
    """Sleep until the bell rings, a few seconds have passed, or `deadline` (time.monotonic).

    The caller looks at the row after each return, so a broker that forgot is survived.
    """
    left = min(deadline - time.monotonic(), _LOOK_EVERY)
    if left <= 0:
        return
    try:
        _redis().blpop([f"shitu:bell:{key}"], timeout=left)
    except redis.RedisError as error:
        log.warning("bell_unreachable", reason=str(error))
        time.sleep(min(left, 0.2))
