"""How much a request may bring, judged by its Content-Length before anything reads it.

Django counts only what is no file: the files of a form go to the temporary directory however large,
and the check of the CSRF token reads the form before any view is asked. Of a form without files it
makes an object for every `%41`: 100 MiB of them filled gigabytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.translation import gettext as _

from recognition.api.errors import envelope
from recognition.api.paddlex.envelope import failure
from recognition.errors import TooLarge

# These views ask who it is before they read.
_IMPORTS: Final = {"api:imports", "paddlex-indexes"}
# Of these the CSRF token is checked first, which reads the form.
_IMPORT_PAGES: Final = {"transfer", "admin:recognition_catalogue_changelist"}
# These answer nobody who has not said who they are, and read nothing before.
_INTERFACES: Final = ("/api/", "/shitu-")
_FORM_BYTES: Final = 2**20  # what a form has besides its file
_FIELDS: Final = "application/x-www-form-urlencoded"
_FIELDS_BYTES: Final = 2 * 2**20


class BodyLimitMiddleware:
    """Answers 413 to what is larger than SHITU_MAX_BODY_BYTES, or SHITU_MAX_IMPORT_BYTES where
    files are imported and somebody is signed in; stands before CsrfViewMiddleware.

    A form without files has a lower limit, and so has a page for whoever is not signed in. A
    chunked body has no Content-Length, and Django reads none of it.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self._get_response(request)

    def process_view(self, request: HttpRequest, *view: Any) -> HttpResponse | None:
        sent = int(request.META.get("CONTENT_LENGTH") or 0)
        if sent <= min(settings.DATA_UPLOAD_MAX_MEMORY_SIZE, _FORM_BYTES):
            return None  # for whoever it is
        most = _most(request)
        return _too_large(request, most) if sent > most else None


def _most(request: HttpRequest) -> int:
    usual: int = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    if request.content_type == _FIELDS:
        return min(usual, _FIELDS_BYTES)
    match = request.resolver_match
    name = match.view_name if match else ""
    if name in _IMPORTS or (name in _IMPORT_PAGES and request.user.is_authenticated):
        return settings.SHITU_MAX_IMPORT_BYTES + _FORM_BYTES
    if request.path_info.startswith(_INTERFACES) or request.user.is_authenticated:
        return usual
    return min(usual, _FORM_BYTES)


def _too_large(request: HttpRequest, most: int) -> HttpResponse:
    if request.content_type == _FIELDS:
        said = _(
            "a form without files may have %(most)s bytes; send JSON as application/json, files as "
            "multipart/form-data"
        ) % {"most": f"{most:,}"}
    else:
        said = _(
            "the request has more than the %(most)s bytes that this site accepts here; "
            "send less at once"
        ) % {"most": f"{most:,}"}
    if request.path_info.startswith("/api/"):
        return JsonResponse(envelope(TooLarge.code, said), status=413)
    if request.path_info.startswith("/shitu-"):
        return failure(413, said)
    return HttpResponse(said, status=413, content_type="text/plain; charset=utf-8")
