"""The one shape of every PaddleX answer: `{"logId", "result"?, "errorCode", "errorMsg"}`."""

from __future__ import annotations

import math
from typing import Any, Final
from uuid import uuid4

from django.conf import settings
from django.http import JsonResponse

from recognition import errors
from recognition.api.errors import sayable, status_of

SERVER_ERROR: Final = "Internal server error"
_LOOK_AGAIN: Final = 5
# These PaddleX does not know: nobody signs in there, and nothing is rationed.
_NEVER_HIDDEN: Final = {401, 403, 413, 429}


def success(result: dict[str, Any]) -> JsonResponse:
    """An answer. Its logId is a new one, whatever the request said, as in PaddleX."""
    return _json(200, {"logId": str(uuid4()), "result": result}, 0, "Success")


def failure(status: int, message: str, *, log_id: str | None = None, **extra: Any) -> JsonResponse:
    """An error: `errorCode` is the HTTP status, `logId` the request's own where it has one."""
    log_id = sayable(log_id) if log_id else str(uuid4())
    return _json(status, {"logId": log_id, **extra}, status, sayable(message))


def refused(error: errors.RecognitionError, *, log_id: str | None, **extra: Any) -> JsonResponse:
    """A domain error with its own status and reason.

    With SHITU_PADDLEX_STRICT_ERRORS what is the client's mistake is a 500 without a reason, as
    PaddleX has it.
    """
    status = status_of(error)
    if settings.SHITU_PADDLEX_STRICT_ERRORS and status < 500 and status not in _NEVER_HIDDEN:
        return failure(500, SERVER_ERROR, log_id=log_id)
    response = failure(status, error.message, log_id=log_id, **extra)
    if isinstance(error, errors.LimitReached) and error.retry_after is not None:
        response["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    elif status == 503:
        response["Retry-After"] = str(_LOOK_AGAIN)
    return response


def _json(status: int, body: dict[str, Any], code: int, message: str) -> JsonResponse:
    return JsonResponse(
        body | {"errorCode": code, "errorMsg": message},
        status=status,
        json_dumps_params={"ensure_ascii": False, "separators": (",", ":")},
    )
