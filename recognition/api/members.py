"""/catalogues/{key}/members and /invitations: who belongs to a catalogue."""

from __future__ import annotations

from typing import Any, cast

import django_filters
from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from django.urls import reverse
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.mixins import ListModelMixin
from rest_framework.request import Request
from rest_framework.response import Response

from recognition import links
from recognition.api.base import ApiView, ReadSerializer, RowSerializer, WriteSerializer
from recognition.api.idempotency import idempotent
from recognition.api.permissions import InCatalogue
from recognition.models import Invitation, Membership, Role, User
from recognition.services import catalogues, members


class MemberSerializer(ReadSerializer):
    user = serializers.CharField(source="user.username")

    class Meta:
        model = Membership
        fields = ["id", "user", "role", "created_at"]
        read_only_fields = fields


class MemberAdd(WriteSerializer):
    user = serializers.CharField(
        max_length=150, help_text="User name of somebody in one of your catalogues."
    )
    role = serializers.ChoiceField(choices=Role.choices)


class MemberChange(WriteSerializer):
    role = serializers.ChoiceField(choices=Role.choices)


class InvitationSerializer(ReadSerializer):
    """Somebody who was asked by e-mail to join; the link itself is only in that e-mail."""

    invited_by = serializers.CharField(source="invited_by.username", default=None, allow_null=True)
    accepted_by = serializers.CharField(
        source="accepted_by.username", default=None, allow_null=True
    )

    class Meta:
        model = Invitation
        fields = [
            "id",
            "email",
            "role",
            "invited_by",
            "created_at",
            "expires_at",
            "accepted_at",
            "accepted_by",
        ]
        read_only_fields = fields


class Invite(WriteSerializer):
    email = serializers.EmailField(max_length=254)
    role = serializers.ChoiceField(choices=Role.choices, default=Role.VIEWER)


class OfferedSerializer(RowSerializer):
    """What somebody is invited to."""

    catalogue = serializers.CharField(source="catalogue.name", help_text="Its name.")
    invited_by = serializers.CharField(source="invited_by.username", default=None, allow_null=True)

    class Meta:
        model = Invitation
        fields = ["catalogue", "role", "invited_by", "expires_at"]
        read_only_fields = fields


class AcceptedSerializer(RowSerializer):
    catalogue = serializers.UUIDField(source="catalogue.key", help_text="Its key.")

    class Meta:
        model = Membership
        fields = ["catalogue", "role"]
        read_only_fields = fields


class MemberFilter(django_filters.FilterSet):
    role = django_filters.MultipleChoiceFilter(choices=Role.choices)
    user = django_filters.CharFilter(field_name="user__username", label="The whole name.")

    class Meta:
        model = Membership
        fields = ["role"]


class _Members(InCatalogue):
    serializer_class = MemberSerializer
    queryset = Membership.objects.none()

    def get_queryset(self) -> QuerySet[Membership]:
        return self.catalogue.memberships.select_related("user")

    def member(self) -> Membership:
        found = get_object_or_404(self.get_queryset(), pk=self.kwargs["member"])
        found.catalogue = self.catalogue
        return found


class MemberListView(ListModelMixin, _Members):
    """The members of a catalogue and their roles."""

    filterset_class = MemberFilter
    ordering_fields = ["created_at"]
    ordering = ["pk"]

    @extend_schema(operation_id="members_add", request=MemberAdd, responses={201: MemberSerializer})
    @idempotent
    def create(self, request: Request, key: Any) -> Response:
        """Make somebody a member who is in another of your catalogues; invite everybody else.

        Whether somebody else of that name has an account is not told. 409 for a member.
        """
        data = self.read(MemberAdd)
        by = cast(User, request.user)
        made = members.add_named(self.catalogue, data["user"], data["role"], by=by)
        return Response(self.get_serializer(made).data, status=201)


class MemberView(_Members):
    def needed_role(self) -> Role:
        """Manager, but everybody may leave; not by way of a token that may do less than they."""
        user = self.request.user
        if self.action == "destroy" and isinstance(user, User) and user.token is None:
            own = Membership.objects.filter(pk=self.kwargs["member"], user=user)
            if own.exists():
                return Role.VIEWER
        return super().needed_role()

    @extend_schema(operation_id="members_change", request=MemberChange)
    def partial_update(self, request: Request, key: Any, member: int) -> Response:
        """Give a member another role. 409 for the last manager."""
        role = self.read(MemberChange)["role"]
        return Response(self.get_serializer(members.change(self.member(), role)).data)

    @extend_schema(operation_id="members_remove", responses={204: None})
    def destroy(self, request: Request, key: Any, member: int) -> Response:
        """End a membership; signed in by session, everybody may end their own.

        409 for the last manager.
        """
        members.remove(self.member())
        return Response(status=204)


class _Invitations(InCatalogue):
    serializer_class = InvitationSerializer
    queryset = Invitation.objects.none()
    roles = {"list": Role.MANAGER}

    def get_queryset(self) -> QuerySet[Invitation]:
        return self.catalogue.invitations.select_related("invited_by", "accepted_by")


class InvitationListView(ListModelMixin, _Invitations):
    """Who was invited to a catalogue, newest first; open, accepted and expired."""

    ordering_fields = ["created_at"]
    ordering = ["-pk"]

    @extend_schema(
        operation_id="invitations_send", request=Invite, responses={201: InvitationSerializer}
    )
    @idempotent
    def create(self, request: Request, key: Any) -> Response:
        """Ask somebody by e-mail to join. An earlier invitation of that address ends.

        503 when the e-mail cannot be sent; then nobody was invited.
        """
        data = self.read(Invite)
        made, _text = members.invite(
            self.catalogue,
            data["email"],
            data["role"],
            by=cast(User, request.user),
            link=lambda text: links.absolute(request, reverse("invitation", args=[text])),
        )
        return Response(self.get_serializer(made).data, status=201)


class InvitationView(_Invitations):
    @extend_schema(operation_id="invitations_withdraw", responses={204: None})
    def destroy(self, request: Request, key: Any, invitation: int) -> Response:
        """End an invitation; its link opens nothing any more. 409 when it was accepted."""
        found = get_object_or_404(self.get_queryset(), pk=invitation)
        found.catalogue = self.catalogue
        members.withdraw(found)
        return Response(status=204)


class InvitedView(ApiView):
    """What the page of an invitation does, for programs; `text` is the end of the page's link."""

    sparse = False
    serializer_class = OfferedSerializer

    @extend_schema(operation_id="invitations_look")
    def retrieve(self, request: Request, text: str) -> Response:
        """To what the text in the link invites; 404 once it was used, withdrawn or has expired."""
        return Response(OfferedSerializer(members.find_invitation(text)).data)

    @extend_schema(
        operation_id="invitations_accept", request=None, responses={200: AcceptedSerializer}
    )
    def create(self, request: Request, text: str) -> Response:
        """Join. A role that you have already is raised, never lowered.

        409 when it was sent to another address than that of your account.
        """
        user = cast(User, request.user)
        catalogues.require_unlimited(user)
        return Response(AcceptedSerializer(members.accept(text, user)).data)
