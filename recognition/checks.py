"""`manage.py check` refuses a broken set-up with a sentence that names the remedy."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import redis
from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import DatabaseError, connection

from recognition.engine.devices import parse_device, probe
from recognition.engine.store import ModelStore
from recognition.errors import RecognitionError

OLDEST_PGVECTOR = (0, 8)
LEAST_SECRET = 32


@register(Tags.security)
def secret_is_set(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """W001: a key set by hand is too short; E002: debug pages never beside a real host."""
    found: list[CheckMessage] = []
    if len(settings.SECRET_KEY) < LEAST_SECRET:
        found.append(
            Warning(
                f"SHITU_SECRET_KEY has fewer than {LEAST_SECRET} characters.",
                hint="Set it to a long random value, or leave it unset and one is made.",
                id="recognition.W001",
            )
        )
    if settings.DEBUG and set(settings.ALLOWED_HOSTS) - {"127.0.0.1", "localhost", "[::1]"}:
        found.append(
            Error(
                "SHITU_DEBUG is on while SHITU_ALLOWED_HOSTS names other machines: error pages "
                "would show settings to strangers.",
                hint="Unset SHITU_DEBUG.",
                id="recognition.E002",
            )
        )
    return found


@register(Tags.database)
def pgvector_is_new_enough(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **_: Any
) -> list[CheckMessage]:
    """E010: the server cannot be reached; E011: no pgvector, or one older than 0.8."""
    if not databases:
        return []
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT default_version FROM pg_available_extensions WHERE name='vector'"
            )
            available = cursor.fetchone()
            cursor.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
            present = cursor.fetchone()
    except DatabaseError as error:
        return [
            Error(
                f"PostgreSQL cannot be reached: {str(error).strip()}",
                hint="Start it, correct DATABASE_URL, or unset it to use the embedded one.",
                id="recognition.E010",
            )
        ]
    version = (present or available or [None])[0]
    if version is None:
        return [
            Error(
                "This PostgreSQL has no pgvector.",
                hint="Install pgvector 0.8 or newer on it, or unset DATABASE_URL.",
                id="recognition.E011",
            )
        ]
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_PGVECTOR:
        return [
            Error(
                f"pgvector {version} is too old: halfvec and iterative scans need 0.8.",
                hint="Install a newer pgvector, then run ALTER EXTENSION vector UPDATE.",
                id="recognition.E011",
            )
        ]
    return []


@register()
def media_is_writable(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """E020: pictures cannot be stored."""
    directory = settings.MEDIA_ROOT
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror
    else:
        if os.access(directory, os.W_OK | os.X_OK):
            return []
        reason = "no permission to write"
    return [
        Error(
            f"Pictures cannot be stored in {directory}: {reason}.",
            hint="Make it writable, or set SHITU_MEDIA_DIR to a directory that is.",
            id="recognition.E020",
        )
    ]


@register()
def models_are_installed(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """E030: a model that the settings name is missing."""
    store = ModelStore(settings.SHITU_MODELS_DIR)
    found: list[CheckMessage] = []
    for name in (settings.SHITU_DETECTOR, settings.SHITU_FEATURE_MODEL):
        try:
            if name:
                store.get(name)
        except RecognitionError as error:
            found.append(
                Error(error.message, hint="Or run `manage.py setup`.", id="recognition.E030")
            )
    return found


@register()
def broker_answers(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """E040: no Redis, so no worker ever hears of anything."""
    try:
        with redis.Redis.from_url(settings.REDIS_URL, socket_connect_timeout=3) as client:
            client.ping()
    except redis.RedisError as error:
        return [
            Error(
                f"Redis cannot be reached: {error}",
                hint="Start it, correct REDIS_URL, or unset REDIS_URL to use the embedded one.",
                id="recognition.E040",
            )
        ]
    return []


@register()
def device_is_there(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """E050: the device that the settings name is misspelt or absent."""
    try:
        probe(parse_device(settings.SHITU_DEVICE))
    except RecognitionError as error:
        return [
            Error(
                error.message,
                hint="Set SHITU_DEVICE to a device this machine has; `cpu` always works.",
                id="recognition.E050",
            )
        ]
    return []
