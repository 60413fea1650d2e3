"""/catalogues/{key}/images/{number}/similar: more like this."""

from __future__ import annotations

from typing import Any

from django.http import QueryDict
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse
from rest_framework.utils.urls import replace_query_param

from recognition.api.narrowing import read_conditions
from recognition.api.permissions import InCatalogue
from recognition.api.questions import MOST_CATALOGUES, several
from recognition.api.schema import Error
from recognition.models import GalleryImage
from recognition.models.product import MAX_LIST
from recognition.services import similar

LIMIT, MOST_LIMIT = 20, 100


class SimilarQuery(serializers.Serializer[Any]):
    """What may stand in the address."""

    limit = serializers.IntegerField(
        min_value=1, max_value=MOST_LIMIT, default=LIMIT, help_text="Results on a page."
    )
    offset = serializers.IntegerField(
        min_value=0, max_value=similar.MOST - MOST_LIMIT, default=0, help_text="Results before it."
    )
    per_product = serializers.BooleanField(
        default=True, help_text="Other products, each once; false: other images."
    )
    category = serializers.ListField(
        child=serializers.CharField(max_length=255),
        required=False,
        max_length=MAX_LIST,
        help_text="With everything below it; may be repeated.",
    )
    attributes = serializers.CharField(
        required=False,
        help_text='JSON `[{"name": "ml", "operator": ">=", "value": 500}]`, as for products.',
    )
    catalogue = serializers.ListField(
        child=serializers.UUIDField(),
        required=False,
        max_length=MOST_CATALOGUES,
        help_text="Key of another to search in as well; may be repeated.",
    )


Page = inline_serializer(
    "SimilarPage",
    {
        "next": serializers.URLField(allow_null=True),
        "previous": serializers.URLField(allow_null=True),
        "results": inline_serializer(
            "Similar",
            {
                "label": serializers.CharField(),
                "score": serializers.FloatField(help_text="In the catalogue's metric."),
                "catalogue": serializers.UUIDField(help_text="Key of its catalogue."),
                "product": serializers.IntegerField(help_text="Its id."),
                "image": serializers.IntegerField(help_text="Number of the image that is near."),
                "image_url": serializers.URLField(),
            },
            many=True,
        ),
    },
)


class SimilarView(InCatalogue):
    sparse = False

    @extend_schema(
        operation_id="images_similar", parameters=[SimilarQuery], responses={200: Page, 409: Error}
    )
    def retrieve(self, request: Request, key: Any, number: int) -> Response:
        """What looks most like a gallery image, nearest first; answered at once, by no worker.

        409 as long as the image has no vector.
        """
        image: GalleryImage = get_object_or_404(self.catalogue.images, number=number)
        image.catalogue = self.catalogue
        asked = self._asked(request.query_params)
        start, limit = asked["offset"], asked["limit"]
        found = similar.find(
            image,
            limit=start + limit + 1,
            per_product=asked["per_product"],
            among={
                "categories": asked.get("category", ()),
                "attributes": read_conditions(asked["attributes"]) if "attributes" in asked else (),
            },
            also=several(request, asked.get("catalogue", ()), field="catalogue"),
        )
        more = len(found) > start + limit and start + limit <= similar.MOST - MOST_LIMIT
        return Response(
            {
                "next": self._page(start + limit) if more else None,
                "previous": self._page(max(0, start - limit)) if start else None,
                "results": [self._shown(one) for one in found[start : start + limit]],
            }
        )

    def _asked(self, params: QueryDict) -> dict[str, Any]:
        checked = SimilarQuery(data=params)
        checked.is_valid(raise_exception=True)
        return dict(checked.validated_data)

    def _page(self, offset: int) -> str:
        return replace_query_param(self.request.build_absolute_uri(), "offset", offset)

    def _shown(self, one: similar.Similar) -> dict[str, Any]:
        where = [one.catalogue.key, one.number]
        return {
            "label": one.label,
            "score": one.score,
            "catalogue": str(one.catalogue.key),
            "product": one.product_id,
            "image": one.number,
            "image_url": reverse("api:image-thumbnail", where, request=self.request),
        }
