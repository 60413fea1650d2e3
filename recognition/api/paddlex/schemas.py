"""The bodies of PaddleX's requests, read as FastAPI reads them and refused in the same words.

PaddleX's messages are pydantic's, so pydantic makes ours too.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

import pydantic
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest
from pydantic import BaseModel, Field

from recognition.services.paddlex import Pair

M = TypeVar("M", bound=BaseModel)


class ImageLabelPair(BaseModel):
    """`image` is a URL or the file in base64."""

    image: str
    label: str


class BuildIndex(BaseModel):
    """`catalogue` (a name), `indexType`, `metricType` and `wait` are ours."""

    imageLabelPairs: list[ImageLabelPair]
    catalogue: str | None = Field(None, max_length=120)
    indexType: str | None = None
    metricType: str | None = None
    wait: bool = True

    @property
    def pairs(self) -> list[Pair]:
        return [Pair(pair.image, pair.label) for pair in self.imageLabelPairs]


class AddImages(BaseModel):
    """`wait` is ours: false answers as soon as the pictures are stored."""

    imageLabelPairs: list[ImageLabelPair]
    indexKey: str
    wait: bool = True

    @property
    def pairs(self) -> list[Pair]:
        return [Pair(pair.image, pair.label) for pair in self.imageLabelPairs]


class AddImagesToDefault(AddImages):
    """As PaddleX 3.0 documented it, for a site that has a default index."""

    indexKey: str | None = None  # type: ignore[assignment]


class RemoveImages(BaseModel):
    ids: list[int]
    indexKey: str


class RemoveImagesFromDefault(RemoveImages):
    indexKey: str | None = None  # type: ignore[assignment]


class Infer(BaseModel):
    image: str
    indexKey: str | None = None
    detThreshold: float | None = None
    recThreshold: float | None = None
    hammingRadius: float | None = None
    topk: int | None = None
    visualize: bool | None = None


class Unreadable(Exception):
    """The body is not even something that could be checked."""


class Invalid(Exception):
    """What pydantic found, as the JSON text that PaddleX sends in `errorMsg`."""

    def __init__(self, problems: list[dict[str, Any]]) -> None:
        super().__init__(
            json.dumps(
                [
                    {"type": one["type"], "loc": _path(one["loc"]), "msg": one["msg"]}
                    for one in problems
                ]
            )
        )


def read(request: HttpRequest, model: type[M]) -> M:
    """The body of a request as `model`.

    What FastAPI 0.115 does: JSON is what is called so or has no content type; no body at all is a
    missing one. Raises Invalid, Unreadable.
    """
    body: Any = None
    if request.body:
        body = _json(request.body) if _is_json(request) else request.body
    if body is None:
        raise Invalid([{"type": "missing", "loc": ("body",), "msg": "Field required"}])
    try:
        return pydantic.TypeAdapter(model).validate_python(body, from_attributes=True)
    except pydantic.ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        raise Invalid([{**one, "loc": ("body", *one["loc"])} for one in found]) from error


def log_id(request: HttpRequest, *, most: int | None = None) -> str | None:
    """The `logId` that the body carries, if it is an object with one and has at most `most` bytes.

    A longer body is not even read.
    """
    if most is not None and int(request.META.get("CONTENT_LENGTH") or 0) > most:
        return None
    try:
        body = json.loads(request.body)
    except (ValueError, RecursionError, RequestDataTooBig):
        return None
    found = body.get("logId") if isinstance(body, dict) else None
    return found if isinstance(found, str) and found else None


def _is_json(request: HttpRequest) -> bool:
    kind, _, form = (request.content_type or "application/json").partition("/")
    return kind == "application" and (form == "json" or form.endswith("+json"))


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except json.JSONDecodeError as error:
        problem = {"type": "json_invalid", "loc": ("body", error.pos), "msg": "JSON decode error"}
        raise Invalid([problem]) from error
    except (ValueError, RecursionError) as error:  # no UTF-8; or ten thousand brackets
        raise Unreadable("There was an error parsing the body") from error


def _path(places: tuple[str | int, ...]) -> str:
    """`body.imageLabelPairs[0].label`."""
    text = "".join(f"[{place}]" if isinstance(place, int) else f".{place}" for place in places)
    return text.removeprefix(".")
