"""/catalogues/{key}/index: how its vectors are searched, and how well."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, cast

from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from recognition.api.base import Number, WriteSerializer
from recognition.api.jobs import JobSerializer
from recognition.api.narrowing import read_conditions
from recognition.api.permissions import InCatalogue
from recognition.api.schema import Error, location
from recognition.models import GalleryImage, IndexState, IndexType, Metric, User
from recognition.models.product import MAX_LIST
from recognition.services import index_jobs, indexes, queries


class IndexChange(WriteSerializer):
    """What is left out stays as it is."""

    metric = serializers.ChoiceField(
        choices=Metric.choices,
        required=False,
        help_text="The threshold is translated, so the answers stay the same.",
    )
    type = serializers.ChoiceField(choices=IndexType.choices, required=False)
    m = serializers.IntegerField(
        min_value=2, max_value=100, required=False, help_text="HNSW: links per vector and layer."
    )
    ef_construction = serializers.IntegerField(
        min_value=4,
        max_value=1000,
        required=False,
        help_text="HNSW: candidates looked at while building; at least twice m.",
    )
    lists = serializers.IntegerField(
        min_value=1, max_value=32768, required=False, help_text="IVF: number of lists."
    )
    recall_target = Number(
        min_value=0.5,
        max_value=1,
        required=False,
        help_text="Where a sample finds less of the exact answer, it is searched wider.",
    )


Index = inline_serializer(
    "Index",
    {
        "feature_model": serializers.CharField(),
        "dimension": serializers.IntegerField(),
        "metric": serializers.ChoiceField(choices=Metric.choices),
        "type": serializers.ChoiceField(choices=IndexType.choices),
        "parameters": serializers.DictField(help_text="Wanted, and how wide it is searched."),
        "state": serializers.ChoiceField(choices=IndexState.choices),
        "built_with": serializers.DictField(
            help_text="Of the index in use; empty: every answer is exact."
        ),
        "build_error": serializers.CharField(),
        "progress": inline_serializer(
            "IndexProgress",
            {"phase": serializers.CharField(), "share": serializers.FloatField()},
            allow_null=True,
        ),
        "vectors": serializers.IntegerField(),
        "images": serializers.IntegerField(help_text="With a vector."),
        "products": serializers.IntegerField(help_text="With a vector."),
        "vector_bytes": serializers.IntegerField(),
        "index_bytes": serializers.IntegerField(),
        "recall_target": serializers.FloatField(),
        "recall": serializers.FloatField(allow_null=True, help_text="null: not measured yet"),
        "recall_measured_at": serializers.DateTimeField(allow_null=True),
        "indexed_ms": serializers.FloatField(allow_null=True, help_text="Median of the sample."),
        "exact_ms": serializers.FloatField(allow_null=True, help_text="Median of the sample."),
        "version": serializers.IntegerField(help_text="Of the catalogue."),
    },
)


class IndexView(InCatalogue):
    sparse = False

    @extend_schema(operation_id="index_retrieve", responses=Index)
    def retrieve(self, request: Request, key: Any) -> Response:
        """The index that answers: counted now; recall as it was measured last."""
        return self._shown()

    @extend_schema(operation_id="index_change", request=IndexChange, responses=Index)
    def partial_update(self, request: Request, key: Any) -> Response:
        """Choose metric, type and parameters.

        The metric is in the very next answer; the rest is built within a minute or by `rebuild`,
        and until then the index that is there answers.
        """
        changes = self.read(IndexChange, partial=True)
        if "type" in changes:
            changes["index_type"] = changes.pop("type")
        self.catalogue.index = index_jobs.change(self.catalogue, **changes)
        return self._shown()

    def _shown(self) -> Response:
        found = asdict(indexes.statistics_of(self.catalogue.require_index()))
        for name in ("space_id", "current"):
            del found[name]
        return Response({"type": found.pop("index_type"), **found})


class IndexRebuildView(InCatalogue):
    sparse = False

    @extend_schema(
        operation_id="index_rebuild",
        request=None,
        parameters=[location(201)],
        responses={201: JobSerializer},
    )
    def create(self, request: Request, key: Any) -> Response:
        """Build the index anew beside the old one, as a job; the old one answers meanwhile.

        A catalogue too small for an index stays without one. An unfinished rebuild is answered
        again instead of started twice.
        """
        job = index_jobs.start_rebuild(self.catalogue, by=cast(User, request.user))
        shown = JobSerializer(job, context=self.get_serializer_context()).data
        where = reverse("api:job", [self.catalogue.key, job.key], request=request)
        return Response(shown, status=201, headers={"Location": where})


class ExplainQuery(serializers.Serializer[Any]):
    """What may stand in the address."""

    image = serializers.IntegerField(
        min_value=0, max_value=2**63 - 1, help_text="Number of the image to ask about."
    )
    limit = serializers.IntegerField(min_value=1, max_value=queries.MOST_TOP_K, default=5)
    per_product = serializers.BooleanField(default=True)
    exact = serializers.BooleanField(default=False, help_text="Without the index.")
    category = serializers.ListField(
        child=serializers.CharField(max_length=255), required=False, max_length=MAX_LIST
    )
    attributes = serializers.CharField(
        required=False,
        help_text='JSON `[{"name": "ml", "operator": ">=", "value": 500}]`, as for products.',
    )


Explained = inline_serializer(
    "Explained", {"lines": serializers.ListField(child=serializers.CharField())}
)


class IndexExplainView(InCatalogue):
    sparse = False

    @extend_schema(
        operation_id="index_explain",
        parameters=[ExplainQuery],
        responses={200: Explained, 409: Error},
    )
    def retrieve(self, request: Request, key: Any) -> Response:
        """How PostgreSQL finds the neighbours of a gallery image: the plan it ran, with times."""
        asked = ExplainQuery(data=request.query_params)
        asked.is_valid(raise_exception=True)
        data = asked.validated_data
        image: GalleryImage = get_object_or_404(self.catalogue.images, number=data["image"])
        image.catalogue = self.catalogue
        lines = index_jobs.explain(
            image,
            limit=data["limit"],
            per_product=data["per_product"],
            exact=data["exact"],
            among={
                "categories": data.get("category", ()),
                "attributes": read_conditions(data["attributes"]) if "attributes" in data else (),
            },
        )
        return Response({"lines": lines})
