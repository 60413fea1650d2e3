"""What every request brings along for the services."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from recognition.models import Source, User
from recognition.services import audit


class ActorMiddleware:
    """Tells the audit log who acts in this request; stands behind AuthenticationMiddleware.

    The user is looked up at the act, not at the start: a token is read by the API's views, and
    signing in changes who it is.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        with audit.acting(lambda: actor_of(request)):
            return self.get_response(request)


def actor_of(request: HttpRequest) -> audit.Actor:
    """Who is signed in, with which token, and which door they came through."""
    user = request.user if isinstance(request.user, User) else None
    token = user.token if user else None
    match = request.resolver_match
    if match is not None and "admin" in match.namespaces:
        source = Source.ADMIN
    elif token is not None or request.path.startswith("/api/"):
        source = Source.API
    else:
        source = Source.PAGE
    return audit.Actor(source, user, token)
