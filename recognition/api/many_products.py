"""/catalogues/{key}/products: several at once, made, changed, moved, merged and split."""

from __future__ import annotations

from typing import Any, cast

from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema, extend_schema_field, inline_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from recognition.api.base import WriteSerializer
from recognition.api.errors import describe
from recognition.api.idempotency import idempotent
from recognition.api.products import OfProducts, ProductSerializer, ProductWrite
from recognition.errors import BadInput, NotFound
from recognition.gallery_list import MAX_LABEL_LENGTH
from recognition.models import Product, Role, User
from recognition.services import catalogues, product_merging, product_moving, products, trash

MOST_AT_ONCE = 1000
_ID = serializers.IntegerField(min_value=1, max_value=2**63 - 1)


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


def _counted(name: str) -> Any:
    return inline_serializer(f"Products{name.title()}", {name: serializers.IntegerField()})


class _ManyProducts(OfProducts):
    sparse = False
    conditional = False
    roles = {"create": Role.EDITOR}

    def named(self, ids: list[int]) -> list[Product]:
        """The products with these ids. Raises NotFound naming one that the catalogue has not."""
        found = list(self.catalogue.products.filter(pk__in=ids))
        if missing := set(ids) - {product.pk for product in found}:
            raise NotFound(
                _("this catalogue has no product %(id)s") % {"id": min(missing)}, field="products"
            )
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
            raise BadInput(
                _("image %(id)s is not this product's") % {"id": min(missing)}, field="images"
            )
        made = product_merging.split(source, images, **data)
        return self.answer(self.get_queryset().get(pk=made.pk), 201)
