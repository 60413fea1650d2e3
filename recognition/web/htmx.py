"""One view, two templates."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django_htmx.middleware import HtmxDetails

from recognition.models import User


class Request(HttpRequest):
    """What `HtmxMiddleware` and `login_required` make of a request."""

    htmx: HtmxDetails
    user: User


def render_part(
    request: Request, page: str, context: dict[str, Any], *, status: int = 200
) -> HttpResponse:
    """`recognition/{page}.html`, or only its fragment `recognition/_{page}.html` for htmx."""
    name = f"_{page}" if request.htmx else page
    response = render(request, f"recognition/{name}.html", context, status=status)
    response["Vary"] = "HX-Request, Cookie"
    return response
