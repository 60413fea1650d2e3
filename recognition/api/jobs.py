"""/catalogues/{key}/jobs: work over many rows, its progress and its report line by line."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import django_filters
from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.mixins import ListModelMixin
from rest_framework.request import Request
from rest_framework.response import Response

from recognition.api.base import ReadSerializer
from recognition.api.permissions import InCatalogue
from recognition.models import Job, JobLine, LineResult, State


class JobSerializer(ReadSerializer):
    started_by = serializers.CharField(source="started_by.username", default=None, allow_null=True)

    class Meta:
        model = Job
        fields = [
            "key",
            "kind",
            "state",
            "error",
            "source_name",
            "dry_run",
            "total",
            "done",
            "failed",
            "started_by",
            "created_at",
            "finished_at",
        ]
        read_only_fields = fields


class JobLineSerializer(ReadSerializer):
    image = serializers.IntegerField(
        source="image.number", default=None, allow_null=True, help_text="Its number, if it has one."
    )
    image_state = serializers.ChoiceField(
        source="image.state", choices=State.choices, default=None, allow_null=True
    )

    class Meta:
        model = JobLine
        fields = ["number", "text", "result", "reason", "image", "image_state"]
        read_only_fields = fields


class JobFilter(django_filters.FilterSet):
    state = django_filters.MultipleChoiceFilter(choices=State.choices)
    kind = django_filters.MultipleChoiceFilter(choices=Job.Kind.choices)

    class Meta:
        model = Job
        fields = ["state", "kind"]


class JobLineFilter(django_filters.FilterSet):
    result = django_filters.MultipleChoiceFilter(choices=LineResult.choices)

    class Meta:
        model = JobLine
        fields = ["result"]


class _Jobs(InCatalogue):
    serializer_class: Any = JobSerializer
    queryset: Any = Job.objects.none()

    def jobs(self) -> QuerySet[Job]:
        return self.catalogue.jobs.select_related("started_by")

    def job(self) -> Job:
        return get_object_or_404(self.jobs(), key=self.kwargs["job"])


class JobListView(ListModelMixin, _Jobs):
    """The jobs of a catalogue, newest first."""

    filterset_class = JobFilter
    ordering_fields = ["created_at"]
    ordering = ["-pk"]

    def get_queryset(self) -> QuerySet[Job]:
        return self.jobs()


class JobView(_Jobs):
    @extend_schema(operation_id="jobs_retrieve")
    def retrieve(self, request: Request, key: UUID, job: UUID) -> Response:
        """A job: `done + failed` of `total` lines are behind it."""
        return Response(self.get_serializer(self.job()).data)


class JobLineListView(ListModelMixin, _Jobs):
    """What became of each line of a job, in input order."""

    serializer_class = JobLineSerializer
    queryset = JobLine.objects.none()
    filterset_class = JobLineFilter
    ordering_fields = ["number"]
    ordering = ["number"]

    def get_queryset(self) -> QuerySet[JobLine]:
        return self.job().lines.select_related("image")
