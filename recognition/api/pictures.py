"""Pictures go out, after the gate let the request through; pictures come in."""

from __future__ import annotations

import mimetypes
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from django.conf import settings
from django.core.files.storage import default_storage
from django.http import FileResponse, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.cache import get_conditional_response
from rest_framework.request import Request

from recognition import fetch, images
from recognition.errors import NotFound
from recognition.images import Picture

_CACHE = "private, max-age=3600"
_JPEG = "image/jpeg"


def stored(request: Request, name: str) -> HttpResponseBase:
    """The stored file `name`: from here, or by the web server when SHITU_ACCEL_REDIRECT is set.

    That setting is the internal location under which nginx serves SHITU_MEDIA_DIR; the file then
    never passes through Python. Raises NotFound when the file is gone.
    """
    _require(name)
    etag = f'"{name.rsplit("/", 1)[-1]}"'  # a stored file never changes and its name is random
    if unchanged := get_conditional_response(request._request, etag=etag):
        return _cached(unchanged, etag)
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    if prefix := settings.SHITU_ACCEL_REDIRECT:
        response: HttpResponseBase = HttpResponse(content_type=kind)
        response["X-Accel-Redirect"] = f"{prefix.rstrip('/')}/{quote(name)}"
        return _cached(response, etag)
    try:
        return _cached(FileResponse(default_storage.open(name), content_type=kind), etag)
    except FileNotFoundError as error:
        raise _gone() from error


def made(request: Request, name: str, version: str, make: Callable[[], bytes]) -> HttpResponseBase:
    """A JPEG made from the stored file `name`; `version` tells one such picture from another."""
    _require(name)
    etag = f'"{name.rsplit("/", 1)[-1]}:{version}"'
    if unchanged := get_conditional_response(request._request, etag=etag):
        return _cached(unchanged, etag)
    try:
        return _cached(HttpResponse(make(), content_type=_JPEG), etag)
    except FileNotFoundError as error:
        raise _gone() from error


def _cached(response: HttpResponseBase, etag: str) -> HttpResponseBase:
    response["ETag"] = etag
    response["Cache-Control"] = _CACHE
    response["Vary"] = "Authorization, Cookie"
    return response


def _require(name: str) -> None:
    if not name:
        raise NotFound("this image came as a vector, from an index file, without its picture")


def _gone() -> NotFound:
    return NotFound("the file of this picture is missing; tell whoever runs this site")


def received(data: dict[str, Any]) -> Picture:
    """The checked picture of a body with a file or base64 text in `image`, or a `url`.

    Raises BadImage, TooLarge, FetchRefused.
    """
    if url := data.get("url"):
        return images.check(fetch.fetch_picture(url), name=url)
    image = data["image"]
    if isinstance(image, str):
        return images.check(images.from_base64(image), name=data.get("name", ""))
    return images.check(image, name=image.name or "")
