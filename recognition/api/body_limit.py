"""How much a request may bring, judged by its Content-Length before anything reads it.

Django counts only what is no file: the files of a form go to the temporary directory however large,
and the check of the CSRF token reads the form before any view is asked.
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
_FORM_BYTES: Final = 2**20  # what a form has besides its file


class BodyLimitMiddleware:
    """Answers 413 to what is larger than SHITU_MAX_BODY_BYTES, or SHITU_MAX_IMPORT_BYTES where
    files are imported and somebody is signed in; stands before CsrfViewMiddleware.

    A chunked body has no Content-Length, and Django reads none of it.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self._get_response(request)

    def process_view(self, request: HttpRequest, *view: Any) -> HttpResponse | None:
        sent = int(request.META.get("CONTENT_LENGTH") or 0)
        most: int = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        if sent > most and _takes_imports(request):
            most = settings.SHITU_MAX_IMPORT_BYTES + _FORM_BYTES
        return _too_large(request, most) if sent > most else None


def _takes_imports(request: HttpRequest) -> bool:
    match = request.resolver_match
    name = match.view_name if match else ""
    return name in _IMPORTS or (name in _IMPORT_PAGES and request.user.is_authenticated)


def _too_large(request: HttpRequest, most: int) -> HttpResponse:
    said = _(
        "the request has more than the %(most)s bytes that this site accepts here; "
        "send less at once"
    ) % {"most": f"{most:,}"}
    if request.path_info.startswith("/api/"):
        return JsonResponse(envelope(TooLarge.code, said), status=413)
    if request.path_info.startswith("/shitu-"):
        return failure(413, said)
    return HttpResponse(said, status=413, content_type="text/plain; charset=utf-8")
