"""/catalogues/{key}/audit: who did what to what, when, from where."""

from __future__ import annotations

from typing import Any

import django_filters
from django.db.models import QuerySet
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.mixins import ListModelMixin
from rest_framework.request import Request

from recognition.api.base import ReadSerializer, as_csv
from recognition.api.filters import MomentFilter
from recognition.api.permissions import InCatalogue
from recognition.models import Action, AuditEntry, Role, Source
from recognition.services import audit


class AuditSerializer(ReadSerializer):
    """One act; upon many things it is one entry with their `count`."""

    user = serializers.CharField(source="user_name")
    changes = serializers.DictField(help_text="By field: [before, after].")
    details = serializers.DictField()

    class Meta:
        model = AuditEntry
        fields = [
            "id",
            "at",
            "user",
            "source",
            "token",
            "request_id",
            "action",
            "object_type",
            "object_id",
            "object_name",
            "count",
            "changes",
            "details",
        ]
        read_only_fields = fields


class AuditFilter(django_filters.FilterSet):
    action = django_filters.MultipleChoiceFilter(choices=Action.choices)
    source = django_filters.MultipleChoiceFilter(choices=Source.choices)
    user = django_filters.CharFilter(field_name="user_name", label="The whole name.")
    object_type = django_filters.CharFilter(label="Such as product or galleryimage.")
    object_id = django_filters.CharFilter(label="Its id, with `object_type`.")
    after = MomentFilter(field_name="at", lookup_expr="gte", label="Then or later (ISO 8601).")
    before = MomentFilter(field_name="at", lookup_expr="lt", label="Before (ISO 8601).")

    class Meta:
        model = AuditEntry
        fields = ["action"]


class AuditListView(ListModelMixin, InCatalogue):
    """What was done in a catalogue, newest first. Entries are never changed or removed."""

    serializer_class = AuditSerializer
    queryset = AuditEntry.objects.none()
    filterset_class = AuditFilter
    ordering_fields = ["at"]
    ordering = ["-pk"]
    roles = {"list": Role.MANAGER, "retrieve": Role.MANAGER}

    def get_queryset(self) -> QuerySet[AuditEntry]:
        return AuditEntry.objects.filter(catalogue=self.catalogue)


class AuditTableView(AuditListView):
    sparse = False
    pagination_class = None  # type: ignore[assignment]

    @extend_schema(
        operation_id="audit_table",
        responses={(200, "text/csv"): OpenApiTypes.STR},
        filters=True,
    )
    def retrieve(self, request: Request, key: Any) -> HttpResponseBase:
        """The same, whole, as CSV; with the same filters."""
        entries = self.filter_queryset(self.get_queryset())
        return as_csv(audit.as_csv(entries), f"audit-{key}.csv")
