"""What is sent when pictures are added: a form with files, or JSON with base64 and URLs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from django.conf import settings
from django.utils.translation import gettext as _
from rest_framework import serializers

from recognition.api import pictures
from recognition.api.base import Base64Field, BoxField, WriteSerializer, form_json
from recognition.gallery_list import MAX_LABEL_LENGTH
from recognition.services import gallery, gallery_adding


class ImageItem(WriteSerializer):
    label = serializers.CharField(  # type: ignore[assignment]
        max_length=MAX_LABEL_LENGTH, help_text="Of the product."
    )
    image = Base64Field(
        required=False, help_text="The file in base64, with or without `data:...;base64,`."
    )
    url = serializers.CharField(
        required=False, max_length=4096, help_text="Where a worker gets it, instead of `image`."
    )
    name = serializers.CharField(required=False, max_length=255, help_text="Of your file.")
    external_id = serializers.CharField(
        required=False,
        allow_blank=True,
        max_length=gallery.MAX_EXTERNAL_ID,
        help_text="Your own stable id; the image that has it already is replaced.",
    )
    box = BoxField(required=False, allow_null=True, help_text="Where in it the product is.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("image" in attrs) == ("url" in attrs):
            raise serializers.ValidationError(_("give either `image` or `url`"))
        return attrs


class ImagesJson(WriteSerializer):
    """Pictures in base64 or by URL, each with its label."""

    images = ImageItem(  # type: ignore[call-arg]
        many=True,
        allow_empty=False,
        max_length=settings.SHITU_MAX_UPLOAD_FILES + settings.SHITU_MAX_UPLOAD_URLS,
    )

    def validate_images(self, value: list[dict[str, Any]]) -> list[dict[str, Any]]:
        urls = sum("url" in item for item in value)
        for what, count, name in (
            ("URLs", urls, "SHITU_MAX_UPLOAD_URLS"),
            (_("pictures in base64"), len(value) - urls, "SHITU_MAX_UPLOAD_FILES"),
        ):
            most = getattr(settings, name)
            if count > most:
                raise serializers.ValidationError(
                    _(
                        "at most %(most)s %(what)s in one request (%(setting)s); send several "
                        "requests, or one file to /imports"
                    )
                    % {"most": f"{most:,}", "what": what, "setting": name}
                )
        return value


class ImagesForm(WriteSerializer):
    """Files of one product."""

    label = serializers.CharField(  # type: ignore[assignment]
        max_length=MAX_LABEL_LENGTH, help_text="Of the product."
    )
    images = serializers.ListField(
        child=serializers.FileField(allow_empty_file=True),
        allow_empty=False,
        max_length=settings.SHITU_MAX_UPLOAD_FILES,
        help_text="One or many files.",
    )
    external_id = serializers.CharField(
        required=False,
        allow_blank=True,
        max_length=gallery.MAX_EXTERNAL_ID,
        help_text="Your own stable id, of one file; the image that has it already is replaced.",
    )
    box = form_json(
        BoxField(), "JSON `[x1, y1, x2, y2]`: where the product is, in every file.", required=False
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs.get("external_id") and len(attrs["images"]) > 1:
            raise serializers.ValidationError(
                {"external_id": [_("is the id of one file; send several requests, or JSON")]}
            )
        return attrs


def of_form(data: dict[str, Any]) -> list[gallery_adding.Upload]:
    """The files of an `ImagesForm`, each judged when it is its turn."""
    return [
        gallery_adding.Upload(
            data["label"],
            partial(pictures.received, {"image": file}),
            file.name or "",
            data.get("box"),
            data.get("external_id", ""),
        )
        for file in data["images"]
    ]


def of_items(items: Sequence[dict[str, Any]]) -> list[gallery_adding.Upload]:
    """The pictures of an `ImagesJson`, each judged when it is its turn."""
    return [
        gallery_adding.Upload(
            item["label"],
            partial(pictures.received, item),
            item.get("name", ""),
            item.get("box"),
            item.get("external_id", ""),
        )
        for item in items
    ]
