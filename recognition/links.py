"""Addresses of this site for whoever is elsewhere: in an e-mail, or at a sign-in provider."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest


def absolute(request: HttpRequest, path: str) -> str:
    """The whole address of `path`: below `SHITU_SITE_URL`, else where the request was sent to."""
    if settings.SHITU_SITE_URL:
        return f"{settings.SHITU_SITE_URL.rstrip('/')}{path}"
    return request.build_absolute_uri(path)
