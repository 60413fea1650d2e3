"""/catalogues: what a team owns, its settings and figures."""

from __future__ import annotations

from typing import Any, cast

import django_filters
from django.db import transaction
from django.db.models import OuterRef, QuerySet, Subquery
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema, extend_schema_field, inline_serializer
from rest_framework import serializers
from rest_framework.mixins import ListModelMixin
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from recognition.api.base import ApiView, Number, ReadSerializer, RowSerializer, WriteSerializer
from recognition.api.conditional import etag, require_match
from recognition.api.idempotency import idempotent
from recognition.api.permissions import InCatalogue
from recognition.api.schema import location
from recognition.errors import BadInput, ModelUnavailable
from recognition.models import (
    Catalogue,
    CropPolicy,
    FeatureModel,
    IndexState,
    IndexType,
    Membership,
    Metric,
    Role,
    ShownLabel,
    User,
)
from recognition.services import catalogues, feature_models, quotas


class FeatureModelSerializer(RowSerializer):
    class Meta:
        model = FeatureModel
        fields = ["name", "digest", "dimension"]


class CatalogueSerializer(ReadSerializer):
    """A catalogue and how it recognises. Figures that move by themselves are in `/statistics`."""

    owner = serializers.CharField(source="owner.username")
    role = serializers.SerializerMethodField(help_text="What you may do in it.")
    feature_model = FeatureModelSerializer(source="index.feature_model")
    metric = serializers.ChoiceField(source="index.metric", choices=Metric.choices)
    index_type = serializers.ChoiceField(source="index.index_type", choices=IndexType.choices)

    class Meta:
        model = Catalogue
        fields = [
            "key",
            "name",
            "description",
            "owner",
            "role",
            "feature_model",
            "metric",
            "index_type",
            "detector",
            "crop_policy",
            "det_threshold",
            "rec_threshold",
            "margin",
            "top_k",
            "max_detections",
            "shown_label",
            "created_at",
            "changed_at",
        ]
        read_only_fields = fields

    @extend_schema_field(serializers.ChoiceField(choices=Role.choices))
    def get_role(self, catalogue: Any) -> str:
        role, token = Role(catalogue.my_role), self.context["request"].user.token
        return min(role, Role(token.role), key=lambda one: one.rank) if token else role


class CatalogueChange(WriteSerializer):
    """Settings of a catalogue; the very next answer follows them."""

    name = serializers.CharField(max_length=120)
    description = serializers.CharField(allow_blank=True, max_length=10_000, required=False)
    detector = serializers.CharField(
        allow_blank=True,
        max_length=100,
        required=False,
        help_text="Name of an installed detection model; empty: the whole picture is one object.",
    )
    metric = serializers.ChoiceField(choices=Metric.choices, required=False)
    crop_policy = serializers.ChoiceField(choices=CropPolicy.choices, required=False)
    det_threshold = Number(min_value=0, max_value=1, required=False)
    rec_threshold = Number(
        min_value=-1,
        max_value=4,
        allow_null=True,
        required=False,
        help_text="In the catalogue's metric; null: 0.5 (IP, cosine) or 1.0 (L2).",
    )
    margin = Number(min_value=0, max_value=1, required=False)
    top_k = serializers.IntegerField(min_value=1, max_value=100, required=False)
    max_detections = serializers.IntegerField(min_value=1, max_value=300, required=False)
    shown_label = serializers.ChoiceField(
        choices=ShownLabel.choices,
        required=False,
        help_text="What PaddleX clients are told; the label where a product has none.",
    )
    index_type = serializers.ChoiceField(choices=IndexType.choices, required=False)


class CatalogueCreate(CatalogueChange):
    """A new catalogue; what is left out is the site's default."""

    feature_model = serializers.CharField(
        max_length=100, required=False, help_text="Name of an installed feature model."
    )


Statistics = inline_serializer(
    "Statistics",
    {
        "products": serializers.IntegerField(),
        "images": inline_serializer(
            "ImagesByState",
            {name: serializers.IntegerField() for name in ("pending", "running", "done", "failed")},
        ),
        "vectors": serializers.IntegerField(),
        "bytes": serializers.IntegerField(help_text="Of stored gallery pictures."),
        "index": inline_serializer(
            "IndexFigures",
            {
                "state": serializers.ChoiceField(choices=IndexState.choices),
                "type": serializers.ChoiceField(choices=IndexType.choices),
                "metric": serializers.ChoiceField(choices=Metric.choices),
                "built_with": serializers.DictField(),
                "build_error": serializers.CharField(),
            },
        ),
        "version": serializers.IntegerField(help_text="Moves with every change."),
    },
)


class CatalogueFilter(django_filters.FilterSet):
    search = django_filters.CharFilter(
        field_name="name", lookup_expr="icontains", label="Part of the name."
    )
    name = django_filters.CharFilter(label="The whole name.")

    class Meta:
        model = Catalogue
        fields = ["name"]


def _shown(request: Request) -> QuerySet[Catalogue]:
    """Catalogues the user may see, with all that CatalogueSerializer reads, in one query."""
    user = cast(User, request.user)
    mine = Membership.objects.filter(catalogue=OuterRef("pk"), user=user).values("role")[:1]
    return (
        Catalogue.objects.visible_to(user)
        .select_related("owner", "index__feature_model")
        .annotate(my_role=Subquery(mine))
    )


def _answer(catalogue: Catalogue, request: Request, status: int = 200) -> Response:
    data = CatalogueSerializer(catalogue, context={"request": request}).data
    headers = {"ETag": etag(CatalogueSerializer, catalogue, request)}
    if status == 201:
        headers["Location"] = reverse("api:catalogue", [catalogue.key], request=request)
    return Response(data, status=status, headers=headers)


class CatalogueListView(ListModelMixin, ApiView):
    """The catalogues you may see."""

    serializer_class = CatalogueSerializer
    filterset_class = CatalogueFilter
    ordering_fields = ["name", "created_at", "changed_at"]
    ordering = ["name"]
    queryset = Catalogue.objects.none()
    conditional = True

    def get_queryset(self) -> QuerySet[Catalogue]:
        return _shown(self.request)

    @extend_schema(
        operation_id="catalogues_create",
        parameters=[location(201)],
        request=CatalogueCreate,
        responses={201: CatalogueSerializer},
    )
    @idempotent
    def create(self, request: Request) -> Response:
        """Make an empty catalogue; you become its manager."""
        user = cast(User, request.user)
        catalogues.require_unlimited(user)
        settings = self.read(CatalogueCreate)
        require_models(settings)
        made = catalogues.create(owner=user, **settings)
        return _answer(_shown(request).get(pk=made.pk), request, 201)


class CatalogueView(InCatalogue):
    serializer_class = CatalogueSerializer
    queryset = Catalogue.objects.none()
    conditional = True

    @extend_schema(operation_id="catalogues_retrieve")
    def retrieve(self, request: Request, key: Any) -> Response:
        """A catalogue and its settings."""
        return _answer(get_object_or_404(_shown(request), key=key), request)

    @extend_schema(operation_id="catalogues_change", request=CatalogueChange)
    def partial_update(self, request: Request, key: Any) -> Response:
        """Change settings."""
        changes = self.read(CatalogueChange, partial=True)
        require_models(changes)
        with transaction.atomic():
            # First the lock, then the look: a statement that waited for a lock shows of the rows
            # beside it, such as the index, what they were before.
            get_object_or_404(Catalogue.objects.select_for_update(no_key=True), key=key)
            catalogue = get_object_or_404(_shown(request), key=key)
            require_match(request, etag(CatalogueSerializer, catalogue, request))
            catalogues.change(catalogue, **changes)
        return _answer(catalogue, request)

    @extend_schema(operation_id="catalogues_remove", responses={204: None})
    def destroy(self, request: Request, key: Any) -> Response:
        """Remove a catalogue with everything in it."""
        # Not locked here: `remove` locks what is in it first.
        catalogue = get_object_or_404(_shown(request), key=key)
        require_match(request, etag(CatalogueSerializer, catalogue, request))
        catalogues.remove(catalogue)
        return Response(status=204)


class StatisticsView(InCatalogue):
    sparse = False

    @extend_schema(operation_id="catalogues_statistics", responses=Statistics)
    def retrieve(self, request: Request, key: Any) -> Response:
        """What is in the catalogue, counted now."""
        return Response(catalogues.statistics(self.catalogue))


class QuotaUse(serializers.Serializer[quotas.Usage]):
    used = serializers.IntegerField(allow_null=True, help_text="null: not counted")
    most = serializers.IntegerField(allow_null=True, help_text="null: unlimited")


Quotas = inline_serializer("Quotas", {name: QuotaUse() for name in quotas.LIMITS})


class QuotasView(InCatalogue):
    sparse = False

    @extend_schema(operation_id="catalogues_quotas", responses=Quotas)
    def retrieve(self, request: Request, key: Any) -> Response:
        """The limits of the catalogue, and what is used of them. Staff change them in the admin.

        `images` and `stored_bytes` count the trash too. `queries_per_minute` is counted only where
        there is a limit: `used` is null otherwise.
        """
        use = quotas.usage(self.catalogue)
        return Response({one.limit: {"used": one.used, "most": one.most} for one in use})


def require_models(given: dict[str, Any]) -> None:
    """Raises BadInput for a model that the caller names and the site does not have.

    What is missing of the site's own defaults stays a fault of the site (503).
    """
    checks = {
        "feature_model": feature_models.installed,
        "detector": feature_models.require_detector,
    }
    for field, check in checks.items():
        if name := given.get(field):
            try:
                check(name)
            except (ModelUnavailable, BadInput) as error:
                raise BadInput(error.message, field=field) from error
