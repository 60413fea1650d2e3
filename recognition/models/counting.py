"""Numbers of rows that belong to a row, read with it."""

from __future__ import annotations

from typing import Any

from django.db.models import Count, IntegerField, Manager, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce


def counted(
    rows: Manager[Any] | QuerySet[Any],
    by: str,
    what: Count = Count("*"),  # noqa: B008
) -> Coalesce:
    """Rows (or `what` of them) that point here by the foreign key `by`; a subquery, as joins
    multiply each other."""
    counts = rows.order_by().filter(**{by: OuterRef("pk")}).values(by).annotate(n=what)
    return Coalesce(Subquery(counts.values("n"), output_field=IntegerField()), 0)
