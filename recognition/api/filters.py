"""Filters that several lists share."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import django_filters
from django.core.exceptions import ValidationError
from django_filters.fields import IsoDateTimeField


def in_utc(moment: datetime) -> datetime:
    """The same moment in UTC; ValidationError for one outside the years 1 to 9999 there.

    PostgreSQL refuses the offset of such a moment, as an error of the server.
    """
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValidationError("outside the years 1 to 9999") from error


class _MomentField(IsoDateTimeField):
    def clean(self, value: Any) -> datetime | None:
        moment = super().clean(value)
        return None if moment is None else in_utc(moment)


class MomentFilter(django_filters.IsoDateTimeFilter):
    """A moment in ISO 8601."""

    field_class = _MomentField
