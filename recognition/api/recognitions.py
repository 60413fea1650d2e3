"""Questions and their answers: /catalogues/{key}/recognitions and /recognitions/{key}."""

from __future__ import annotations

from typing import Any, cast
from uuid import UUID

import django_filters
from django.db.models import Exists, OuterRef, QuerySet
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404
from django.utils.functional import cached_property
from django.utils.translation import gettext as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework.mixins import ListModelMixin
from rest_framework.request import Request
from rest_framework.response import Response

from recognition.api import pictures
from recognition.api.answers import RecognitionSerializer, read_answer, whole
from recognition.api.base import ApiView, UploadView
from recognition.api.filters import MomentFilter
from recognition.api.idempotency import idempotent
from recognition.api.permissions import InCatalogue
from recognition.api.questions import (
    WAIT,
    AskForm,
    AskJson,
    Shown,
    seconds_to_wait,
    several,
    with_details,
)
from recognition.api.schema import Error, location
from recognition.errors import Conflict
from recognition.models import (
    Detection,
    Feedback,
    Match,
    RecognitionQuery,
    Role,
    State,
    Status,
    User,
    Verdict,
)
from recognition.services import catalogues, queries
from recognition.services import pictures as looks


class RecognitionFilter(django_filters.FilterSet):
    state = django_filters.MultipleChoiceFilter(choices=State.choices)
    status = django_filters.MultipleChoiceFilter(
        choices=Status.choices, method="with_status", label="Of any of its detections."
    )
    verdict = django_filters.MultipleChoiceFilter(
        choices=Verdict.choices, method="with_verdict", label="Of the feedback on any detection."
    )
    label = django_filters.CharFilter(method="with_label", label="Of any of its matches.")
    created_after = MomentFilter(
        field_name="created_at", lookup_expr="gte", label="Asked then or later (ISO 8601)."
    )
    created_before = MomentFilter(
        field_name="created_at", lookup_expr="lt", label="Asked before (ISO 8601)."
    )

    class Meta:
        model = RecognitionQuery
        fields = ["state"]

    def with_status(
        self, queryset: QuerySet[RecognitionQuery], name: str, value: list[str]
    ) -> QuerySet[RecognitionQuery]:
        if not value:
            return queryset
        return queryset.filter(
            Exists(Detection.objects.filter(query=OuterRef("pk"), status__in=value))
        )

    def with_verdict(
        self, queryset: QuerySet[RecognitionQuery], name: str, value: list[str]
    ) -> QuerySet[RecognitionQuery]:
        if not value:
            return queryset
        return queryset.filter(
            Exists(Feedback.objects.filter(detection__query=OuterRef("pk"), verdict__in=value))
        )

    def with_label(
        self, queryset: QuerySet[RecognitionQuery], name: str, value: str
    ) -> QuerySet[RecognitionQuery]:
        return queryset.filter(
            Exists(Match.objects.filter(detection__query=OuterRef("pk"), label=value))
        )


class _Answers(ApiView):
    """What the views that show answers share."""

    serializer_class = RecognitionSerializer
    queryset = RecognitionQuery.objects.none()
    in_address = ("details",)

    @cached_property
    def details(self) -> bool:
        return with_details(self.request)

    def get_serializer_context(self) -> dict[str, Any]:
        return {**super().get_serializer_context(), "details": self.details}


@extend_schema_view(list=extend_schema(parameters=[Shown]))
class RecognitionListView(InCatalogue, ListModelMixin, _Answers, UploadView):
    """What was asked of a catalogue, newest first."""

    filterset_class = RecognitionFilter
    ordering_fields = ["created_at"]
    ordering = ["-pk"]

    roles = {"create": Role.VIEWER}

    def get_queryset(self) -> QuerySet[RecognitionQuery]:
        mine = RecognitionQuery.objects.visible_to(self.request.user)
        return whole(mine.filter(catalogue=self.catalogue), details=self.details)

    @extend_schema(
        operation_id="recognitions_ask",
        parameters=[WAIT, Shown, location(201, 202)],
        request={"multipart/form-data": AskForm, "application/json": AskJson},
        responses={201: RecognitionSerializer, 202: RecognitionSerializer},
    )
    @idempotent
    def create(self, request: Request, key: Any) -> Response:
        """Ask what is in a picture.

        201 with the answer when it came within `wait` seconds (`state` is `done` or `failed`),
        else 202: ask the address in Location for it.
        """
        seconds, details = seconds_to_wait(request), self.details
        data = self.read(AskForm if self.is_form else AskJson)
        names = ("det_threshold", "rec_threshold", "top_k", "per_product", "boxes", "among")
        name = data["image"].name if self.is_form else data.get("name") or data.get("url", "")
        query = queries.submit(
            self.catalogue,
            pictures.received(data),
            by=cast(User, request.user),
            source_name=name or "",
            options=queries.Options(
                **{name: data[name] for name in names if name in data},
                also=several(request, data.get("catalogues", [])),
            ),
        )
        if seconds:
            queries.wait(query, seconds)
        read_answer(query, details=details)
        shown = self.get_serializer(query).data
        ended = shown["state"] in State.ended()
        return Response(shown, status=201 if ended else 202, headers={"Location": shown["url"]})


class _Recognition(_Answers):
    def get_queryset(self) -> QuerySet[RecognitionQuery]:
        rows = RecognitionQuery.objects.visible_to(self.request.user)
        return rows.select_related("catalogue", "asked_by")

    def query(self) -> RecognitionQuery:
        return get_object_or_404(self.get_queryset(), key=self.kwargs["key"])


class RecognitionView(_Recognition):
    @extend_schema(operation_id="recognitions_retrieve", parameters=[WAIT, Shown])
    def retrieve(self, request: Request, key: UUID) -> Response:
        """A question and its answer; with `wait`, as soon as it is there."""
        query, seconds, details = self.query(), seconds_to_wait(request), self.details
        if seconds and query.state not in State.ended():
            queries.wait(query, seconds)
        read_answer(query, details=details)
        return Response(self.get_serializer(query).data)

    @extend_schema(operation_id="recognitions_remove", responses={204: None})
    def destroy(self, request: Request, key: UUID) -> Response:
        """Remove a question with its picture and answer: yours, or as a manager anybody's.

        409 while it is being answered.
        """
        query, user = self.query(), cast(User, request.user)
        mine = query.asked_by_id == user.pk
        catalogues.require_role(user, query.catalogue, Role.VIEWER if mine else Role.MANAGER)
        queries.remove(query)
        return Response(status=204)


class RecognitionPictureView(_Recognition):
    sparse = False

    @extend_schema(operation_id="recognitions_picture", responses=pictures.PICTURE)
    def retrieve(self, request: Request, key: UUID) -> HttpResponseBase:
        """The picture asked about, upright."""
        return pictures.stored(request, str(self.query().file.name))


class RecognitionAnnotatedView(_Recognition):
    sparse = False

    @extend_schema(
        operation_id="recognitions_annotated",
        responses={(200, "image/jpeg"): OpenApiTypes.BINARY, 409: Error},
    )
    def retrieve(self, request: Request, key: UUID) -> HttpResponseBase:
        """A JPEG of it with boxes and labels drawn in; 409 before there is an answer."""
        query = self.query()
        if query.state != State.DONE:
            raise Conflict(
                _("there is no answer to draw: this recognition is %(state)s")
                % {"state": query.get_state_display()}
            )
        version = f"{query.answered_at:%s}" if query.answered_at else ""
        return pictures.made(request, str(query.file.name), version, lambda: looks.annotated(query))
