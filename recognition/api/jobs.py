"""/catalogues/{key}/jobs: work over many rows, its progress and its report line by line."""

from __future__ import annotations

from typing import Any, BinaryIO, cast
from uuid import UUID

import django_filters
from django.core.files.base import File
from django.db.models import QuerySet
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_field, inline_serializer
from rest_framework import serializers
from rest_framework.mixins import ListModelMixin
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from recognition.api import pictures
from recognition.api.base import ReadSerializer, WriteSerializer, as_csv
from recognition.api.catalogues import CatalogueChange, require_models
from recognition.api.idempotency import idempotent
from recognition.api.permissions import InCatalogue
from recognition.api.schema import Error, location
from recognition.errors import Conflict, NotFound
from recognition.models import Job, JobLine, LineResult, Role, State, User
from recognition.services import catalogues, exports, imports, jobs


class JobSerializer(ReadSerializer):
    """Work over many rows: `done + failed` of `total` lines are behind it."""

    url = serializers.SerializerMethodField()
    lines = serializers.SerializerMethodField(help_text="What became of each line.")
    report = serializers.SerializerMethodField(help_text="The same, whole, as CSV.")
    file = serializers.SerializerMethodField(
        help_text="The ZIP of an export that is done, else null."
    )
    started_by = serializers.CharField(source="started_by.username", default=None, allow_null=True)

    class Meta:
        model = Job
        fields = [
            "key",
            "url",
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
            "lines",
            "report",
            "file",
        ]
        read_only_fields = fields

    def get_url(self, job: Job) -> str:
        return self._address("api:job", job)

    def get_lines(self, job: Job) -> str:
        return self._address("api:job-lines", job)

    def get_report(self, job: Job) -> str:
        return self._address("api:job-report", job)

    @extend_schema_field({"type": "string", "nullable": True})
    def get_file(self, job: Job) -> str | None:
        if job.kind != Job.Kind.EXPORT or job.state != State.DONE or not job.file:
            return None
        return self._address("api:job-file", job)

    def _address(self, route: str, job: Job) -> str:
        # The gate found the catalogue already; asking each row for it would be a query a row.
        key = self.context["view"].catalogue.key
        return reverse(route, [key, job.key], request=self.context["request"])


class ImportForm(WriteSerializer):
    """A ZIP, CSV or XLSX file; what it is, its content says."""

    file = serializers.FileField()
    dry_run = serializers.BooleanField(default=False, help_text="Judge every line and add nothing.")
    settings = serializers.BooleanField(
        default=False,
        help_text="Take the settings of an export too (not its name and feature model); needs the "
        "role manager.",
    )


class ExportJson(WriteSerializer):
    embeddings = serializers.BooleanField(
        default=False, help_text="With the vectors, for a site that has the same feature model."
    )


Retrying = inline_serializer(
    "Retrying",
    {"retried": serializers.IntegerField(help_text="Failed lines that are done again.")},
)


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
        """A job and how far it is."""
        return Response(self.get_serializer(self.job()).data)


_STARTED: dict[str, Any] = {
    "parameters": [location(201)],
    "responses": {201: JobSerializer},
}


class _Start(_Jobs):
    sparse = False
    roles = {"create": Role.EDITOR}

    def started(self, job: Job) -> Response:
        shown = self.get_serializer(job).data
        return Response(shown, status=201, headers={"Location": shown["url"]})


class ImportView(_Start):
    parser_classes = [MultiPartParser]

    @extend_schema(
        operation_id="imports_start", request={"multipart/form-data": ImportForm}, **_STARTED
    )
    @idempotent
    def create(self, request: Request, key: UUID) -> Response:
        """Add many pictures and products from one file, as a job; its report has every line.

        PaddleX's gallery.txt with its pictures in a ZIP, a ZIP with a folder for every label, a CSV
        or XLSX manifest (alone or in a ZIP with its pictures), Google Product Search's bulk CSV, an
        export of this platform.
        """
        data = self.read(ImportForm)
        imports.check_size(data["file"].size)
        new_settings = self._settings(data["file"]) if data["settings"] else None
        return self.started(
            imports.start(
                self.catalogue,
                data["file"],
                by=cast(User, request.user),
                name=data["file"].name or "",
                dry_run=data["dry_run"],
                new_settings=None if data["dry_run"] else new_settings,
            )
        )

    def _settings(self, file: File[bytes]) -> dict[str, Any]:
        """Those in an export, judged like a change of them, by somebody who may change them."""
        catalogues.require_role(self.request.user, self.catalogue, Role.MANAGER)
        found = CatalogueChange(data=imports.settings_of(cast(BinaryIO, file.file)), partial=True)
        found.is_valid(raise_exception=True)
        require_models(found.validated_data)
        return dict(found.validated_data)


class ExportView(_Start):
    @extend_schema(operation_id="exports_start", request=ExportJson, **_STARTED)
    @idempotent
    def create(self, request: Request, key: UUID) -> Response:
        """Write the whole catalogue into a ZIP, as a job; `file` is its address when it is done."""
        data = self.read(ExportJson)
        by = cast(User, request.user)
        return self.started(exports.start(self.catalogue, by=by, embeddings=data["embeddings"]))


class JobCancelView(_Jobs):
    sparse = False
    roles = {"create": Role.EDITOR}

    @extend_schema(operation_id="jobs_cancel", request=None, responses={200: JobSerializer})
    def create(self, request: Request, key: UUID, job: UUID) -> Response:
        """Stop a job; what it did stays. 409 when it has ended already."""
        found = self.job()
        jobs.cancel(found, by=cast(User, request.user))
        return Response(self.get_serializer(found).data)


class JobRetryView(_Jobs):
    sparse = False
    roles = {"create": Role.EDITOR}

    @extend_schema(operation_id="jobs_retry", request=None, responses={200: Retrying})
    def create(self, request: Request, key: UUID, job: UUID) -> Response:
        """Do the failed lines again, and those a stopped job never came to.

        409 while it runs, and when nothing failed.
        """
        return Response({"retried": jobs.retry(self.job(), by=cast(User, request.user))})


class JobReportView(_Jobs):
    sparse = False

    @extend_schema(operation_id="jobs_report", responses={(200, "text/csv"): OpenApiTypes.STR})
    def retrieve(self, request: Request, key: UUID, job: UUID) -> HttpResponseBase:
        """All lines of its report as CSV: line, result, reason, image, text."""
        return as_csv(jobs.report(self.job()), f"{job}.csv")


class JobFileView(_Jobs):
    sparse = False
    roles = {"retrieve": Role.EDITOR}

    @extend_schema(
        operation_id="jobs_file",
        responses={
            (200, "application/zip"): OpenApiTypes.BINARY,
            302: pictures.REDIRECTED,
            409: Error,
        },
    )
    def retrieve(self, request: Request, key: UUID, job: UUID) -> HttpResponseBase:
        """The ZIP of an export. 409 before it is done, 404 once it was forgotten."""
        found = self.job()
        if found.kind != Job.Kind.EXPORT:
            raise NotFound(_("only an export has a file to fetch"))
        if found.state != State.DONE:
            raise Conflict(
                _("there is no file yet: this export is %(state)s")
                % {"state": found.get_state_display()}
            )
        if not found.file:
            raise NotFound(
                _("the file is gone: exports are kept for %(days)s days; export again")
                % {"days": jobs.KEEP_FILES_DAYS}
            )
        return pictures.stored(request, str(found.file.name), save_as=found.source_name)


class JobLineListView(ListModelMixin, _Jobs):
    """What became of each line of a job, in input order."""

    serializer_class = JobLineSerializer
    queryset = JobLine.objects.none()
    filterset_class = JobLineFilter
    ordering_fields = ["number"]
    ordering = ["number"]

    def get_queryset(self) -> QuerySet[JobLine]:
        return self.job().lines.select_related("image")
