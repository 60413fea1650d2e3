"""ETag and If-Match: two people who edit the same thing do not undo each other's work."""

from __future__ import annotations

import hashlib

from django.db.models import Model
from django.utils.http import parse_etags
from django.utils.translation import gettext as _
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.serializers import BaseSerializer

from recognition.errors import VersionMismatch


def etag(serializer: type[BaseSerializer], instance: Model, request: Request) -> str:
    """A hash over all the serializer shows, whatever `fields=` asks for.

    Not over `Meta.unversioned`: what moves by itself, or is another for each reader.
    """
    data = dict(serializer(instance, context={"request": request, "whole": True}).data)
    for name in getattr(serializer.Meta, "unversioned", ()):  # type: ignore[attr-defined]
        data.pop(name, None)
    return f'"{hashlib.sha256(JSONRenderer().render(data)).hexdigest()[:32]}"'


def require_match(request: Request, current: str) -> None:
    """Raises VersionMismatch when If-Match names only other versions than `current`.

    Call it in a transaction, with the row locked; without If-Match the last writer wins.
    """
    wanted = parse_etags(request.headers.get("If-Match", ""))
    if wanted and "*" not in wanted and current not in wanted:
        raise VersionMismatch(
            _(
                "it was changed after you read it (If-Match names an older version); read it "
                "again, then repeat your change"
            )
        )
