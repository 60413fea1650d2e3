"""/catalogues/{key}/trash: products that were removed, until they are purged."""

from __future__ import annotations

from typing import Any

import django_filters
from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.mixins import ListModelMixin
from rest_framework.request import Request
from rest_framework.response import Response

from recognition.api.base import ReadSerializer, WriteSerializer
from recognition.api.permissions import InCatalogue
from recognition.api.products import OfProducts, ProductSerializer
from recognition.gallery_list import MAX_LABEL_LENGTH
from recognition.models import Product, Role
from recognition.services import trash


class Restore(WriteSerializer):
    label = serializers.CharField(  # type: ignore[assignment]
        max_length=MAX_LABEL_LENGTH,
        required=False,
        help_text="Another label, where the old one is taken by now.",
    )


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


class TrashListView(ListModelMixin, InCatalogue):
    """The products in the trash, newest first. They are purged after `SHITU_TRASH_DAYS`."""

    serializer_class = TrashSerializer
    queryset = Product.objects.none()
    filterset_class = TrashFilter
    ordering_fields = ["removed_at", "label"]
    ordering = ["-removed_at"]
    roles = {"list": Role.EDITOR}

    def get_queryset(self) -> QuerySet[Product]:
        return Product.everything.in_trash().filter(catalogue=self.catalogue).with_image_count()


class TrashView(OfProducts):
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
