"""/catalogues/{key}/images: several at once, removed, moved and tried again."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from recognition.api.base import WriteSerializer
from recognition.api.images import OfImages, Target
from recognition.api.permissions import InCatalogue
from recognition.models import Role, State
from recognition.services import gallery, gallery_embedding

Removed = inline_serializer(
    "Removed",
    {
        "removed": serializers.IntegerField(),
        "unknown": serializers.ListField(child=serializers.IntegerField()),
    },
)
Retried = inline_serializer("Retried", {"retried": serializers.IntegerField()})


class Numbers(WriteSerializer):
    numbers = serializers.ListField(
        child=serializers.IntegerField(min_value=0, max_value=2**63 - 1),
        allow_empty=False,
        max_length=1000,
    )


class ImagesMove(Target, Numbers):
    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "label" not in attrs and "product" not in attrs:
            raise serializers.ValidationError(_("give `label` or `product`"))
        return super().validate(attrs)


Moved = inline_serializer(
    "Moved",
    {
        "moved": serializers.IntegerField(
            help_text="Not counted: what the product has had before. Such doubles are removed."
        ),
        "unknown": serializers.ListField(child=serializers.IntegerField()),
    },
)


class MaybeNumbers(Numbers):
    """Left out: all that failed."""

    numbers = serializers.ListField(
        child=serializers.IntegerField(min_value=0, max_value=2**63 - 1),
        required=False,
        max_length=1000,
    )


class ImagesRemoveView(InCatalogue):
    sparse = False
    roles = {"create": Role.EDITOR}

    @extend_schema(
        operation_id="images_remove_many",
        request=Numbers,
        responses={200: Removed},
    )
    def create(self, request: Request, key: Any) -> Response:
        """Remove many images at once; numbers that the catalogue does not have are listed."""
        numbers = self.read(Numbers)["numbers"]
        removed, unknown = gallery.remove_numbers(self.catalogue, numbers)
        return Response({"removed": removed, "unknown": unknown})


class ImagesMoveView(OfImages):
    sparse = False
    roles = {"create": Role.EDITOR}

    @extend_schema(operation_id="images_move", request=ImagesMove, responses={200: Moved})
    def create(self, request: Request, key: Any) -> Response:
        """Give many images to another product. No vector moves; the very next answer knows."""
        data = self.read(ImagesMove)
        images = list(self.catalogue.images.filter(number__in=data["numbers"]))
        if "product" in data:
            moved = gallery.move_images(images, self.product(data["product"]))
        else:
            moved = gallery.relabel(self.catalogue, images, data["label"])
        known = {image.number for image in images}
        unknown = [number for number in dict.fromkeys(data["numbers"]) if number not in known]
        return Response({"moved": moved, "unknown": unknown})


class ImagesRetryView(InCatalogue):
    sparse = False
    roles = {"create": Role.EDITOR}

    @extend_schema(
        operation_id="images_retry",
        request=MaybeNumbers,
        responses={200: Retried},
    )
    def create(self, request: Request, key: Any) -> Response:
        """Try failed images again: those named, or all."""
        images = self.catalogue.images.filter(state=State.FAILED)
        if (numbers := self.read(MaybeNumbers).get("numbers")) is not None:
            images = images.filter(number__in=numbers)
        return Response({"retried": gallery_embedding.retry(images)})
