"""Filters that several lists share."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import django_filters
from django import forms
from django.core.exceptions import ValidationError as BadValue
from django.utils.translation import gettext as _
from django_filters.fields import IsoDateTimeField
from django_filters.rest_framework import DjangoFilterBackend
from rest_framework.exceptions import ValidationError
from rest_framework.filters import OrderingFilter
from rest_framework.request import Request
from rest_framework.views import APIView

_OF_EVERY_LIST = {"cursor", "limit", "ordering", "fields"}


def in_utc(moment: datetime) -> datetime:
    """The same moment in UTC; Django's ValidationError for one outside the years 1 to 9999 there.

    PostgreSQL refuses the offset of such a moment, as an error of the server.
    """
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise BadValue(_("outside the years 1 to 9999")) from error


class _MomentField(IsoDateTimeField):
    def clean(self, value: Any) -> datetime | None:
        moment = super().clean(value)
        return None if moment is None else in_utc(moment)


class _YesOrNoField(forms.Field):
    def to_python(self, value: Any) -> bool | None:
        if value in self.empty_values:
            return None
        try:
            return {"true": True, "false": False}[str(value).lower()]
        except KeyError as error:
            raise BadValue(_("must be true or false")) from error


class YesOrNoFilter(django_filters.BooleanFilter):
    """True or false, and nothing else: django-filter's own takes any other word for “both”."""

    field_class = _YesOrNoField


class Ordering(OrderingFilter):
    """DRF's, which silently ignores an order that the list does not have."""

    def get_ordering(self, request: Request, queryset: Any, view: APIView) -> Any:
        """Raises ValidationError naming the orders there are."""
        wanted = request.query_params.get(self.ordering_param, "")
        known = [name for name, _label in self.get_valid_fields(queryset, view)]
        if wanted and wanted.removeprefix("-") not in known:
            said = _("must be one of %(known)s") % {"known": ", ".join(known)}
            raise ValidationError({self.ordering_param: [said]})
        return super().get_ordering(request, queryset, view)


class Filters(DjangoFilterBackend):
    """django-filter's, which refuses a name that it does not know: a misspelt filter would answer
    everything."""

    def filter_queryset(self, request: Request, queryset: Any, view: APIView) -> Any:
        """Raises ValidationError naming the filters there are."""
        known = [*getattr(getattr(view, "filterset_class", None), "base_filters", ())]
        others = _OF_EVERY_LIST.union(getattr(view, "in_address", ()))
        for name in request.query_params:
            if name not in known and name not in others:
                said = _("no such filter; there are %(known)s") % {"known": ", ".join(known)}
                raise ValidationError({name: [said]})
        return super().filter_queryset(request, queryset, view)


class MomentFilter(django_filters.IsoDateTimeFilter):
    """A moment in ISO 8601."""

    field_class = _MomentField
