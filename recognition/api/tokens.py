"""/tokens: your own API tokens."""

from __future__ import annotations

from typing import Any, cast

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.mixins import ListModelMixin
from rest_framework.request import Request
from rest_framework.response import Response

from recognition.api.base import ApiView, ReadSerializer, WriteSerializer
from recognition.api.pagination import OnePage
from recognition.errors import BadInput
from recognition.models import ApiToken, Catalogue, Role, User
from recognition.services import catalogues, tokens


class TokenSerializer(ReadSerializer):
    id = serializers.CharField(source="token_key", help_text="The first characters of its text.")
    catalogues = serializers.SerializerMethodField(
        help_text="Keys of the only ones it reaches; empty: all of yours."
    )
    created_at = serializers.DateTimeField(source="created")
    expires_at = serializers.DateTimeField(source="expiry", allow_null=True)

    class Meta:
        model = ApiToken
        fields = ["id", "name", "role", "catalogues", "created_at", "expires_at", "last_used_at"]
        read_only_fields = fields

    @extend_schema_field(serializers.ListField(child=serializers.UUIDField()))
    def get_catalogues(self, token: ApiToken) -> list[str]:
        return [str(catalogue.key) for catalogue in token.catalogues.all()]


class MadeTokenSerializer(TokenSerializer):
    """Its text is in this answer and nowhere else."""

    token = serializers.SerializerMethodField(help_text="Send it as `Authorization: Bearer ...`.")

    class Meta(TokenSerializer.Meta):
        fields = [*TokenSerializer.Meta.fields, "token"]
        read_only_fields = fields

    def get_token(self, token: ApiToken) -> str:
        return str(self.context["text"])


class TokenCreate(WriteSerializer):
    name = serializers.CharField(max_length=100, help_text="For you to tell it from others.")
    role = serializers.ChoiceField(
        choices=Role.choices, default=Role.MANAGER, help_text="The highest it may act with."
    )
    catalogues = serializers.ListField(
        child=serializers.UUIDField(),
        required=False,
        max_length=100,
        help_text="Keys of the only ones it reaches; left out: all of yours.",
    )
    days = serializers.IntegerField(
        min_value=1,
        max_value=tokens.LONGEST_DAYS,
        required=False,
        allow_null=True,
        help_text="Of its life; left out: until revoked.",
    )


class _Tokens(ApiView):
    serializer_class = TokenSerializer
    queryset = ApiToken.objects.none()

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        catalogues.require_unlimited(cast(User, request.user))

    def get_queryset(self) -> QuerySet[ApiToken]:
        mine = ApiToken.objects.filter(user=cast(User, self.request.user))
        return mine.prefetch_related("catalogues").order_by("-created")


class TokenListView(ListModelMixin, _Tokens):
    """Your API tokens, newest first; not their texts, which are stored nowhere."""

    pagination_class = OnePage
    filter_backends = []

    @extend_schema(
        operation_id="tokens_create", request=TokenCreate, responses={201: MadeTokenSerializer}
    )
    def create(self, request: Request) -> Response:
        """Make a token. Its text is in this answer and never shown again.

        One made with a token that expires does not outlive it.
        """
        data = self.read(TokenCreate)
        user = cast(User, request.user)
        keys = data.pop("catalogues", [])
        only = list(Catalogue.objects.visible_to(user).filter(key__in=keys))
        if missing := set(keys) - {catalogue.key for catalogue in only}:
            raise BadInput(
                _("there is no catalogue %(key)s among those you may see") % {"key": min(missing)},
                field="catalogues",
            )
        made, text = tokens.create(user, catalogues=only, **data)
        context = {**self.get_serializer_context(), "text": text}
        return Response(MadeTokenSerializer(made, context=context).data, status=201)


class TokenView(_Tokens):
    @extend_schema(operation_id="tokens_revoke", responses={204: None})
    def destroy(self, request: Request, token: str) -> Response:
        """Revoke a token; it opens nothing from now on."""
        tokens.revoke(get_object_or_404(self.get_queryset(), token_key=token))
        return Response(status=204)
