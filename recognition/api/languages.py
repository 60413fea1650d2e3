"""Accept-Language: in which languages somebody wants to read names."""

from __future__ import annotations

from django.utils.translation.trans_real import parse_accept_lang_header
from rest_framework.request import Request


def wanted_languages(request: Request) -> list[str]:
    """Language tags in order of preference; empty when anything will do."""
    header = request.headers.get("Accept-Language", "")
    return [tag for tag, weight in parse_accept_lang_header(header) if tag != "*" and weight > 0]
