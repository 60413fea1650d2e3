"""Questions and their answers: /catalogues/{key}/recognitions and /recognitions/{key}."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, cast
from uuid import UUID

import django_filters
from django.conf import settings
from django.db.models import Exists, OuterRef, Prefetch, QuerySet
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.mixins import ListModelMixin
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from recognition.api import pictures
from recognition.api.base import (
    ApiView,
    Base64Field,
    BoxField,
    Number,
    ReadSerializer,
    RowSerializer,
    UploadView,
    WriteSerializer,
    form_json,
)
from recognition.api.feedback import FeedbackSerializer
from recognition.api.filters import MomentFilter
from recognition.api.idempotency import idempotent
from recognition.api.languages import wanted_languages
from recognition.api.narrowing import Among
from recognition.api.permissions import InCatalogue
from recognition.errors import BadInput, Conflict
from recognition.models import (
    Catalogue,
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
from recognition.models.prepared import prepared
from recognition.services import catalogues, queries
from recognition.services import pictures as looks

MAX_BOXES = 300
MOST_CATALOGUES = 20


class MatchSerializer(RowSerializer):
    label = serializers.CharField(  # type: ignore[assignment]
        help_text="What it was called at that moment."
    )
    name = serializers.SerializerMethodField(
        help_text="What it is called now, in the language of Accept-Language that suits best."
    )
    score = serializers.FloatField(help_text="In the catalogue's metric.")
    catalogue = serializers.SerializerMethodField(
        help_text="Key of its catalogue; null once its product was removed."
    )
    product = serializers.SerializerMethodField(help_text="Null once it was removed.")
    image = serializers.SerializerMethodField(
        help_text="Number of its best reference image; null once that was removed."
    )
    image_url = serializers.SerializerMethodField()

    class Meta:
        model = Match
        fields = ["label", "name", "score", "catalogue", "product", "image", "image_url"]

    def get_name(self, match: Match) -> str:
        if match.product is None:
            return match.label
        return match.product.name_in(wanted_languages(self.context["request"]))

    @extend_schema_field({"type": "string", "format": "uuid", "nullable": True})
    def get_catalogue(self, match: Match) -> str | None:
        if match.product is None or self.get_product(match) is None:
            return None
        return str(match.product.catalogue.key)

    def get_product(self, match: Match) -> int | None:
        product = match.product
        if product is not None and product.merged_into_id is not None:
            return product.merged_into_id
        return None if product is None or product.removed_at else product.pk

    def get_image(self, match: Match) -> int | None:
        return None if match.image is None or match.image.removed_at else match.image.number

    def get_image_url(self, match: Match) -> str | None:
        if (number := self.get_image(match)) is None:
            return None
        key = match.image.catalogue.key  # type: ignore[union-attr]  # or it had no number
        return reverse("api:image-thumbnail", [key, number], request=self.context["request"])


class DetectionSerializer(RowSerializer):
    box = BoxField(source="coordinate", help_text="In pixels of the upright picture.")
    det_score = serializers.FloatField(help_text="0: nothing detected, this is all of it.")
    matches = MatchSerializer(source="ranked", many=True)
    feedback = FeedbackSerializer(allow_null=True, help_text="Null until somebody gave some.")

    class Meta:
        model = Detection
        fields = ["box", "det_score", "status", "matches", "feedback"]


class RecognitionSerializer(ReadSerializer):
    """A question, and its answer once `state` is `done`; `error` tells why it `failed`."""

    url = serializers.SerializerMethodField()
    catalogue = serializers.UUIDField(source="catalogue.key")
    asked_by = serializers.CharField(source="asked_by.username", default=None, allow_null=True)
    boxes = serializers.ListField(child=BoxField(), allow_null=True)
    among = serializers.DictField(allow_null=True, help_text="Which products may be an answer.")
    catalogues = serializers.SerializerMethodField(
        help_text="Keys of all catalogues that are searched."
    )
    answered_with = serializers.DictField(
        help_text="Detector and feature model with their weights hashes, metric, search plan."
    )
    timings = serializers.DictField(
        child=serializers.FloatField(), help_text="Milliseconds by stage."
    )
    detections = DetectionSerializer(source="answer", many=True)
    picture = serializers.SerializerMethodField()
    annotated = serializers.SerializerMethodField()

    class Meta:
        model = RecognitionQuery
        fields = [
            "key",
            "url",
            "catalogue",
            "state",
            "error",
            "asked_by",
            "source_name",
            "width",
            "height",
            "det_threshold",
            "rec_threshold",
            "top_k",
            "per_product",
            "boxes",
            "among",
            "catalogues",
            "catalogue_version",
            "answered_with",
            "timings",
            "created_at",
            "answered_at",
            "detections",
            "picture",
            "annotated",
        ]
        read_only_fields = fields

    @extend_schema_field(serializers.ListField(child=serializers.UUIDField()))
    def get_catalogues(self, query: RecognitionQuery) -> list[str]:
        also = () if query.among is None else query.also.all()
        return [str(one.key) for one in (query.catalogue, *also)]

    def get_url(self, query: RecognitionQuery) -> str:
        return self._address("api:recognition", query)

    def get_picture(self, query: RecognitionQuery) -> str:
        return self._address("api:recognition-picture", query)

    def get_annotated(self, query: RecognitionQuery) -> str:
        return self._address("api:recognition-annotated", query)

    def _address(self, route: str, query: RecognitionQuery) -> str:
        return reverse(route, [query.key], request=self.context["request"])


class _Options(WriteSerializer):
    det_threshold = Number(min_value=0, max_value=1, required=False, allow_null=True)
    rec_threshold = Number(
        min_value=-1,
        max_value=4,
        required=False,
        allow_null=True,
        help_text="In the catalogue's metric.",
    )
    top_k = serializers.IntegerField(
        min_value=1, max_value=queries.MOST_TOP_K, required=False, allow_null=True
    )
    per_product = serializers.BooleanField(
        default=True, help_text="One entry per product; false: every reference image."
    )
    catalogues = serializers.ListField(
        child=serializers.UUIDField(),
        required=False,
        max_length=MOST_CATALOGUES,
        help_text="Keys of others to search in as well; all use the same feature model.",
    )


class AskJson(_Options):
    """A picture in base64 or by URL. What is left out is the catalogue's own setting."""

    image = Base64Field(
        required=False, help_text="The file in base64, with or without `data:...;base64,`."
    )
    url = serializers.CharField(
        required=False, max_length=4096, help_text="Where to get it, instead of `image`."
    )
    name = serializers.CharField(required=False, max_length=255, help_text="Of your file.")
    boxes = serializers.ListField(
        child=BoxField(),
        required=False,
        allow_null=True,
        max_length=MAX_BOXES,
        help_text="What to recognise, instead of detecting; empty: the whole picture.",
    )
    among = Among(required=False, allow_null=True)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("image" in attrs) == ("url" in attrs):
            raise serializers.ValidationError(_("give either `image` or `url`"))
        return attrs


class AskForm(_Options):
    """A picture as a file. What is left out is the catalogue's own setting."""

    image = serializers.FileField(allow_empty_file=True)
    boxes = form_json(
        serializers.ListField(child=BoxField(), max_length=MAX_BOXES),
        "JSON `[[x1, y1, x2, y2], ...]`: what to recognise, instead of detecting.",
        required=False,
    )
    among = form_json(
        Among(), "JSON: which products may be an answer, as in a JSON body.", required=False
    )


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


def _whole(queryset: QuerySet[RecognitionQuery]) -> QuerySet[RecognitionQuery]:
    """With all that RecognitionSerializer reads, in four queries however many rows."""
    return queryset.select_related("catalogue", "asked_by").prefetch_related(
        Prefetch("detections", queryset=_detections(), to_attr="answer"),
        Prefetch("answer__matches", queryset=_matches(), to_attr="ranked"),
        "also",
    )


def _read_answer(query: Any) -> None:
    """What `_whole` prefetches, for one query that is at hand."""
    ranked = {
        detection: list(matches)
        for detection, matches in groupby(_matches_of(query.pk), attrgetter("detection_id"))
    }
    query.answer = _detections_of(query.pk)
    for detection in query.answer:
        detection.ranked = ranked.get(detection.pk, [])


def _detections() -> QuerySet[Detection]:
    return Detection.objects.select_related("feedback__product", "feedback__given_by")


def _matches() -> QuerySet[Match]:
    """With no more of product and image than MatchSerializer reads."""
    rows = Match.objects.select_related("image__catalogue", "product__catalogue")
    return rows.only(
        "detection",
        "rank",
        "label",
        "score",
        "image__number",
        "image__removed_at",
        "image__catalogue__key",
        "product__label",
        "product__names",
        "product__merged_into",
        "product__removed_at",
        "product__catalogue__key",
    )


@prepared
def _detections_of(query: int) -> QuerySet[Detection]:
    return _detections().filter(query=query)


@prepared
def _matches_of(query: int) -> QuerySet[Match]:
    return _matches().filter(detection__query=query)


_WAIT = OpenApiParameter(
    "wait",
    {"type": "number", "minimum": 0},
    description="Seconds to wait for the answer, at most SHITU_ANSWER_TIMEOUT of the site.",
)


def _seconds(request: Request) -> float:
    """`?wait=`, 0 unless given; raises ValidationError for what is no number of seconds."""
    text = request.query_params.get("wait", "0")
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise serializers.ValidationError({"wait": [_("must be a number of seconds, 0 or more")]})
    return min(seconds, settings.SHITU_ANSWER_TIMEOUT)


def several(
    request: Request, keys: Sequence[UUID], *, field: str = "catalogues"
) -> list[Catalogue]:
    """The catalogues with these keys. Raises BadInput for one that the user may not see."""
    if not keys:
        return []
    rows = Catalogue.objects.visible_to(request.user).select_related("index")
    found = list(rows.filter(key__in=keys))
    if missing := set(keys) - {catalogue.key for catalogue in found}:
        raise BadInput(
            _("there is no catalogue %(key)s among those you may see") % {"key": min(missing)},
            field=field,
        )
    return found


class RecognitionListView(InCatalogue, ListModelMixin, UploadView):
    """What was asked of a catalogue, newest first."""

    serializer_class = RecognitionSerializer
    queryset = RecognitionQuery.objects.none()
    filterset_class = RecognitionFilter
    ordering_fields = ["created_at"]
    ordering = ["-pk"]

    roles = {"create": Role.VIEWER}

    def get_queryset(self) -> QuerySet[RecognitionQuery]:
        mine = RecognitionQuery.objects.visible_to(self.request.user)
        return _whole(mine.filter(catalogue=self.catalogue))

    @extend_schema(
        operation_id="recognitions_ask",
        parameters=[
            _WAIT,
            OpenApiParameter(
                "Location",
                str,
                OpenApiParameter.HEADER,
                response=[201, 202],
                description="Its url.",
            ),
        ],
        request={"multipart/form-data": AskForm, "application/json": AskJson},
        responses={201: RecognitionSerializer, 202: RecognitionSerializer},
    )
    @idempotent
    def create(self, request: Request, key: Any) -> Response:
        """Ask what is in a picture.

        201 with the answer when it came within `wait` seconds (`state` is `done` or `failed`),
        else 202: ask the address in Location for it.
        """
        seconds = _seconds(request)
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
        _read_answer(query)
        shown = self.get_serializer(query).data
        ended = shown["state"] in State.ended()
        return Response(shown, status=201 if ended else 202, headers={"Location": shown["url"]})


class _Recognition(ApiView):
    serializer_class = RecognitionSerializer
    queryset = RecognitionQuery.objects.none()

    def get_queryset(self) -> QuerySet[RecognitionQuery]:
        rows = RecognitionQuery.objects.visible_to(self.request.user)
        return rows.select_related("catalogue", "asked_by")

    def query(self) -> RecognitionQuery:
        return get_object_or_404(self.get_queryset(), key=self.kwargs["key"])


class RecognitionView(_Recognition):
    @extend_schema(operation_id="recognitions_retrieve", parameters=[_WAIT])
    def retrieve(self, request: Request, key: UUID) -> Response:
        """A question and its answer; with `wait`, as soon as it is there."""
        query, seconds = self.query(), _seconds(request)
        if seconds and query.state not in State.ended():
            queries.wait(query, seconds)
        _read_answer(query)
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
        responses={(200, "image/jpeg"): OpenApiTypes.BINARY, 409: None},
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
