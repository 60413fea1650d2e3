"""/catalogues/{key}/images: reference pictures, in, out and looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import django_filters
from django import forms
from django.db.models import BigIntegerField, QuerySet
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.mixins import ListModelMixin
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from recognition.api import pictures, uploads
from recognition.api.base import BoxField, ReadSerializer, UploadView, WriteSerializer
from recognition.api.errors import describe, status_of
from recognition.api.filters import MomentFilter
from recognition.api.idempotency import idempotent
from recognition.api.jobs import JobSerializer
from recognition.api.permissions import InCatalogue
from recognition.api.schema import location
from recognition.errors import RecognitionError
from recognition.gallery_list import MAX_LABEL_LENGTH
from recognition.models import GalleryImage, Product, Role, State, User
from recognition.services import gallery, gallery_adding, imports, products
from recognition.services import pictures as looks

THUMBNAIL_SIDES = (96, 256, 512)


class ImageSerializer(ReadSerializer):
    label = serializers.CharField(  # type: ignore[assignment]
        source="product.label"
    )
    product = serializers.IntegerField(source="product_id")
    box = BoxField(allow_null=True)
    picture = serializers.SerializerMethodField()
    thumbnail = serializers.SerializerMethodField()

    class Meta:
        model = GalleryImage
        fields = [
            "number",
            "external_id",
            "product",
            "label",
            "state",
            "error",
            "box",
            "box_source",
            "source_name",
            "checksum",
            "width",
            "height",
            "byte_size",
            "created_at",
            "picture",
            "thumbnail",
        ]
        read_only_fields = fields

    def get_picture(self, image: GalleryImage) -> str:
        return self._address("api:image-picture", image)

    def get_thumbnail(self, image: GalleryImage) -> str:
        return self._address("api:image-thumbnail", image)

    def _address(self, route: str, image: GalleryImage) -> str:
        # The gate found the catalogue already; asking each row for it would be a query a row.
        key = self.context["view"].catalogue.key
        return reverse(route, [key, image.number], request=self.context["request"])


Uploaded = inline_serializer(
    "Uploaded",
    {
        "added": serializers.IntegerField(),
        "duplicates": serializers.IntegerField(help_text="Its product had the same file before."),
        "failed": serializers.IntegerField(),
        "results": inline_serializer(
            "UploadResult",
            {
                "result": serializers.ChoiceField(["added", "duplicate", "failed"]),
                "image": ImageSerializer(allow_null=True),
                "duplicate_of": serializers.IntegerField(
                    allow_null=True, help_text="Number of an image with the same bytes."
                ),
                "replaced": serializers.BooleanField(
                    help_text="Of the image that had the same external_id."
                ),
                "changed": serializers.ListField(
                    child=serializers.ChoiceField(["product", "external_id", "box", "file"]),
                    help_text="What an image that was there already has from this request; `file` "
                    "where its own was missing.",
                ),
                "error": inline_serializer(
                    "UploadError",
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


class Target(WriteSerializer):
    """The product an image is given to: by its label, which makes it if need be, or by its id."""

    label = serializers.CharField(  # type: ignore[assignment]
        max_length=MAX_LABEL_LENGTH,
        required=False,
        help_text="Of the product it belongs to; made if there is none.",
    )
    product = serializers.IntegerField(
        min_value=1, max_value=2**63 - 1, required=False, help_text="Its id, instead of `label`."
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "label" in attrs and "product" in attrs:
            raise serializers.ValidationError(_("give either `label` or `product`"))
        return attrs


class ImageChange(Target):
    external_id = serializers.CharField(
        required=False,
        allow_blank=True,
        max_length=gallery.MAX_EXTERNAL_ID,
        help_text="Your own stable id.",
    )
    box = BoxField(
        required=False,
        allow_null=True,
        help_text="Where in it the product is; null: leave it to the detector. Embeds it anew.",
    )


class NumbersFilter(django_filters.BaseInFilter):
    field_class = forms.IntegerField

    def __init__(self, **options: Any) -> None:
        super().__init__(min_value=0, max_value=BigIntegerField.MAX_BIGINT, **options)


class ImageFilter(django_filters.FilterSet):
    state = django_filters.MultipleChoiceFilter(choices=State.choices)
    product = django_filters.NumberFilter(field_name="product_id", label="Id of the product.")
    label = django_filters.CharFilter(field_name="product__label", label="The whole label.")
    external_id = django_filters.CharFilter(label="Your own id of it.")
    checksum = django_filters.CharFilter(label="SHA-256 of the file sent.")
    number = NumbersFilter(label="One or more numbers, with commas between them.")
    created_after = MomentFilter(
        field_name="created_at", lookup_expr="gte", label="Added then or later (ISO 8601)."
    )
    created_before = MomentFilter(
        field_name="created_at", lookup_expr="lt", label="Added before (ISO 8601)."
    )

    class Meta:
        model = GalleryImage
        fields = ["state", "checksum"]


class OfImages(InCatalogue):
    """What the views of images share."""

    serializer_class = ImageSerializer
    queryset = GalleryImage.objects.none()

    def get_queryset(self) -> QuerySet[GalleryImage]:
        return self.catalogue.images.select_related("product")

    def image(self) -> GalleryImage:
        return get_object_or_404(self.get_queryset(), number=self.kwargs["number"])

    def product(self, pk: int) -> Product:
        """A product that a body names. Raises NotFound."""
        product = products.find(self.catalogue, pk)
        product.catalogue = self.catalogue
        return product


class ImageListView(ListModelMixin, OfImages, UploadView):
    """The gallery images of a catalogue, newest first."""

    filterset_class = ImageFilter
    ordering_fields = ["number", "created_at"]
    ordering = ["-number"]
    roles = {"create": Role.EDITOR}

    @extend_schema(
        operation_id="images_add",
        parameters=[location(202, description="The job's url.")],
        request={"multipart/form-data": uploads.ImagesForm, "application/json": uploads.ImagesJson},
        responses={201: Uploaded, 200: Uploaded, 202: JobSerializer},
    )
    @idempotent
    def create(self, request: Request, key: Any) -> Response:
        """Add pictures; what became of each is in `results`, in the order sent.

        201 when at least one was added, 200 when all were there already. One that was there already
        takes over the box, and an `external_id` where it had none. A picture that is refused does
        not stop the others; when every one is, the answer is an error.

        With a URL among them, 202 and a job: a worker fetches and adds them, those in base64 in
        their turn, and line n of its report says what became of the n-th.
        """
        by = cast(User, request.user)
        items = [] if self.is_form else self.read(uploads.ImagesJson)["images"]
        if any("url" in item for item in items):
            job = imports.start_items(self.catalogue, items, by=by)
            shown = JobSerializer(job, context=self.get_serializer_context()).data
            return Response(shown, status=202, headers={"Location": shown["url"]})
        new = (
            uploads.of_form(self.read(uploads.ImagesForm))
            if self.is_form
            else uploads.of_items(items)
        )
        became = gallery_adding.add_each(self.catalogue, new, by=by)
        _raise_if_all_failed(became)
        results = [self._result(one) for one in became]
        counts = {
            name: sum(result["result"] == name for result in results)
            for name in ("added", "duplicate", "failed")
        }
        return Response(
            {
                "added": counts["added"],
                "duplicates": counts["duplicate"],
                "failed": counts["failed"],
                "results": results,
            },
            status=201 if counts["added"] else 200,
        )

    def _result(self, became: gallery_adding.Added | RecognitionError) -> dict[str, Any]:
        if isinstance(became, RecognitionError):
            return {
                "result": "failed",
                "image": None,
                "duplicate_of": None,
                "replaced": False,
                "changed": [],
                "error": describe(became),
            }
        shown = ImageSerializer(became.image, context=self.get_serializer_context()).data
        result = "added" if became.created else "duplicate"
        return {
            "result": result,
            "image": shown,
            "duplicate_of": became.duplicate_of.number if became.duplicate_of else None,
            "replaced": became.replaced,
            "changed": list(became.changes),
            "error": None,
        }


class ImageView(OfImages):
    roles = {"partial_update": Role.EDITOR, "destroy": Role.EDITOR}

    @extend_schema(operation_id="images_retrieve")
    def retrieve(self, request: Request, key: Any, number: int) -> Response:
        """One gallery image, by its number (PaddleX's vector id)."""
        return Response(self.get_serializer(self.image()).data)

    @extend_schema(operation_id="images_change", request=ImageChange)
    def partial_update(self, request: Request, key: Any, number: int) -> Response:
        """Give an image to another product, another id, another box; all of it or nothing.

        A new product is in the very next answer and moves no vector. After a new box the old vector
        answers until the image is embedded anew.
        """
        changes = self.read(ImageChange, partial=True)
        if "product" in changes:
            changes["product"] = self.product(changes["product"])
        image = self.image()
        image.catalogue = self.catalogue
        changed = gallery.change_image(image, **changes)
        return Response(self.get_serializer(changed).data)

    @extend_schema(operation_id="images_remove", responses={204: None})
    def destroy(self, request: Request, key: Any, number: int) -> Response:
        """Remove an image; it is gone from the very next answer."""
        gallery.remove_images(self.catalogue, [self.image()])
        return Response(status=204)


class ImagePictureView(OfImages):
    sparse = False

    @extend_schema(operation_id="images_picture", responses=pictures.PICTURE)
    def retrieve(self, request: Request, key: Any, number: int) -> HttpResponseBase:
        """The picture as it is stored: upright, JPEG, PNG or WebP."""
        return pictures.stored(request, str(self.image().file.name))


class ImageThumbnailView(OfImages):
    sparse = False

    @extend_schema(
        operation_id="images_thumbnail",
        parameters=[
            OpenApiParameter(
                "side", int, enum=THUMBNAIL_SIDES, default=256, description="Longest side, pixels."
            )
        ],
        responses={(200, "image/jpeg"): OpenApiTypes.BINARY},
    )
    def retrieve(self, request: Request, key: Any, number: int) -> HttpResponseBase:
        """A small JPEG of it."""
        side = request.query_params.get("side", "256")
        if side not in map(str, THUMBNAIL_SIDES):
            said = _("must be one of %(known)s") % {"known": ", ".join(map(str, THUMBNAIL_SIDES))}
            raise serializers.ValidationError({"side": [said]})
        name = str(self.image().file.name)
        return pictures.made(request, name, side, lambda: looks.thumbnail(name, int(side)))


def _raise_if_all_failed(became: Sequence[gallery_adding.Added | RecognitionError]) -> None:
    failed = [one for one in became if isinstance(one, RecognitionError)]
    if len(failed) < len(became):
        return
    statuses = {status_of(error) for error in failed}
    if len(failed) == 1 or (len(statuses) == 1 and 400 not in statuses):
        raise failed[0]  # what all of them met, and when to come back
    raise serializers.ValidationError(
        {"images": {str(position): [error.message] for position, error in enumerate(failed)}}
    )
