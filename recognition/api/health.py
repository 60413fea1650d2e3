"""Is it up? For load balancers, compose and PaddleX clients; nobody needs to sign in to ask."""

from __future__ import annotations

from uuid import uuid4

import redis
from django.conf import settings
from django.db import DatabaseError, connection
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from recognition.models import Worker

_SECONDS = 2


@never_cache
@require_safe
def health(request: HttpRequest) -> JsonResponse:
    """PaddleX's health answer, and what it stands on as booleans.

    503 when the database or the broker is out of reach. Without a live worker it stays 200 and
    `workers` is false: questions are still taken, and answered when one is back.
    """
    database, workers = _database()
    broker = _broker()
    up = database and broker
    missing = [name for name, there in (("database", database), ("broker", broker)) if not there]
    return JsonResponse(
        {
            "logId": str(uuid4()),
            "errorCode": 0 if up else 503,
            "errorMsg": "Healthy" if up else f"Out of reach: {', '.join(missing)}",
            "database": database,
            "broker": broker,
            "workers": workers,
        },
        status=200 if up else 503,
    )


def _database() -> tuple[bool, bool]:
    """Whether it answers, and whether a worker announced itself lately."""
    try:
        return True, Worker.objects.alive().exists()
    except DatabaseError:
        connection.close()  # one that died is not asked again
        return False, False


def _broker() -> bool:
    client = redis.Redis.from_url(
        settings.REDIS_URL, socket_timeout=_SECONDS, socket_connect_timeout=_SECONDS
    )
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()
