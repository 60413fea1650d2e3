"""/catalogues/{key}/products: the things to be named."""

from __future__ import annotations

import json
from typing import Any

import django_filters
from django.db import transaction
from django.db.models import Count, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.mixins import ListModelMixin
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from recognition.api.base import ApiView, ReadSerializer, WriteSerializer
from recognition.api.conditional import etag, require_match
from recognition.api.filters import MomentFilter
from recognition.api.idempotency import idempotent
from recognition.api.permissions import InCatalogue
from recognition.models import GalleryImage, Product, Role
from recognition.services import gallery

_ATTRIBUTES_DEPTH, _ATTRIBUTES_BYTES = 8, 16 * 1024


class ProductSerializer(ReadSerializer):
    image_count = serializers.IntegerField(help_text="Gallery images it has, in any state.")
    attributes = serializers.DictField()

    class Meta:
        model = Product
        fields = [
            "id",
            "label",
            "category",
            "attributes",
            "is_active",
            "image_count",
            "created_at",
            "changed_at",
        ]
        read_only_fields = fields
        counters = ["image_count"]


class ProductWrite(WriteSerializer):
    label = serializers.CharField(
        max_length=gallery.MAX_LABEL, help_text="Unique in its catalogue; any Unicode."
    )
    category = serializers.CharField(
        allow_blank=True, max_length=255, required=False, help_text="A path such as drinks/tea."
    )
    attributes = serializers.DictField(
        required=False, help_text="Your own facts about it; at most 16 kB of JSON."
    )
    is_active = serializers.BooleanField(
        required=False, help_text="An inactive product is never an answer."
    )

    def validate_attributes(self, value: dict[str, Any]) -> dict[str, Any]:
        _refuse_unstorable(value)
        if len(json.dumps(value)) > _ATTRIBUTES_BYTES:
            raise serializers.ValidationError("more than 16 kB; keep fewer facts")
        return value


def _refuse_unstorable(value: Any, depth: int = 0) -> None:
    """PostgreSQL stores neither NUL nor half a surrogate pair, and nobody reads a deep nest."""
    if depth > _ATTRIBUTES_DEPTH:
        raise serializers.ValidationError(f"nested deeper than {_ATTRIBUTES_DEPTH} levels")
    if isinstance(value, str):
        if "\x00" in value or any("\ud800" <= character <= "\udfff" for character in value):
            raise serializers.ValidationError("a text holds characters that cannot be stored")
    elif isinstance(value, dict):
        for key, inner in value.items():
            _refuse_unstorable(key, depth)
            _refuse_unstorable(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _refuse_unstorable(inner, depth + 1)


class ProductFilter(django_filters.FilterSet):
    label = django_filters.CharFilter(label="The whole label.")
    search = django_filters.CharFilter(
        field_name="label", lookup_expr="icontains", label="Part of the label."
    )
    category = django_filters.CharFilter(
        method="in_category", label="A category with everything below it."
    )
    is_active = django_filters.BooleanFilter()
    changed_after = MomentFilter(
        field_name="changed_at", lookup_expr="gte", label="Changed then or later (ISO 8601)."
    )

    class Meta:
        model = Product
        fields = ["is_active"]

    def in_category(self, queryset: QuerySet[Product], name: str, value: str) -> QuerySet[Product]:
        path = value.rstrip("/")
        return queryset.filter(Q(category=path) | Q(category__startswith=f"{path}/"))


class _Products(InCatalogue, ApiView):
    serializer_class = ProductSerializer
    queryset = Product.objects.none()
    conditional = True
    roles = {"create": Role.EDITOR, "partial_update": Role.EDITOR, "destroy": Role.EDITOR}

    def get_queryset(self) -> QuerySet[Product]:
        images = (
            GalleryImage.objects.filter(product=OuterRef("pk"))
            .order_by()
            .values("product")
            .annotate(count=Count("pk"))
            .values("count")
        )
        return self.catalogue.products.annotate(image_count=Coalesce(Subquery(images), 0))

    def answer(self, product: Product, status: int = 200) -> Response:
        data = ProductSerializer(product, context={"request": self.request}).data
        headers = {"ETag": etag(ProductSerializer, product, self.request)}
        if status == 201:
            headers["Location"] = reverse(
                "api:product", [self.catalogue.key, product.pk], request=self.request
            )
        return Response(data, status=status, headers=headers)


class ProductListView(ListModelMixin, _Products):
    """The products of a catalogue."""

    filterset_class = ProductFilter
    ordering_fields = ["label", "created_at", "changed_at"]
    ordering = ["label"]

    @extend_schema(
        operation_id="products_create", request=ProductWrite, responses={201: ProductSerializer}
    )
    @idempotent
    def create(self, request: Request, key: Any) -> Response:
        """Make a product, without images yet. Adding an image makes its product too."""
        made = gallery.create_product(self.catalogue, **self.read(ProductWrite))
        return self.answer(self.get_queryset().get(pk=made.pk), 201)


class ProductView(_Products):
    def locked(self, pk: int) -> Product:
        """The product, and nobody else changes it until the transaction ends."""
        rows = self.get_queryset().select_for_update(of=("self",), no_key=True)
        product = get_object_or_404(rows, pk=pk)
        require_match(self.request, etag(ProductSerializer, product, self.request))
        product.catalogue = self.catalogue
        return product

    @extend_schema(operation_id="products_retrieve")
    def retrieve(self, request: Request, key: Any, product: int) -> Response:
        """One product."""
        return self.answer(get_object_or_404(self.get_queryset(), pk=product))

    @extend_schema(operation_id="products_change", request=ProductWrite)
    def partial_update(self, request: Request, key: Any, product: int) -> Response:
        """Change a product. No vector moves; a new label is in the very next answer."""
        changes = self.read(ProductWrite, partial=True)
        with transaction.atomic():
            changed = gallery.change_product(self.locked(product), **changes)
        return self.answer(changed)

    @extend_schema(operation_id="products_remove", responses={204: None})
    def destroy(self, request: Request, key: Any, product: int) -> Response:
        """Remove a product with its images."""
        with transaction.atomic():
            gallery.remove_product(self.locked(product))
        return Response(status=204)
