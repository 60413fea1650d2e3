"""Who asks. PaddleX's clients know nothing of signing in, so there are three ways:

a header `Authorization: Bearer <token>`; the token in the base URL,
`http://host/paddlex/<token>`, for clients that can send no header; and, on a closed network, one
user for everybody who has no token (SHITU_PADDLEX_ANONYMOUS_USER). Never a session: a browser
would send its cookie along to whatever a foreign page makes it ask.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from rest_framework.exceptions import AuthenticationFailed

from recognition.api.authentication import TokenAuthentication
from recognition.errors import RoleTooLow, SetupError
from recognition.models import User

_IN_PATH: Final = re.compile(r"/paddlex/(?P<token>[^/]+)(?P<path>/(shitu-[^/]+|health)/?)")
_ANY_TOKEN: Final = re.compile(r"/paddlex/[^/]+")
_ADDRESSES: Final = ("PATH_INFO", "RAW_URI", "REQUEST_URI")


class TokenInPath:
    """Middleware, the first of all: takes the token out of the address before anybody logs it.

    `/paddlex/<token>/shitu-infer` becomes `/shitu-infer` with an Authorization header (unless the
    request has one). Nothing else of the site can be reached that way.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.path_info.startswith("/paddlex/"):
            _redact(request)
        return self._get_response(request)


def _redact(request: HttpRequest) -> None:
    found = _IN_PATH.fullmatch(request.path_info)
    clean = found["path"] if found else _ANY_TOKEN.sub("/paddlex/…", request.path_info, count=1)
    if found:
        request.META.setdefault("HTTP_AUTHORIZATION", f"Bearer {found['token']}")
        request.__dict__.pop("headers", None)  # cached, perhaps without it
    request.path = request.path.removesuffix(request.path_info) + clean
    request.path_info = clean
    for name in _ADDRESSES:
        if name in request.META:
            request.META[name] = clean


def identify(request: HttpRequest) -> User:
    """The user of this request, with the ceiling of the token on it.

    Raises AuthenticationFailed; RoleTooLow for a foreign page; SetupError when the anonymous user
    of the settings does not exist.
    """
    header = request.META.get("HTTP_AUTHORIZATION", "")
    if header:
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise AuthenticationFailed(
                "the Authorization header must read “Bearer <token>”; `./manage.py create_token` "
                "makes one, and so does POST /api/v1/tokens"
            )
        user, _ = TokenAuthentication().authenticate_credentials(token.strip().encode())
        return user
    if not settings.SHITU_PADDLEX_ANONYMOUS_USER:
        raise AuthenticationFailed(
            "sign in with a token: a header “Authorization: Bearer <token>”, or the base URL "
            f"{request.scheme}://{request.get_host()}/paddlex/<token>"
        )
    _refuse_foreign_pages(request)
    return _anonymous()


def _anonymous() -> User:
    name = settings.SHITU_PADDLEX_ANONYMOUS_USER
    user = User.objects.filter(username=name, is_active=True).first()
    if user is None:
        raise SetupError(
            f"SHITU_PADDLEX_ANONYMOUS_USER names “{name}”, and there is no such active user; make "
            "one in the admin, or leave the setting out"
        )
    return user


def _refuse_foreign_pages(request: HttpRequest) -> None:
    """Any page of the web can make a browser send us something; its Origin tells."""
    origin = request.META.get("HTTP_ORIGIN")
    if origin is not None and urlsplit(origin).netloc != request.get_host():
        raise RoleTooLow(
            "requests without a token are not taken from web pages of other sites; send a token"
        )
