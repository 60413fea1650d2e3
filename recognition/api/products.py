"""/catalogues/{key}/products: the things to be named."""

from __future__ import annotations

from typing import Any

import django_filters
from django.db import transaction
from django.db.models import Q, QuerySet
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.mixins import ListModelMixin
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from recognition.api.base import ReadSerializer, WriteSerializer
from recognition.api.conditional import etag, require_match
from recognition.api.filters import MomentFilter, YesOrNoFilter
from recognition.api.idempotency import idempotent
from recognition.api.languages import wanted_languages
from recognition.api.narrowing import AttributesFilter
from recognition.api.permissions import InCatalogue
from recognition.api.schema import location
from recognition.errors import NotFound
from recognition.gallery_list import MAX_LABEL_LENGTH
from recognition.models import Product, Role
from recognition.models.product import ProductQuerySet
from recognition.services import product_fields, products, trash


class ProductSerializer(ReadSerializer):
    name = serializers.SerializerMethodField(
        help_text="In the language of Accept-Language that suits best, else the label."
    )
    image_count = serializers.IntegerField(help_text="Gallery images it has, in any state.")
    names = serializers.DictField(child=serializers.CharField(), help_text="By language (BCP 47).")
    attributes = serializers.DictField()

    class Meta:
        model = Product
        fields = ["id", "name", *product_fields.FIELDS, "image_count", "created_at", "changed_at"]
        read_only_fields = fields
        unversioned = ["image_count", "name"]

    def get_name(self, product: Product) -> str:
        return product.name_in(wanted_languages(self.context["request"]))


class ProductWrite(WriteSerializer):
    """What is written; `services/product_fields` says what each field may hold."""

    label = serializers.CharField(  # type: ignore[assignment]
        max_length=MAX_LABEL_LENGTH, help_text="Unique in its catalogue; any Unicode."
    )
    external_id = serializers.CharField(
        allow_blank=True, max_length=255, required=False, help_text="Your own stable id."
    )
    names = serializers.DictField(
        child=serializers.CharField(max_length=255),
        required=False,
        help_text="By language (BCP 47), such as en or zh-Hans.",
    )
    sku = serializers.CharField(allow_blank=True, max_length=100, required=False)
    barcode = serializers.CharField(allow_blank=True, max_length=100, required=False)
    price = serializers.DecimalField(14, 4, min_value=0, allow_null=True, required=False)
    currency = serializers.CharField(
        allow_blank=True, max_length=3, required=False, help_text="ISO 4217, such as EUR."
    )
    description = serializers.CharField(allow_blank=True, max_length=20_000, required=False)
    category = serializers.CharField(
        allow_blank=True, max_length=255, required=False, help_text="A path such as drinks/tea."
    )
    attributes = serializers.DictField(
        required=False,
        help_text="Text, numbers, true or false, and lists of those, by name.",
    )
    is_active = serializers.BooleanField(
        required=False, help_text="An inactive product is never an answer."
    )


class ProductFilter(django_filters.FilterSet):
    label = django_filters.CharFilter(label="The whole label.")
    search = django_filters.CharFilter(
        method="matching",
        label="Part of the label, a name in any language, the category, SKU, barcode or external "
        "id.",
    )
    category = django_filters.CharFilter(
        method="in_category", label="A category with everything below it."
    )
    attributes = AttributesFilter()
    external_id = django_filters.CharFilter(label="Your own id of it.")
    sku = django_filters.CharFilter(label="The whole SKU.")
    barcode = django_filters.CharFilter(label="The whole barcode.")
    is_active = YesOrNoFilter()
    changed_after = MomentFilter(
        field_name="changed_at", lookup_expr="gte", label="Changed then or later (ISO 8601)."
    )

    class Meta:
        model = Product
        fields = ["is_active"]

    def matching(self, queryset: ProductQuerySet, name: str, value: str) -> ProductQuerySet:
        return queryset.matching(value)

    def in_category(self, queryset: QuerySet[Product], name: str, value: str) -> QuerySet[Product]:
        path = value.rstrip("/")
        return queryset.filter(Q(category=path) | Q(category__startswith=f"{path}/"))


class OfProducts(InCatalogue):
    """What the views of products share."""

    serializer_class = ProductSerializer
    queryset = Product.objects.none()
    conditional = True
    roles = {"create": Role.EDITOR, "partial_update": Role.EDITOR, "destroy": Role.EDITOR}

    def get_queryset(self) -> QuerySet[Product]:
        return self.catalogue.products.with_image_count()

    def address(self, product: Product) -> str:
        where = [self.catalogue.key, product.pk]
        return reverse("api:product", where, request=self.request)

    def answer(self, product: Product, status: int = 200) -> Response:
        data = ProductSerializer(product, context={"request": self.request}).data
        headers = {"ETag": etag(ProductSerializer, product, self.request)}
        if status == 201:
            headers["Location"] = self.address(product)
        return Response(data, status=status, headers=headers)


class ProductListView(ListModelMixin, OfProducts):
    """The products of a catalogue."""

    filterset_class = ProductFilter
    ordering_fields = ["label", "created_at", "changed_at"]
    ordering = ["label"]

    @extend_schema(
        operation_id="products_create",
        parameters=[location(201)],
        request=ProductWrite,
        responses={201: ProductSerializer},
    )
    @idempotent
    def create(self, request: Request, key: Any) -> Response:
        """Make a product, without images yet. Adding an image makes its product too."""
        made = products.create(self.catalogue, **self.read(ProductWrite))
        return self.answer(self.get_queryset().get(pk=made.pk), 201)


class ProductView(OfProducts):
    def locked(self, pk: int) -> Product:
        """The product, and nobody else changes it until the transaction ends."""
        rows = self.get_queryset().select_for_update(of=("self",), no_key=True)
        product = rows.filter(pk=pk).first()
        if product is None:
            now = products.find(self.catalogue, pk)  # raises for what is nowhere
            raise NotFound(
                _("product %(id)s was merged into product %(into)s (“%(label)s”); change that one")
                % {"id": pk, "into": now.pk, "label": now.label}
            )
        require_match(self.request, etag(ProductSerializer, product, self.request))
        product.catalogue = self.catalogue
        return product

    @extend_schema(
        operation_id="products_retrieve",
        parameters=[
            OpenApiParameter(
                "Content-Location",
                str,
                OpenApiParameter.HEADER,
                response=[200],
                description="Where the product is: for a merged one, where it is now.",
            )
        ],
    )
    def retrieve(self, request: Request, key: Any, product: int) -> Response:
        """One product; the id of one that was merged leads to the one it was merged into."""
        found = products.find(self.catalogue, product)
        answer = self.answer(get_object_or_404(self.get_queryset(), pk=found.pk))
        answer["Content-Location"] = self.address(found)
        return answer

    @extend_schema(operation_id="products_change", request=ProductWrite)
    def partial_update(self, request: Request, key: Any, product: int) -> Response:
        """Change a product. No vector moves; a new label is in the very next answer."""
        changes = self.read(ProductWrite, partial=True)
        with transaction.atomic():
            products.lock_if_renamed(self.catalogue, changes)
            changed = products.change(self.locked(product), **changes)
        return self.answer(changed)

    @extend_schema(operation_id="products_remove", responses={204: None})
    def destroy(self, request: Request, key: Any, product: int) -> Response:
        """Put a product with its images into the trash; no answer knows it any more."""
        with transaction.atomic():
            trash.put(self.catalogue, [self.locked(product)])
        return Response(status=204)
