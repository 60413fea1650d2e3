"""The four operations: read, call the service, answer in PaddleX's words."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Final, cast

import structlog
from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.core.signals import got_request_exception
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from rest_framework.exceptions import AuthenticationFailed

from recognition.api.errors import foreseen, status_of
from recognition.api.paddlex import envelope, schemas
from recognition.api.paddlex.identity import identify
from recognition.api.paddlex.schemas import Invalid, Unreadable
from recognition.errors import BadInput, RecognitionError
from recognition.models import Catalogue, Role, User
from recognition.services import paddlex, pictures, pipeline_config, queries, rates
from recognition.services.gallery_adding import Added

log = structlog.get_logger(__name__)

# Of somebody who has not said who they are.
_MOST_READ: Final = 64 * 2**10

_Act = Callable[[HttpRequest], dict[str, Any]]
_View = Callable[[HttpRequest], HttpResponse]


def _operation(act: _Act) -> _View:
    """A view: POST only, signed in, and every error in the envelope."""

    @csrf_exempt  # no cookie is believed here, see identity.py
    @never_cache
    @wraps(act)
    def view(request: HttpRequest) -> HttpResponse:
        if request.method != "POST":
            return _not_allowed(request)
        try:
            request.user = user = identify(request)
            rates.check_request(user)
        except AuthenticationFailed as error:
            response = envelope.failure(401, str(error.detail))
            response["WWW-Authenticate"] = "Bearer"
            return response
        except RecognitionError as error:
            return envelope.refused(error, log_id=None)
        try:
            return envelope.success(act(request))
        except Invalid as error:
            return envelope.failure(422, str(error), log_id=schemas.log_id(request))
        except Unreadable as error:
            return envelope.failure(400, str(error))
        except RequestDataTooBig:
            limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
            return envelope.failure(
                413,
                f"the request has more than {limit:,} bytes (SHITU_MAX_BODY_BYTES); "
                "send fewer pictures at once",
            )
        except paddlex.Unfinished as error:
            return _unfinished(request, error)
        except Exception as error:  # noqa: BLE001  a client reads errorMsg of whatever it gets
            known = foreseen(error)
            if isinstance(known, RecognitionError):
                return envelope.refused(known, log_id=schemas.log_id(request))
            got_request_exception.send(sender=view, request=request)
            log.exception("paddlex_request_failed")
            return envelope.failure(500, envelope.SERVER_ERROR, log_id=schemas.log_id(request))

    return view


def _unfinished(request: HttpRequest, error: paddlex.Unfinished) -> HttpResponse:
    """What the caller could not wait for, and where to look."""
    index, job = error.job.catalogue.key, error.job.key
    address = request.build_absolute_uri(reverse("api:job", args=[index, job]))
    return envelope.failure(
        status_of(error),
        f"{error.message}: GET {address}",
        log_id=schemas.log_id(request),
        result={"indexKey": str(index), "ids": error.ids, "jobId": str(job)},
    )


def _not_allowed(request: HttpRequest) -> HttpResponse:
    log_id = schemas.log_id(request, most=_MOST_READ)
    response = envelope.failure(405, "Method Not Allowed", log_id=log_id)
    response["Allow"] = "POST"
    return response


@csrf_exempt
def unknown(request: HttpRequest, rest: str) -> HttpResponse:
    """An operation that PaddleX does not have either."""
    return envelope.failure(404, "Not Found", log_id=schemas.log_id(request, most=_MOST_READ))


@_operation
def build(request: HttpRequest) -> dict[str, Any]:
    """POST /shitu-index-build: a new index from pictures and labels."""
    asked = schemas.read(request, schemas.BuildIndex)
    catalogue, added = paddlex.build(
        _user(request),
        asked.pairs,
        name=asked.catalogue,
        metric=asked.metricType,
        index_type=asked.indexType,
        wait=asked.wait,
    )
    return {"indexKey": str(catalogue.key)} | _added(catalogue, added)


@_operation
def add(request: HttpRequest) -> dict[str, Any]:
    """POST /shitu-index-add: more pictures into an index."""
    model = schemas.AddImagesToDefault if paddlex.has_default() else schemas.AddImages
    asked = schemas.read(request, model)
    catalogue = paddlex.find(_user(request), asked.indexKey, Role.EDITOR)
    added = paddlex.add(catalogue, asked.pairs, by=_user(request), wait=asked.wait)
    return _added(catalogue, added)


@_operation
def remove(request: HttpRequest) -> dict[str, Any]:
    """POST /shitu-index-remove: vector ids out of an index; unknown ones are no error."""
    model = schemas.RemoveImagesFromDefault if paddlex.has_default() else schemas.RemoveImages
    asked = schemas.read(request, model)
    catalogue = paddlex.find(_user(request), asked.indexKey, Role.EDITOR)
    unknown_ids = paddlex.remove(catalogue, asked.ids)
    return _contents(catalogue, None) | {"unknownIds": unknown_ids}


@_operation
def infer(request: HttpRequest) -> dict[str, Any]:
    """POST /shitu-infer: what is in a picture."""
    asked = schemas.read(request, schemas.Infer)
    _check(asked)
    catalogue = paddlex.find(_user(request), asked.indexKey, Role.VIEWER)
    query = paddlex.ask(
        catalogue,
        asked.image,
        by=_user(request),
        det_threshold=asked.detThreshold,
        rec_threshold=asked.recThreshold,
        top_k=asked.topk,
    )
    result: dict[str, Any] = {
        "detectedObjects": [
            {
                "bbox": region.corners,
                "recResults": [{"label": label, "score": score} for label, score in region.matches],
                "score": region.det_score,
            }
            for region in queries.answer_of(query, catalogue.shown_label)
        ]
    }
    draw = pipeline_config.site_visualize() if asked.visualize is None else asked.visualize
    if draw:
        drawn = pictures.annotated(query, shown=catalogue.shown_label)
        result["image"] = base64.b64encode(drawn).decode()
    return result


def _check(asked: schemas.Infer) -> None:
    """What PaddleX lets pass because it ignores it."""
    if asked.hammingRadius is not None and not settings.SHITU_PADDLEX_STRICT_ERRORS:
        raise BadInput(
            "hammingRadius has a meaning for the metric hamming only, which no index has here (nor "
            "can PaddleX 3.7 build one); leave it out and use recThreshold",
            field="hammingRadius",
        )
    if asked.topk is not None and not 1 <= asked.topk <= queries.MOST_TOP_K:
        raise BadInput(f"topk must lie in 1..{queries.MOST_TOP_K}", field="topk")
    for name in ("detThreshold", "recThreshold"):
        value = getattr(asked, name)
        if value is not None and value != value:
            raise BadInput(f"{name} is not a number", field=name)


def _added(catalogue: Catalogue, added: Sequence[Added]) -> dict[str, Any]:
    """`ids` of the pairs in order, and `newIds`, those of them that were not there before."""
    ids = [one.image.number for one in added]
    new = [one.image.number for one in added if one.created]
    return _contents(catalogue, ids) | {"ids": ids, "newIds": new}


def _contents(catalogue: Catalogue, ids: list[int] | None) -> dict[str, Any]:
    """`imageCount` (PaddleX since February 2025) and `idMap` (before), so clients of both work."""
    found = paddlex.contents(catalogue, ids)
    result: dict[str, Any] = {"imageCount": found.count}
    if found.labels is not None:
        result["idMap"] = {str(number): label for number, label in found.labels.items()}
    return result


def _user(request: HttpRequest) -> User:
    return cast(User, request.user)
