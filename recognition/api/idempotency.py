"""Idempotency-Key: a POST that is sent again, because the answer got lost, is done once.

The first answer is kept for a day and given again. Only answers that made something are kept: what
was refused may be corrected and sent under the same key. No library for this had both a record of
use and file uploads in view, and it is little: one atomic `add` in the shared cache.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any

import structlog
from django.core.cache import cache
from django.core.files.uploadedfile import UploadedFile
from django.http import QueryDict
from django.utils.translation import gettext as _
from redis.exceptions import RedisError
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from recognition.errors import BadInput, Conflict, LimitReached, NotReady

log = structlog.get_logger(__name__)

HEADER = "Idempotency-Key"
REPLAYED = "Idempotent-Replayed"
KEEP_SECONDS = 24 * 3600
# A process killed half-way holds its key this long; longer than any request may take.
_RUNNING_SECONDS = 180
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_KEPT_HEADERS = ("Location", "ETag")

_View = Callable[..., Response]


def idempotent(view: _View) -> _View:
    """Makes a creating method of a view honour Idempotency-Key.

    Raises BadInput for a malformed key, Conflict (409) for a key that came with another request
    before, LimitReached (429) while the first request is still at work, NotReady without a cache.
    """

    @wraps(view)
    def wrapper(self: Any, request: Request, *args: Any, **kwargs: Any) -> Response:
        key = request.headers.get(HEADER)
        if key is None:
            return view(self, request, *args, **kwargs)
        if not _KEY.fullmatch(key):
            raise BadInput(
                _("%(header)s must be 1 to 255 visible ASCII characters, for instance a UUID")
                % {"header": HEADER},
                field=HEADER,
            )
        return _once(_name(request, key), request, lambda: view(self, request, *args, **kwargs))

    wrapper.idempotent = True  # type: ignore[attr-defined]  # read by api/schema.py
    return wrapper


def _once(name: str, request: Request, act: Callable[[], Response]) -> Response:
    content = _fingerprint(request)
    try:
        first = cache.add(name, {"content": content}, _RUNNING_SECONDS)
        kept = None if first else cache.get(name)
    except RedisError as error:
        raise NotReady(
            _("%(header)s cannot be honoured now: the store of earlier answers is out of reach")
            % {"header": HEADER}
        ) from error
    if not first:
        return _again(kept, content)
    try:
        response = act()
    except BaseException:
        with suppress(RedisError):  # then the key frees itself; the error at hand matters more
            cache.delete(name)
        raise
    answer = {
        "content": content,
        "status": response.status_code,
        "body": JSONRenderer().render(response.data),
        "headers": {header: response[header] for header in _KEPT_HEADERS if header in response},
    }
    try:
        cache.set(name, answer, KEEP_SECONDS)
    except RedisError as error:  # it is done, so it is answered
        log.warning("idempotent_answer_not_kept", reason=str(error))
    return response


def _again(kept: dict[str, Any] | None, content: str) -> Response:
    if kept is None or (kept["content"] == content and "status" not in kept):
        raise LimitReached(
            _("a request with this %(header)s is at work; ask again in a moment")
            % {"header": HEADER},
            retry_after=2,
        )
    if kept["content"] != content:
        raise Conflict(
            _("this %(header)s came with another request before; use a new key for a new request")
            % {"header": HEADER},
            field=HEADER,
        )
    return Response(
        json.loads(kept["body"]),
        status=kept["status"],
        headers=kept["headers"] | {REPLAYED: "true"},
    )


def _name(request: Request, key: str) -> str:
    """One user's key for one address; nobody meets the key of another."""
    text = f"{request.user.pk} {request.get_full_path()} {key}"
    return f"idempotency:{hashlib.sha256(text.encode()).hexdigest()}"


def _fingerprint(request: Request) -> str:
    """What was sent, read rather than raw: multipart boundaries differ every time."""
    digest = hashlib.sha256()
    data = request.data
    if not isinstance(data, QueryDict):
        digest.update(json.dumps(data, sort_keys=True).encode())
        return digest.hexdigest()
    for field, values in sorted(data.lists()):
        for value in values:
            digest.update(f"{field}\0".encode())
            if isinstance(value, UploadedFile):
                digest.update(f"{value.name}\0{value.size}\0".encode())
                for chunk in value.chunks():
                    digest.update(chunk)
                value.seek(0)
            else:
                digest.update(f"{len(value)}\0{value}".encode())
    return digest.hexdigest()
