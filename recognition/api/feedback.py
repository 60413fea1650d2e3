"""What operators say about an answer: /recognitions/{key}/detections/{position}/feedback."""

from __future__ import annotations

from typing import Any, cast
from uuid import UUID

from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from recognition.api.base import ApiView, RowSerializer, WriteSerializer
from recognition.models import Feedback, RecognitionQuery, Role, User, Verdict
from recognition.services import catalogues, feedback


class FeedbackSerializer(RowSerializer):
    """The last word about a region; what was said before is in the audit log."""

    product = serializers.SerializerMethodField(
        help_text="What it shows; null for `unknown`, and once that product was removed."
    )
    label = serializers.CharField(  # type: ignore[assignment]
        help_text="What that product was called at that moment; empty for `unknown`."
    )
    given_by = serializers.CharField(source="given_by.username", default=None, allow_null=True)

    class Meta:
        model = Feedback
        fields = ["verdict", "product", "label", "given_by", "given_at"]
        read_only_fields = fields

    def get_product(self, row: Feedback) -> int | None:
        return None if row.product is None else row.product.now_id


class FeedbackJson(WriteSerializer):
    verdict = serializers.ChoiceField(
        Verdict.choices,
        help_text="`confirmed`: the first proposal is right; `corrected`: it is `product`; "
        "`unknown`: it is none of the products.",
    )
    product = serializers.IntegerField(
        required=False,
        allow_null=True,
        help_text="Id of the right product, in one of the catalogues that were asked.",
    )


class FeedbackView(ApiView):
    serializer_class = FeedbackSerializer
    queryset = RecognitionQuery.objects.none()
    sparse = False

    @extend_schema(operation_id="feedback_give", request=FeedbackJson)
    def update(self, request: Request, key: UUID, position: int) -> Response:
        """Say what a region of an answer shows. The last word counts.

        `position` is its place in `detections`, 0 for the first. Naming the product that was
        proposed first is confirming it. 409 before there is an answer, and when what is confirmed
        was never proposed, or is removed.
        """
        query, by = self._query(), cast(User, request.user)
        data = self.read(FeedbackJson)
        given = feedback.give(
            query, position, Verdict(data["verdict"]), product=data.get("product"), by=by
        )
        return Response(self.get_serializer(given).data)

    @extend_schema(operation_id="feedback_withdraw", responses={204: None})
    def destroy(self, request: Request, key: UUID, position: int) -> Response:
        """Take back what was said about a region, if anything was."""
        feedback.withdraw(self._query(), position, by=cast(User, request.user))
        return Response(status=204)

    def _query(self) -> RecognitionQuery:
        """The question, which the user sees, in whose catalogue they may give feedback."""
        rows: Any = RecognitionQuery.objects.visible_to(self.request.user)
        query = get_object_or_404(rows.select_related("catalogue"), key=self.kwargs["key"])
        catalogues.require_role(self.request.user, query.catalogue, Role.OPERATOR)
        return query
