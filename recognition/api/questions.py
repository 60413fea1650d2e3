"""What a question may say: the bodies it comes in, and how long to wait for the answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.conf import settings
from django.utils.translation import gettext as _
from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers
from rest_framework.request import Request

from recognition.api.base import Base64Field, BoxField, Number, WriteSerializer, form_json
from recognition.api.narrowing import Among
from recognition.errors import BadInput
from recognition.models import Catalogue
from recognition.services import queries

MAX_BOXES = 300
MOST_CATALOGUES = 20


class _Options(WriteSerializer):
    det_threshold = Number(min_value=0, max_value=1, required=False, allow_null=True)
    rec_threshold = Number(
        min_value=-1,
        max_value=4,
        required=False,
        allow_null=True,
        help_text="In the catalogue's metric.",
    )
    top_k = serializers.IntegerField(
        min_value=1, max_value=queries.MOST_TOP_K, required=False, allow_null=True
    )
    per_product = serializers.BooleanField(
        default=True, help_text="One entry per product; false: every reference image."
    )
    catalogues = serializers.ListField(
        child=serializers.UUIDField(),
        required=False,
        max_length=MOST_CATALOGUES,
        help_text="Keys of others to search in as well; all use the same feature model.",
    )


class AskJson(_Options):
    """A picture in base64 or by URL. What is left out is the catalogue's own setting."""

    image = Base64Field(
        required=False, help_text="The file in base64, with or without `data:...;base64,`."
    )
    url = serializers.CharField(
        required=False, max_length=4096, help_text="Where to get it, instead of `image`."
    )
    name = serializers.CharField(required=False, max_length=255, help_text="Of your file.")
    boxes = serializers.ListField(
        child=BoxField(),
        required=False,
        allow_null=True,
        max_length=MAX_BOXES,
        help_text="What to recognise, instead of detecting; empty: the whole picture.",
    )
    among = Among(required=False, allow_null=True)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("image" in attrs) == ("url" in attrs):
            raise serializers.ValidationError(_("give either `image` or `url`"))
        return attrs


class AskForm(_Options):
    """A picture as a file. What is left out is the catalogue's own setting."""

    image = serializers.FileField(allow_empty_file=True)
    boxes = form_json(
        serializers.ListField(child=BoxField(), max_length=MAX_BOXES),
        "JSON `[[x1, y1, x2, y2], ...]`: what to recognise, instead of detecting.",
        required=False,
    )
    among = form_json(
        Among(), "JSON: which products may be an answer, as in a JSON body.", required=False
    )


WAIT = OpenApiParameter(
    "wait",
    {"type": "number", "minimum": 0},
    description="Seconds to wait for the answer, at most SHITU_ANSWER_TIMEOUT of the site.",
)


def seconds_to_wait(request: Request) -> float:
    """`?wait=`, 0 unless given; raises ValidationError for what is no number of seconds."""
    text = request.query_params.get("wait", "0")
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise serializers.ValidationError({"wait": [_("must be a number of seconds, 0 or more")]})
    return min(seconds, settings.SHITU_ANSWER_TIMEOUT)


class Shown(serializers.Serializer[Any]):
    """What an address may say about the answers that it shows."""

    details = serializers.BooleanField(
        default=False, help_text="Whether matches bring what a till needs of their product."
    )


def with_details(request: Request) -> bool:
    """`?details=`; raises ValidationError for what is neither true nor false."""
    checked = Shown(data=request.query_params)
    checked.is_valid(raise_exception=True)
    return bool(checked.validated_data["details"])


def several(
    request: Request, keys: Sequence[UUID], *, field: str = "catalogues"
) -> list[Catalogue]:
    """The catalogues with these keys. Raises BadInput for one that the user may not see."""
    if not keys:
        return []
    rows = Catalogue.objects.visible_to(request.user).select_related("index")
    found = list(rows.filter(key__in=keys))
    if missing := set(keys) - {catalogue.key for catalogue in found}:
        raise BadInput(
            _("there is no catalogue %(key)s among those you may see") % {"key": min(missing)},
            field=field,
        )
    return found
