"""Structured logs: one line an event, with the request's or the task's id on each."""

from __future__ import annotations

import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog


def _one_line_a_request(
    _: Any, __: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """The end of a request says everything its start does."""
    if event.get("event") in ("request_started", "task_started"):
        raise structlog.DropEvent
    return event


# Query strings (codes of a sign-in, addresses to go back to) and the secret part of a link that was
# sent by e-mail: an invitation, a new password.
_SECRETS = re.compile(r"\?\S*|(?<=/invitations/)[\w-]{20,}|(?<=/password/reset/)[^\s'/]+/[^\s'/]+")


def _no_secrets_in_addresses(
    _: Any, __: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """What can be used by whoever reads it does not belong into a log."""
    if "request" in event:
        event["request"] = _SECRETS.sub("…", str(event["request"]))
    if str(event.get("logger", "")).startswith("django.request"):
        event["event"] = _SECRETS.sub("…", str(event["event"]))
    return event


SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.ExtraAdder(),
    _no_secrets_in_addresses,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def configure(style: str, level: str) -> dict[str, Any]:
    """Set structlog up and return Django's LOGGING; `style` is `console` or `json`."""
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            _one_line_a_request,
            *SHARED,
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    renderer: list[Any] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if style == "json"
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "lines": {
                "()": structlog.stdlib.ProcessorFormatter,
                "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
                + renderer,
                "foreign_pre_chain": SHARED,
            }
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "lines"}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            "django.request": {"level": "ERROR"},  # below that, request_finished says it all
            "authlib": {"level": "INFO"},  # below that it tells the secret of a sign-in
            "faiss.loader": {"level": "WARNING"},
            "httpx": {"level": "WARNING"},
            "kombu": {"level": "WARNING"},
            "django_structlog.celery": {"level": "WARNING"},
            "celery.app.trace": {"level": "WARNING"},
            "celery.worker.strategy": {"level": "WARNING"},
        },
    }
