"""What an answer shows, and the querysets that have all of it at hand."""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter
from typing import Any

from django.db.models import Prefetch, QuerySet
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.reverse import reverse

from recognition.api.base import BoxField, ReadSerializer, RowSerializer
from recognition.api.feedback import FeedbackSerializer
from recognition.api.languages import wanted_languages
from recognition.models import Detection, Match, Product, RecognitionQuery
from recognition.models.prepared import prepared


class ProductDetails(RowSerializer):
    """What a till needs of a product, as it is now."""

    attributes = serializers.DictField()

    class Meta:
        model = Product
        fields = ["external_id", "sku", "barcode", "price", "currency", "category", "attributes"]
        read_only_fields = fields

    def get_attribute(self, match: Match) -> Product | None:
        """Of the product that a match has become; left out unless the question asks for it."""
        if not self.context["details"]:
            raise serializers.SkipField
        return None if match.product is None else match.product.now


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
    details = ProductDetails(
        required=False,
        allow_null=True,
        help_text="Of its product as it is now, with `details=true`; null once it was removed.",
    )

    class Meta:
        model = Match
        fields = ["label", "name", "score", "catalogue", "product", "image", "image_url", "details"]

    def get_name(self, match: Match) -> str:
        if match.product is None:
            return match.label
        return match.product.name_in(wanted_languages(self.context["request"]))

    @extend_schema_field({"type": "string", "format": "uuid", "nullable": True})
    def get_catalogue(self, match: Match) -> str | None:
        if match.product is None or match.product.now_id is None:
            return None
        return str(match.product.catalogue.key)

    def get_product(self, match: Match) -> int | None:
        return None if match.product is None else match.product.now_id

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


def whole(queryset: QuerySet[RecognitionQuery], *, details: bool) -> QuerySet[RecognitionQuery]:
    """With all that RecognitionSerializer reads, in four queries however many rows."""
    return queryset.select_related("catalogue", "asked_by").prefetch_related(
        Prefetch("detections", queryset=_detections(), to_attr="answer"),
        Prefetch("answer__matches", queryset=_matches(details=details), to_attr="ranked"),
        "also",
    )


def read_answer(query: Any, *, details: bool) -> None:
    """What `whole` prefetches, for one query that is at hand."""
    ranked = {
        detection: list(matches)
        for detection, matches in groupby(
            _matches_of(query.pk, details=details), attrgetter("detection_id")
        )
    }
    query.answer = _detections_of(query.pk)
    for detection in query.answer:
        detection.ranked = ranked.get(detection.pk, [])


def _detections() -> QuerySet[Detection]:
    return Detection.objects.select_related("feedback__product", "feedback__given_by")


def _matches(*, details: bool) -> QuerySet[Match]:
    """With no more of product and image than MatchSerializer reads."""
    rows = Match.objects.select_related("image__catalogue", "product__catalogue")
    more: list[str] = []
    if details:
        rows = rows.select_related("product__merged_into")
        read = ("removed_at", *ProductDetails.Meta.fields)
        more = [f"{of}__{name}" for of in ("product", "product__merged_into") for name in read]
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
        *more,
    )


@prepared
def _detections_of(query: int) -> QuerySet[Detection]:
    return _detections().filter(query=query)


@prepared
def _matches_of(query: int, *, details: bool) -> QuerySet[Match]:
    return _matches(details=details).filter(detection__query=query)
