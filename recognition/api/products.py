"""/catalogues/{key}/products: the things to be named."""

from __future__ import annotations

from typing import Any, cast

import django_filters
from django.db import transaction
from django.db.models import Count, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema, extend_schema_field, inline_serializer
from rest_framework import serializers
from rest_framework.mixins import ListModelMixin
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from recognition.api.base import ReadSerializer, WriteSerializer
from recognition.api.conditional import etag, require_match
from recognition.api.errors import describe
from recognition.api.filters import MomentFilter, YesOrNoFilter
from recognition.api.idempotency import idempotent
from recognition.api.languages import wanted_languages
from recognition.api.narrowing import AttributesFilter
from recognition.api.permissions import InCatalogue
from recognition.errors import BadInput, NotFound
from recognition.gallery_list import MAX_LABEL_LENGTH
from recognition.models import GalleryImage, Product, Role, User
from recognition.services import (
    catalogues,
    product_fields,
    product_merging,
    product_moving,
    products,
    trash,
)

MOST_AT_ONCE = 1000
_ID = serializers.IntegerField(min_value=1, max_value=2**63 - 1)


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


class ProductItem(ProductWrite):
    """A product by your own id: made, or changed in the fields that are given."""

    label = serializers.CharField(
        max_length=MAX_LABEL_LENGTH, required=False, help_text="Needed for a new one."
    )
    external_id = serializers.CharField(max_length=255)


@extend_schema_field(ProductItem)
class _Item(serializers.DictField):
    """Judged one by one by the service, so that one that is wrong does not stop the others."""


class Upsert(WriteSerializer):
    products = serializers.ListField(child=_Item(), allow_empty=False, max_length=MOST_AT_ONCE)


Upserted = inline_serializer(
    "Upserted",
    {
        "created": serializers.IntegerField(),
        "changed": serializers.IntegerField(),
        "unchanged": serializers.IntegerField(help_text="They were like that already."),
        "failed": serializers.IntegerField(),
        "results": inline_serializer(
            "UpsertResult",
            {
                "result": serializers.ChoiceField(["created", "changed", "unchanged", "failed"]),
                "product": serializers.IntegerField(allow_null=True, help_text="Its id."),
                "error": inline_serializer(
                    "UpsertError",
                    {
                        "code": serializers.CharField(),
                        "message": serializers.CharField(),
                        "field": serializers.CharField(allow_null=True),
                    },
                    allow_null=True,
                ),
            },
            many=True,
        ),
    },
)


class Products(WriteSerializer):
    """Ids of products."""

    products = serializers.ListField(child=_ID, allow_empty=False, max_length=MOST_AT_ONCE)


class Changes(Products):
    """What many products are to have in common."""

    category = ProductWrite().fields["category"]
    attributes = ProductWrite().fields["attributes"]
    is_active = ProductWrite().fields["is_active"]


class Move(Products):
    catalogue = serializers.UUIDField(help_text="Key of the one they go to; you edit both.")


class Split(ProductWrite):
    """The new product, and the images that it gets."""

    images = serializers.ListField(
        child=serializers.IntegerField(min_value=0, max_value=2**63 - 1),
        allow_empty=False,
        max_length=MOST_AT_ONCE,
        help_text="Their numbers.",
    )


class Restore(WriteSerializer):
    label = serializers.CharField(  # type: ignore[assignment]
        max_length=MAX_LABEL_LENGTH,
        required=False,
        help_text="Another label, where the old one is taken by now.",
    )


def _counted(name: str) -> Any:
    return inline_serializer(f"Products{name.title()}", {name: serializers.IntegerField()})


class TrashSerializer(ReadSerializer):
    """A product in the trash, with its images."""

    image_count = serializers.IntegerField()

    class Meta:
        model = Product
        fields = ["id", "label", "external_id", "sku", "category", "image_count", "removed_at"]
        read_only_fields = fields


class TrashFilter(django_filters.FilterSet):
    search = django_filters.CharFilter(
        field_name="label", lookup_expr="icontains", label="Part of the label."
    )
    external_id = django_filters.CharFilter(label="Your own id of it.")

    class Meta:
        model = Product
        fields = ["external_id"]


class ProductFilter(django_filters.FilterSet):
    label = django_filters.CharFilter(label="The whole label.")
    search = django_filters.CharFilter(
        field_name="label", lookup_expr="icontains", label="Part of the label."
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

    def in_category(self, queryset: QuerySet[Product], name: str, value: str) -> QuerySet[Product]:
        path = value.rstrip("/")
        return queryset.filter(Q(category=path) | Q(category__startswith=f"{path}/"))


def _counting(rows: QuerySet[Product]) -> QuerySet[Product]:
    """With `image_count`; in the trash the images are there with their product."""
    images = (
        GalleryImage.everything.filter(product=OuterRef("pk"))
        .order_by()
        .values("product")
        .annotate(count=Count("pk"))
        .values("count")
    )
    return rows.annotate(image_count=Coalesce(Subquery(images), 0))


class _Products(InCatalogue):
    serializer_class = ProductSerializer
    queryset = Product.objects.none()
    conditional = True
    roles = {"create": Role.EDITOR, "partial_update": Role.EDITOR, "destroy": Role.EDITOR}

    def get_queryset(self) -> QuerySet[Product]:
        return _counting(self.catalogue.products.all())

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
        made = products.create(self.catalogue, **self.read(ProductWrite))
        return self.answer(self.get_queryset().get(pk=made.pk), 201)


class ProductView(_Products):
    def locked(self, pk: int) -> Product:
        """The product, and nobody else changes it until the transaction ends."""
        rows = self.get_queryset().select_for_update(of=("self",), no_key=True)
        product = rows.filter(pk=pk).first()
        if product is None:
            now = products.find(self.catalogue, pk)  # raises for what is nowhere
            raise NotFound(
                f"product {pk} was merged into product {now.pk} (“{now.label}”); change that one"
            )
        require_match(self.request, etag(ProductSerializer, product, self.request))
        product.catalogue = self.catalogue
        return product

    @extend_schema(operation_id="products_retrieve")
    def retrieve(self, request: Request, key: Any, product: int) -> Response:
        """One product; the id of one that was merged leads to the one it was merged into."""
        found = products.find(self.catalogue, product)
        return self.answer(get_object_or_404(self.get_queryset(), pk=found.pk))

    @extend_schema(operation_id="products_change", request=ProductWrite)
    def partial_update(self, request: Request, key: Any, product: int) -> Response:
        """Change a product. No vector moves; a new label is in the very next answer."""
        changes = self.read(ProductWrite, partial=True)
        with transaction.atomic():
            changed = products.change(self.locked(product), **changes)
        return self.answer(changed)

    @extend_schema(operation_id="products_remove", responses={204: None})
    def destroy(self, request: Request, key: Any, product: int) -> Response:
        """Put a product with its images into the trash; no answer knows it any more."""
        with transaction.atomic():
            trash.put(self.catalogue, [self.locked(product)])
        return Response(status=204)


class _ManyProducts(_Products):
    sparse = False
    conditional = False
    roles = {"create": Role.EDITOR}

    def named(self, ids: list[int]) -> list[Product]:
        """The products with these ids. Raises NotFound naming one that the catalogue has not."""
        found = list(self.catalogue.products.filter(pk__in=ids))
        if missing := set(ids) - {product.pk for product in found}:
            raise NotFound(f"this catalogue has no product {min(missing)}", field="products")
        for product in found:
            product.catalogue = self.catalogue
        return found


class ProductsUpsertView(_ManyProducts):
    @extend_schema(operation_id="products_upsert", request=Upsert, responses={200: Upserted})
    def create(self, request: Request, key: Any) -> Response:
        """Make or change many products by your own ids; sent again, it changes nothing more.

        What became of each is in `results`, in the order sent. One that is refused does not stop
        the others.
        """
        became = products.bulk_upsert(self.catalogue, self.read(Upsert)["products"])
        results = [_upserted(one) for one in became]
        names = ("created", "changed", "unchanged", "failed")
        counts = {name: sum(one["result"] == name for one in results) for name in names}
        return Response(counts | {"results": results})


def _upserted(one: products.Upserted) -> dict[str, Any]:
    if one.error is not None or one.product is None:
        error = None if one.error is None else describe(one.error)
        return {"result": "failed", "product": None, "error": error}
    result = "created" if one.created else "changed" if one.changed else "unchanged"
    return {"result": result, "product": one.product.pk, "error": None}


class ProductsChangeView(_ManyProducts):
    @extend_schema(
        operation_id="products_change_many",
        request=Changes,
        responses={200: _counted("changed")},
    )
    def create(self, request: Request, key: Any) -> Response:
        """Give many products the same category, attributes or activity; all or none."""
        changes = self.read(Changes)
        rows = self.named(changes.pop("products"))
        return Response({"changed": products.change_many(self.catalogue, rows, **changes)})


class ProductsRemoveView(_ManyProducts):
    @extend_schema(
        operation_id="products_remove_many", request=Products, responses={200: _counted("removed")}
    )
    def create(self, request: Request, key: Any) -> Response:
        """Put many products with their images into the trash; all or none."""
        rows = self.named(self.read(Products)["products"])
        return Response({"removed": trash.put(self.catalogue, rows)})


class ProductsMoveView(_ManyProducts):
    @extend_schema(operation_id="products_move", request=Move, responses={200: _counted("moved")})
    def create(self, request: Request, key: Any) -> Response:
        """Move products with their images to another catalogue that you edit; all or none.

        409 when a label or an id is taken there.
        """
        data = self.read(Move)
        user = cast(User, request.user)
        to = catalogues.require(user, data["catalogue"], Role.EDITOR)
        return Response({"moved": product_moving.move(self.named(data["products"]), to)})


class _OneProduct(_ManyProducts):
    def product(self) -> Product:
        product: Product = get_object_or_404(self.catalogue.products, pk=self.kwargs["product"])
        product.catalogue = self.catalogue
        return product


class ProductMergeView(_OneProduct):
    @extend_schema(
        operation_id="products_merge", request=Products, responses={200: ProductSerializer}
    )
    def create(self, request: Request, key: Any, product: int) -> Response:
        """Give this product the images of others, which are gone then: their ids lead here.

        No vector moves, and the very next answer knows. This product keeps its own fields.
        """
        into = product_merging.merge(self.named(self.read(Products)["products"]), self.product())
        return self.answer(self.get_queryset().get(pk=into.pk))


class ProductSplitView(_OneProduct):
    @extend_schema(operation_id="products_split", request=Split, responses={201: ProductSerializer})
    @idempotent
    def create(self, request: Request, key: Any, product: int) -> Response:
        """Make a new product of some images of this one. No vector moves."""
        data, source = self.read(Split), self.product()
        numbers = data.pop("images")
        images = list(source.images.filter(number__in=numbers))
        if missing := set(numbers) - {image.number for image in images}:
            raise BadInput(f"image {min(missing)} is not this product's", field="images")
        made = product_merging.split(source, images, **data)
        return self.answer(self.get_queryset().get(pk=made.pk), 201)


class TrashListView(ListModelMixin, InCatalogue):
    """The products in the trash, newest first. They are purged after `SHITU_TRASH_DAYS`."""

    serializer_class = TrashSerializer
    queryset = Product.objects.none()
    filterset_class = TrashFilter
    ordering_fields = ["removed_at", "label"]
    ordering = ["-removed_at"]
    roles = {"list": Role.EDITOR}

    def get_queryset(self) -> QuerySet[Product]:
        return _counting(Product.everything.in_trash().filter(catalogue=self.catalogue))


class TrashView(_Products):
    sparse = False
    conditional = False
    roles = {"create": Role.EDITOR}

    def removed(self) -> Product:
        rows = Product.everything.in_trash().filter(catalogue=self.catalogue)
        return get_object_or_404(rows, pk=self.kwargs["product"])

    @extend_schema(
        operation_id="trash_restore", request=Restore, responses={200: ProductSerializer}
    )
    def create(self, request: Request, key: Any, product: int) -> Response:
        """Take a product out of the trash as it was, found again at once.

        409 when its label or external id belongs to another by now.
        """
        restored = trash.restore(self.removed(), **self.read(Restore))
        return self.answer(self.get_queryset().get(pk=restored.pk))

    @extend_schema(operation_id="trash_purge", responses={204: None})
    def destroy(self, request: Request, key: Any, product: int) -> Response:
        """Remove a product of the trash for good, with images, vectors and files."""
        trash.purge(self.catalogue, [self.removed()])
        return Response(status=204)
