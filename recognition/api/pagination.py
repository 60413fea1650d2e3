"""Pages by position: the next page starts after the last row seen, however many rows there are.

DRF's own CursorPagination skips rows among more than 1,000 equal values and fails on a forged
cursor; here the primary key breaks every tie, and what a cursor holds is checked.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import Q, QuerySet
from django.utils.translation import gettext as _
from rest_framework.exceptions import ValidationError as BadQuery
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import remove_query_param, replace_query_param
from rest_framework.views import APIView

from recognition.api.filters import in_utc

PAGE_SIZE = 50
MAX_PAGE_SIZE = 200


@dataclass(frozen=True, slots=True)
class _Cursor:
    """`value` and `pk` of a row; the page holds what comes after it, or before it."""

    backwards: bool
    value: Any
    pk: int

    def encode(self) -> str:
        text = json.dumps([int(self.backwards), self.value, self.pk], default=str)
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> _Cursor:
        """Raises BadQuery for anything that `encode` did not write."""
        try:
            padded = text.encode("ascii") + b"=" * (-len(text) % 4)
            backwards, value, pk = json.loads(base64.urlsafe_b64decode(padded))
            if type(pk) is not int or type(value) not in (str, int) or backwards not in (0, 1):
                raise ValueError("types")
            if isinstance(value, str) and b"\x00" in value.encode():  # nor lone surrogates
                raise ValueError("characters")
        except (ValueError, TypeError, RecursionError) as error:
            raise _bad_cursor() from error
        return cls(bool(backwards), value, pk)


def _bad_cursor() -> BadQuery:
    return BadQuery({"cursor": [_("not a cursor of this list; follow its `next` and `previous`")]})


class CursorPagination(BasePagination):
    """`?cursor=` (opaque) and `?limit=`; the order is the view's `ordering`, or `?ordering=`.

    Answers `{"next", "previous", "results"}`, the first two being addresses or null.
    """

    def paginate_queryset(
        self, queryset: Any, request: Request, view: APIView | None = None
    ) -> list[Any]:
        self._url = request.build_absolute_uri()
        field, descending = self._order(queryset)
        limit = self._limit(request)
        text = request.query_params.get("cursor")
        cursor = _Cursor.decode(text) if text else None
        backwards = cursor is not None and cursor.backwards
        reverse = descending != backwards
        if cursor is not None:
            queryset = self._after(queryset, field, reverse, cursor)
        sign = "-" if reverse else ""
        ordering = [f"{sign}{field}"] + ([] if field == "pk" else [f"{sign}pk"])
        rows = list(queryset.order_by(*ordering)[: limit + 1])
        more, rows = len(rows) > limit, rows[:limit]
        if backwards:
            rows.reverse()
        has_next = more if not backwards else True
        has_previous = cursor is not None if not backwards else more
        self._next = self._link(rows[-1:], field, False) if has_next else None
        self._previous = self._link(rows[:1], field, True) if has_previous else None
        return rows

    def _order(self, queryset: QuerySet[Any]) -> tuple[str, bool]:
        """The one field by which the view's filters ordered the rows, and whether downwards."""
        first = str((queryset.query.order_by or queryset.model._meta.ordering or ["pk"])[0])
        return first.lstrip("-"), first.startswith("-")

    def _limit(self, request: Request) -> int:
        text = request.query_params.get("limit", str(PAGE_SIZE))
        if not (text.isascii() and text.isdigit() and len(text) < 7 and int(text) > 0):
            said = _("must be a number from 1 to %(most)s") % {"most": MAX_PAGE_SIZE}
            raise BadQuery({"limit": [said]})
        return min(int(text), MAX_PAGE_SIZE)

    def _after(
        self, queryset: QuerySet[Any], field: str, reverse: bool, cursor: _Cursor
    ) -> QuerySet[Any]:
        lookup = "lt" if reverse else "gt"
        if field == "pk":
            return queryset.filter(**{f"pk__{lookup}": cursor.pk})
        try:
            value = queryset.model._meta.get_field(field).to_python(cursor.value)
            value = in_utc(value) if isinstance(value, datetime) else value
        except (ValidationError, ValueError, TypeError) as error:
            raise _bad_cursor() from error
        # Said this way, and not as `a > x OR (a = x AND pk > y)`, an index on the field helps.
        return queryset.filter(**{f"{field}__{lookup}e": value}).exclude(
            Q(**{field: value, f"pk__{'gte' if reverse else 'lte'}": cursor.pk})
        )

    def _link(self, rows: Sequence[Any], field: str, backwards: bool) -> str | None:
        if not rows:
            return None
        [row] = rows
        value = getattr(row, field)
        if not isinstance(value, (str, int)):
            value = value.isoformat()
        cursor = _Cursor(backwards, value, row.pk)
        return replace_query_param(
            remove_query_param(self._url, "cursor"), "cursor", cursor.encode()
        )

    def get_paginated_response(self, data: Any) -> Response:
        return Response({"next": self._next, "previous": self._previous, "results": data})

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        link = {"type": "string", "format": "uri", "nullable": True}
        return {
            "type": "object",
            "required": ["next", "previous", "results"],
            "properties": {"next": link, "previous": link, "results": schema},
        }

    def get_schema_operation_parameters(self, view: APIView) -> list[dict[str, Any]]:
        return [
            {
                "name": "cursor",
                "in": "query",
                "description": "Taken from `next` or `previous` of another page.",
                "schema": {"type": "string"},
            },
            {
                "name": "limit",
                "in": "query",
                "description": f"Rows on a page, {PAGE_SIZE} unless told.",
                "schema": {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": MAX_PAGE_SIZE,
                    "default": PAGE_SIZE,
                },
            },
        ]


class OnePage(CursorPagination):
    """The same shape for what is always short: all of it, on one page."""

    def paginate_queryset(
        self, queryset: Any, request: Request, view: APIView | None = None
    ) -> list[Any]:
        self._next = self._previous = None
        return list(queryset)

    def get_schema_operation_parameters(self, view: APIView) -> list[dict[str, Any]]:
        return []
