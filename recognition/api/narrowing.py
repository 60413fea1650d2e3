"""Conditions on products, in the bodies of questions and in the addresses of lists alike."""

from __future__ import annotations

import json
from typing import Any

import django_filters
from django.db.models import QuerySet
from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from recognition.api.base import WriteSerializer
from recognition.models import Product
from recognition.models.product import MAX_KEY, MAX_LIST
from recognition.services import filtering


@extend_schema_field({"description": "Text, a number, true or false; for `in` a list of those."})
class _Value(serializers.JSONField):
    """Judged by the service."""


class AttributeCondition(WriteSerializer):
    """Holds when the attribute is there, of the same kind as `value`, and compares like that."""

    name = serializers.CharField(max_length=MAX_KEY)
    operator = serializers.ChoiceField(filtering.OPERATORS)
    value = _Value()


class Among(WriteSerializer):
    """Which products may be an answer; every condition that is given must hold."""

    categories = serializers.ListField(
        child=serializers.CharField(max_length=255),
        required=False,
        max_length=MAX_LIST,
        help_text="Paths; each with everything below it.",
    )
    attributes = AttributeCondition(  # type: ignore[call-arg]
        many=True, required=False, max_length=filtering.MOST_CONDITIONS
    )
    products = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=2**63 - 1),
        required=False,
        max_length=filtering.MOST_PRODUCTS,
        help_text="Ids: only these.",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        filtering.among(attrs)
        return attrs


def read_conditions(text: str) -> list[dict[str, Any]]:
    """Conditions on attributes as JSON text. Raises ValidationError for anything else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise serializers.ValidationError({"attributes": [_("must be JSON")]}) from error
    items = value if isinstance(value, list) else [value]
    checked = AttributeCondition(data=items, many=True)
    if not checked.is_valid():
        raise serializers.ValidationError({"attributes": checked.errors})
    return list(checked.validated_data)


class AttributesFilter(django_filters.CharFilter):
    """`?attributes=[{"name": "ml", "operator": ">=", "value": 500}]`, for a list of products."""

    def __init__(self) -> None:
        super().__init__(
            label='JSON `[{"name": "ml", "operator": ">=", "value": 500}]`; operators: '
            f"{' '.join(filtering.OPERATORS)}. Compared within their type."
        )

    def filter(self, qs: QuerySet[Product], value: str) -> QuerySet[Product]:
        if not value:
            return qs
        return filtering.with_attributes(qs, filtering.comparisons(read_conditions(value)))
