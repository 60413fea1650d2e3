"""One view, two templates."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render


def render_part(
    request: HttpRequest, page: str, context: dict[str, Any], *, status: int = 200
) -> HttpResponse:
    """`recognition/{page}.html`, or only its fragment `recognition/_{page}.html` for htmx."""
    name = f"_{page}" if request.htmx else page  # type: ignore[attr-defined]  # HtmxMiddleware
    response = render(request, f"recognition/{name}.html", context, status=status)
    response["Vary"] = "HX-Request, Cookie"
    return response
