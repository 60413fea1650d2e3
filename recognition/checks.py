"""`manage.py check` refuses a broken set-up with a sentence that names the remedy."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

import redis
from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.files.storage import default_storage
from django.db import DatabaseError, connection

from recognition.engine.devices import parse_device, probe
from recognition.engine.store import ModelStore
from recognition.errors import NotReady, RecognitionError

OLDEST_PGVECTOR = (0, 8)
LEAST_SECRET = 32

_ADDRESSING = ("auto", "path", "virtual")
_LONGEST_SIGNATURE = 7 * 86_400
_INSTALL_STORAGES = "pip install --requirement requirements-s3.txt"


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


@register(Tags.security)
def sign_in_is_set_up(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """E060: half of the settings of a provider; E061: an address that cannot be one; E062: no way
    in at all."""
    found: list[CheckMessage] = []
    names = ("SHITU_OIDC_ISSUER", "SHITU_OIDC_CLIENT_ID", "SHITU_OIDC_CLIENT_SECRET")
    missing = [name for name in names if not getattr(settings, name)]
    if missing and len(missing) < len(names):
        found.append(
            Error(
                f"Sign-in with an OpenID Connect provider is set up halfway: {', '.join(missing)} "
                "is not set, so nobody is offered it.",
                hint="Set all three as the provider shows them, or none of them.",
                id="recognition.E060",
            )
        )
    for name, wrong in (
        ("SHITU_OIDC_ISSUER", _wrong_issuer(settings.SHITU_OIDC_ISSUER)),
        ("SHITU_SITE_URL", _wrong_site(settings.SHITU_SITE_URL)),
    ):
        if wrong:
            found.append(
                Error(
                    f"{name} {wrong}.",
                    hint="Set it to an address such as https://login.example.org.",
                    id="recognition.E061",
                )
            )
    if "openid" not in settings.SHITU_OIDC_SCOPES.split():
        found.append(
            Error(
                "SHITU_OIDC_SCOPES lacks openid: the provider would not say who signs in.",
                hint="Set it to `openid email profile`, or unset it.",
                id="recognition.E061",
            )
        )
    if not settings.SHITU_PASSWORD_LOGIN and missing:
        found.append(
            Error(
                "SHITU_PASSWORD_LOGIN is off and no provider is set up: nobody could sign in.",
                hint=f"Set {', '.join(missing)}, or SHITU_PASSWORD_LOGIN=yes.",
                id="recognition.E062",
            )
        )
    return found


@register(Tags.security, deploy=True)
def provider_answers(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """E063: the provider that signs people in cannot be asked how, or its answer cannot be used."""
    names = ("SHITU_OIDC_ISSUER", "SHITU_OIDC_CLIENT_ID", "SHITU_OIDC_CLIENT_SECRET")
    if not all(getattr(settings, name) for name in names):
        return []
    from recognition import oidc  # only sites with a provider load it

    try:
        oidc.check()
    except NotReady as error:
        return [
            Error(
                f"Nobody can sign in with the provider of SHITU_OIDC_ISSUER: {error.__cause__}",
                hint="Correct the address, let this machine reach it, or mend the provider.",
                id="recognition.E063",
            )
        ]
    return []


def _wrong_issuer(url: str) -> str:
    """What is wrong with the address of a provider; empty for none, or when nothing is."""
    parts = urlsplit(url)
    if parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        return "begins with http://, and over that anybody on the way could sign in as anybody"
    return _wrong_address(url)


def _wrong_site(url: str) -> str:
    """The same of the address of this site, which has no path."""
    if urlsplit(url).path not in ("", "/"):
        return "has a path; only the scheme and the host belong there"
    return _wrong_address(url)


def _wrong_address(url: str) -> str:
    parts = urlsplit(url)
    if url and (parts.scheme not in ("http", "https") or not parts.hostname):
        return "is no web address with https:// and a host"
    if parts.query or parts.fragment:
        return "has a ? or #, which does not belong there"
    return ""


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
    """E020: pictures cannot be stored in SHITU_MEDIA_DIR; W021: a bucket is named and not used."""
    if settings.SHITU_MEDIA_STORAGE != "local":
        return []
    found: list[CheckMessage] = []
    if settings.SHITU_S3_BUCKET:
        found.append(
            Warning(
                "SHITU_S3_BUCKET is set, but pictures are stored in files.",
                hint="Set SHITU_MEDIA_STORAGE=s3, or unset SHITU_S3_BUCKET.",
                id="recognition.W021",
            )
        )
    directory = settings.MEDIA_ROOT
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror
    else:
        if os.access(directory, os.W_OK | os.X_OK):
            return found
        reason = "no permission to write"
    return [
        *found,
        Error(
            f"Pictures cannot be stored in {directory}: {reason}.",
            hint="Make it writable, or set SHITU_MEDIA_DIR to a directory that is.",
            id="recognition.E020",
        ),
    ]


@register()
def bucket_is_described(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """E022: an SHITU_S3_* setting is missing or wrong, or the packages are; W023: one is idle."""
    if settings.SHITU_MEDIA_STORAGE != "s3":
        return []
    wrong: list[tuple[str, str]] = []
    if not all(map(find_spec, ("storages", "boto3"))):
        wrong.append(
            ("SHITU_MEDIA_STORAGE=s3 needs packages that are not installed", _INSTALL_STORAGES)
        )
    if not settings.SHITU_S3_BUCKET:
        wrong.append(("SHITU_S3_BUCKET is missing", "Name the bucket that holds the pictures."))
    if bool(settings.SHITU_S3_ACCESS_KEY) != bool(settings.SHITU_S3_SECRET_KEY):
        wrong.append(
            (
                "only one of SHITU_S3_ACCESS_KEY and SHITU_S3_SECRET_KEY is set",
                "Set both, or none: then AWS_ACCESS_KEY_ID, a profile or the machine's role count.",
            )
        )
    for name in ("SHITU_S3_ENDPOINT", "SHITU_S3_PUBLIC_ENDPOINT"):
        if why := _wrong_address(getattr(settings, name)):
            wrong.append((f"{name} {why}", "Write it as https://s3.example.com."))
    if settings.SHITU_S3_ADDRESSING not in _ADDRESSING:
        wrong.append(
            (
                f"SHITU_S3_ADDRESSING is none of {', '.join(_ADDRESSING)}",
                "`path` puts the bucket behind the host, `virtual` before it.",
            )
        )
    if not 0 <= settings.SHITU_S3_URL_SECONDS <= _LONGEST_SIGNATURE:
        wrong.append(
            (
                f"SHITU_S3_URL_SECONDS must be between 0 and {_LONGEST_SIGNATURE} (a week)",
                "300 is long enough to open a picture; with 0 the site sends pictures itself.",
            )
        )
    found: list[CheckMessage] = [
        Error(f"Pictures cannot be stored: {what}.", hint=remedy, id="recognition.E022")
        for what, remedy in wrong
    ]
    if settings.SHITU_ACCEL_REDIRECT:
        found.append(
            Warning(
                "SHITU_ACCEL_REDIRECT names files that nginx has, but pictures are in a bucket.",
                hint="Unset it; with SHITU_S3_URL_SECONDS above 0 the bucket sends them itself.",
                id="recognition.W023",
            )
        )
    return found


@register(Tags.database)
def bucket_answers(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **_: Any
) -> list[CheckMessage]:
    """E024: the bucket is not there, or our key does not open it. Asked as the database is."""
    if not databases or settings.SHITU_MEDIA_STORAGE != "s3":
        return []
    if any(message.is_serious() for message in bucket_is_described(None)):
        return []
    try:
        default_storage.require()  # type: ignore[attr-defined]  # recognition.storage.Bucket
    except RecognitionError as error:
        return [
            Error(
                f"The bucket {settings.SHITU_S3_BUCKET} cannot be used: {error.message}.",
                hint="Check its name, SHITU_S3_REGION, SHITU_S3_ENDPOINT and the key's rights.",
                id="recognition.E024",
            )
        ]
    return []


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
                Error(error.message, hint="Or run `./manage.py setup`.", id="recognition.E030")
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
