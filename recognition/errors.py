"""Everything that can go wrong, by name. `api/errors.py` alone knows the HTTP status of each.

A message says three things: what was wrong, why, and what to do about it. It may be shown to the
person who asked, so it never holds a path of the server, a secret or another team's data.
"""

from __future__ import annotations


class RecognitionError(Exception):
    """Base of the tree.

    `code` is the stable, machine-readable name; `field` names the input that was wrong, if one was.
    """

    code = "error"

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class BadInput(RecognitionError):
    """What was sent cannot be used."""

    code = "bad_input"


class BadImage(BadInput):
    """The bytes are not a picture we accept."""

    code = "bad_image"


class TooLarge(BadInput):
    """More bytes, pixels or items than allowed."""

    code = "too_large"


class StorageFull(TooLarge):
    """A quota of images or bytes is used up; waiting does not help."""

    code = "storage_full"


class FetchRefused(BadInput):
    """A URL that the guard does not let us fetch, or that did not answer with a picture."""

    code = "fetch_refused"


class NotFound(RecognitionError):
    """No such thing among what this user may see."""

    code = "not_found"


class RoleTooLow(RecognitionError):
    """The user may see it, but this act needs a higher role."""

    code = "role_too_low"


class SignInRefused(RecognitionError):
    """Somebody proved elsewhere who they are, and may not come in with that.

    Only the pages meet it: `message` is shown there, so it is translated; `reason` is for the log.
    """

    code = "sign_in_refused"

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Conflict(RecognitionError):
    """It contradicts what is already there."""

    code = "conflict"


class VersionMismatch(Conflict):
    """The caller edits an older version than the one stored (lost-update protection)."""

    code = "version_mismatch"


class LimitReached(RecognitionError):
    """A quota or a queue is full. `retry_after` is in seconds, None when waiting does not help."""

    code = "limit_reached"

    def __init__(
        self, message: str, *, retry_after: float | None = None, field: str | None = None
    ) -> None:
        super().__init__(message, field=field)
        self.retry_after = retry_after


class NotReady(RecognitionError):
    """The platform cannot do it now, through no fault of the caller."""

    code = "not_ready"


class AnswerTimeout(NotReady):
    """The answer did not come within the time the caller was willing to wait; the work goes on."""

    code = "answer_timeout"


class ModelUnavailable(NotReady):
    """The weights of a model are not installed, are damaged, or are not the ones named."""

    code = "model_unavailable"


class DeviceUnavailable(NotReady):
    """A device was asked for that this machine does not have."""

    code = "device_unavailable"


class EngineFailed(RecognitionError):
    """A network could not be loaded or gave an impossible answer."""

    code = "engine_failed"


class TryAgain(RecognitionError):
    """A passing fault: the same call may succeed a moment later. Tasks retry on this one only."""

    code = "try_again"


class SetupError(RecognitionError):
    """The installation itself is broken: a server, a package, a directory or a permission."""

    code = "setup_error"
