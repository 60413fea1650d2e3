"""Pictures go out, after the gate let the request through; pictures come in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.utils.cache import get_conditional_response
from django.utils.translation import gettext as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse
from rest_framework.request import Request

from recognition import delivery, fetch, images
from recognition.errors import NotFound
from recognition.images import Picture

_CACHE = "private, max-age=3600"
_VARY = "Authorization, Cookie"
_JPEG = "image/jpeg"

REDIRECTED = OpenApiResponse(
    description="Pictures are kept in a bucket: follow Location at once, without your token."
)
PICTURE = {(200, "image/*"): OpenApiTypes.BINARY, 302: REDIRECTED}
"""What a view that answers with `stored` says in the OpenAPI document."""


def stored(request: Request, name: str, *, save_as: str = "") -> HttpResponseBase:
    """The stored file `name`, from here or from the storage's own address (`delivery.stored`).

    Raises NotFound when the file is gone.
    """
    _require(name)
    etag = f'"{name.rsplit("/", 1)[-1]}"'  # a stored file never changes and its name is random
    if unchanged := get_conditional_response(request._request, etag=etag):
        return _cached(unchanged, etag)
    try:
        response = delivery.stored(name, cache=_CACHE, save_as=save_as)
    except FileNotFoundError as error:
        raise _gone() from error
    if response.status_code == 302:
        response["Vary"] = _VARY
        return response
    return _cached(response, etag)


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
    response["Vary"] = _VARY
    return response


def _require(name: str) -> None:
    if not name:
        raise NotFound(_("this image came as a vector, from an index file, without its picture"))


def _gone() -> NotFound:
    return NotFound(_("the file of this picture is missing; tell whoever runs this site"))


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
