"""How somebody who waits learns that an answer is there, without looking again and again.

A bell is a Redis list with one entry, so ringing before anybody listens is not lost, and it stays
for all who listen. The answer itself is always read from its row; a bell that never rings only
costs time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from uuid import UUID

import redis
import structlog
from django.conf import settings

log = structlog.get_logger(__name__)

_KEEP_SECONDS = 60
_LOOK_EVERY = 5.0
_KNOCK = "shitu:knock"
_KNOCK_MS = 2000

Sleep = Callable[[float], None]


@lru_cache(maxsize=1)
def _redis() -> redis.Redis:
    return redis.Redis.from_url(settings.REDIS_URL, socket_timeout=2 * _LOOK_EVERY)


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
        bell = f"shitu:bell:{key}"
        _redis().blmove(bell, bell, timeout=left)  # type: ignore[arg-type]  # fractions are allowed
    except redis.RedisError as error:
        log.warning("bell_unreachable", reason=str(error))
        time.sleep(min(left, 0.2))


def knock() -> bool:
    """Whether a question that waits needs a wake-up of its own.

    It needs none while an earlier one has not been taken by a worker yet, because whoever takes it
    looks at all rows. Two seconds later it does in any case: the broker may have forgotten.
    """
    try:
        return bool(_redis().set(_KNOCK, b"1", nx=True, px=_KNOCK_MS))
    except redis.RedisError as error:
        log.warning("bell_unreachable", reason=str(error))
        return True


def knock_taken() -> None:
    """A worker is about to look: what is stored from now on needs another wake-up."""
    try:
        _redis().delete(_KNOCK)
    except redis.RedisError as error:
        log.warning("bell_unreachable", reason=str(error))


def embedded(catalogue_id: int) -> None:
    """Tell everybody who waits for gallery images of this catalogue that some have ended."""
    try:
        _redis().publish(f"shitu:embedded:{catalogue_id}", b"1")
    except redis.RedisError as error:
        log.warning("bell_unreachable", reason=str(error))


@contextmanager
def while_embedding(catalogue_id: int) -> Iterator[Sleep]:
    """Yields a `listen` for the images of one catalogue: it sleeps until `embedded` was called
    since the last time, or since the block began.

    Any number of callers may wait for one catalogue, so this one is a channel and not a list.
    """
    try:
        channel = _redis().pubsub(ignore_subscribe_messages=True)
        channel.subscribe(f"shitu:embedded:{catalogue_id}")
        channel.get_message(timeout=_LOOK_EVERY)  # Redis says that we hear from now on
    except redis.RedisError as error:
        log.warning("bell_unreachable", reason=str(error))
        yield lambda deadline: time.sleep(max(0.0, min(deadline - time.monotonic(), 0.5)))
        return

    def sleep(deadline: float) -> None:
        until = min(deadline, time.monotonic() + _LOOK_EVERY)
        try:
            while (left := until - time.monotonic()) > 0:
                if channel.get_message(timeout=left):
                    while channel.get_message():  # one look answers all of them
                        pass
                    return
        except redis.RedisError as error:
            log.warning("bell_unreachable", reason=str(error))
            time.sleep(max(0.0, min(left, 0.5)))

    try:
        yield sleep
    finally:
        channel.close()
