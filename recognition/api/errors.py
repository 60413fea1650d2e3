"""Which HTTP status each error has, and the one shape in which every error is answered.

    {"error": {"code", "message", "fields"?, "request_id"}}

`code` is stable and for machines, `message` says what was wrong and what to do about it, `fields`
holds a list of messages for each input that was wrong, `request_id` finds the request in the log.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import structlog
from django.core.exceptions import (
    DisallowedHost,
    ObjectDoesNotExist,
    PermissionDenied,
    RequestDataTooBig,
    SuspiciousOperation,
    TooManyFieldsSent,
    TooManyFilesSent,
)
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.urls import is_valid_path
from django.utils.translation import gettext as _
from django.views import defaults
from psycopg.errors import DeadlockDetected, ForeignKeyViolation
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.settings import api_settings
from rest_framework.views import set_rollback

from recognition import errors

log = structlog.get_logger(__name__)

# Looked up along the class tree, so an error that is not here has the status of its parent.
STATUS: dict[type[Exception], int] = {
    errors.RecognitionError: 500,
    errors.BadInput: 400,
    errors.TooLarge: 413,
    errors.NotFound: 404,
    errors.RoleTooLow: 403,
    errors.Conflict: 409,
    errors.VersionMismatch: 412,
    errors.LimitReached: 429,
    errors.NotReady: 503,
    errors.AnswerTimeout: 504,
    errors.TryAgain: 503,
}

_MOST_SECONDS = 24 * 3600


def status_of(error: errors.RecognitionError) -> int:
    """The HTTP status of a domain error."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def request_id() -> str:
    """The id of the request at hand, as every line of its log has it; empty outside of one.

    It is always ours: an X-Request-ID that the client sent is not believed
    (`DJANGO_STRUCTLOG_TRUST_UPSTREAM_REQUEST_ID` is off).
    """
    return str(structlog.contextvars.get_contextvars().get("request_id", ""))


def envelope(
    code: str, message: str, fields: Mapping[str, list[str]] | None = None
) -> dict[str, Any]:
    """The body of every error answer."""
    error: dict[str, Any] = {"code": code, "message": sayable(message)}
    if fields:
        error["fields"] = {
            sayable(name): [sayable(one) for one in messages] for name, messages in fields.items()
        }
    return {"error": error | {"request_id": request_id()}}


def sayable(text: str) -> str:
    """What a caller sent may come back in an answer; half a surrogate pair is no UTF-8."""
    return text.encode(errors="backslashreplace").decode()


def describe(error: errors.RecognitionError) -> dict[str, Any]:
    """`code`, `message` and `field` of a domain error: one item's part of an answer about many."""
    field = None if error.field is None else sayable(error.field)
    return {"code": error.code, "message": sayable(error.message), "field": field}


def foreseen(error: Exception) -> Exception:
    """The domain error that an error of the database means, else `error` itself.

    What a request is about may be removed while it is at work, and PostgreSQL ends one of two that
    wait for each other. Nothing of the transaction was done in either case.
    """
    if isinstance(error, ObjectDoesNotExist):
        log.warning("gone_meanwhile", exc_info=error)
        return errors.NotFound(_("what this is about was removed meanwhile"))
    if isinstance(error.__cause__, ForeignKeyViolation):
        return errors.Conflict(_("what this is about was removed meanwhile; look again"))
    if isinstance(error.__cause__, DeadlockDetected):
        log.warning("deadlock", exc_info=error)
        return errors.TryAgain(_("somebody else changed the same at the same time; send it again"))
    return error


def to_response(error: Exception, context: Mapping[str, Any]) -> Response | None:
    """DRF's exception handler. None, that is a 500 in the log, for what nobody foresaw."""
    error = foreseen(error)
    if isinstance(error, errors.RecognitionError):
        set_rollback()
        return _domain(error)
    if isinstance(error, SuspiciousOperation):
        return _suspicious(error)
    if isinstance(error, Http404):
        error = exceptions.NotFound()
    elif isinstance(error, PermissionDenied):
        error = exceptions.PermissionDenied()
    if isinstance(error, exceptions.APIException):
        set_rollback()
        return _framework(error)
    return None


def _domain(error: errors.RecognitionError) -> Response:
    headers = {}
    if isinstance(error, errors.LimitReached) and error.retry_after is not None:
        headers["Retry-After"] = _seconds(error.retry_after)
    elif isinstance(error, (errors.NotReady, errors.TryAgain)):
        headers["Retry-After"] = _seconds(5)
    fields = {error.field: [error.message]} if error.field else None
    return Response(
        envelope(error.code, error.message, fields), status=status_of(error), headers=headers
    )


def _framework(error: exceptions.APIException) -> Response:
    headers = {}
    if header := getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = header
    if wait := getattr(error, "wait", None):
        headers["Retry-After"] = _seconds(wait)
    if isinstance(error, exceptions.ValidationError):
        fields = dict(_flat(error.detail))
        name, messages = next(iter(fields.items()))
        general = name == api_settings.NON_FIELD_ERRORS_KEY
        message = messages[0] if general else f"{name}: {messages[0]}"
        body = envelope(errors.BadInput.code, message, fields)
    elif isinstance(error, exceptions.NotAuthenticated):
        said = _("nobody is signed in: send a token, as `Authorization: Bearer TOKEN`")
        body = envelope(error.default_code, said)
    else:
        codes = error.get_codes()
        code = codes if isinstance(codes, str) else error.default_code
        body = envelope(code, str(error.detail))
    return Response(body, status=error.status_code, headers=headers)


def _suspicious(error: SuspiciousOperation) -> Response:
    if isinstance(error, (RequestDataTooBig, TooManyFieldsSent, TooManyFilesSent)):
        message = _("the request is larger, or has more parts, than this site accepts; send less")
        return Response(envelope(errors.TooLarge.code, message), status=413)
    return Response(envelope(errors.BadInput.code, _("the request is malformed")), status=400)


def _flat(detail: Any, path: str = "") -> Iterator[tuple[str, list[str]]]:
    """DRF's nested validation details as `images.0.label` -> messages."""
    if isinstance(detail, Mapping):
        for key, value in detail.items():
            yield from _flat(value, f"{path}.{key}" if path else str(key))
    elif isinstance(detail, list) and any(isinstance(one, (Mapping, list)) for one in detail):
        for position, value in enumerate(detail):
            if value:
                yield from _flat(value, f"{path}.{position}" if path else str(position))
    else:
        messages = detail if isinstance(detail, list) else [detail]
        yield path or api_settings.NON_FIELD_ERRORS_KEY, [str(one) for one in messages]


def _seconds(wait: float) -> str:
    """Whole seconds, rounded up: who comes back exactly then is not turned away again."""
    return str(max(1, min(math.ceil(wait), _MOST_SECONDS)))


def _asks_api(request: HttpRequest) -> bool:
    return request.path == "/api" or request.path.startswith("/api/")


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """handler400: outside of any view. Whoever reaches the site by a name it was not given is told
    so, since the whole site answers nothing else then."""
    message = _("the request is malformed")
    if isinstance(exception, DisallowedHost):
        message = _(
            "this site does not go by the name in the request's address (Host); add it to "
            "SHITU_ALLOWED_HOSTS, or use one that is there"
        )
    if _asks_api(request):
        return JsonResponse(envelope(errors.BadInput.code, message), status=400)
    if request.path.startswith("/shitu-"):
        from recognition.api.paddlex.envelope import failure  # which needs this module

        return failure(400, message)
    if isinstance(exception, DisallowedHost):
        return HttpResponse(message, status=400, content_type="text/plain; charset=utf-8")
    return defaults.bad_request(request, exception)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    """handler403."""
    if not _asks_api(request):
        return defaults.permission_denied(request, exception)
    return JsonResponse(envelope("permission_denied", _("this is not allowed")), status=403)


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """handler404: no route has this address."""
    if not _asks_api(request):
        return defaults.page_not_found(request, exception)
    if request.path.endswith("/") and is_valid_path(bare := request.path.rstrip("/")):
        message = _("addresses here have no slash at their end; ask for %(path)s") % {"path": bare}
    else:
        message = _("nothing has this address; /api/docs/ lists everything there is")
    return JsonResponse(envelope(errors.NotFound.code, message), status=404)


def server_error(request: HttpRequest) -> HttpResponse:
    """handler500: the traceback is in the log, under the request_id."""
    if not _asks_api(request):
        return defaults.server_error(request)
    message = _("something went wrong here, not with your request; the site's log says what")
    return JsonResponse(envelope(errors.RecognitionError.code, message), status=500)
