"""X-Request-ID on every answer, so that a client can name the request it asks about.

The id itself is made by `django_structlog.middlewares.RequestMiddleware`. It clears its context
before any outer middleware sees the response, so the header is set through its signals.
"""

from __future__ import annotations

from typing import Any

from django.dispatch import receiver
from django.http import HttpResponse
from django_structlog import signals

from recognition.api.errors import request_id

HEADER = "X-Request-ID"


@receiver(signals.bind_extra_request_finished_metadata)
def _on_answer(response: HttpResponse, **_: Any) -> None:
    response[HEADER] = request_id()


@receiver(signals.update_failure_response)
def _on_failure(response: HttpResponse, **_: Any) -> None:
    response[HEADER] = request_id()
