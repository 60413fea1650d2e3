"""Who may do what, and who is asked to."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext_lazy as _
from unfold.decorators import action, display

from recognition.admin.work import RecognitionAdmin, RemovedTogether
from recognition.models import Invitation, Membership
from recognition.services import members


@admin.register(Membership)
class MembershipAdmin(RecognitionAdmin):
    list_display = ("user", "catalogue", "role", "created_at")
    list_select_related = ("user", "catalogue")
    list_filter = ("role", "catalogue")
    search_fields = ("user__username", "catalogue__name")
    autocomplete_fields = ("user", "catalogue")

    def get_readonly_fields(self, request: HttpRequest, obj: Membership | None = None) -> Any:
        return ("user", "catalogue", "created_at") if obj else ()

    def save_model(self, request: HttpRequest, obj: Membership, form: Any, change: bool) -> None:
        if change:
            members.change(obj, form.cleaned_data["role"])
        else:
            made = members.add(obj.catalogue, obj.user, obj.role)
            obj.__dict__.update(made.__dict__)

    def delete_model(self, request: HttpRequest, obj: Membership) -> None:
        members.remove(obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Membership]) -> None:
        for membership in queryset:
            members.remove(membership)


@admin.register(Invitation)
class InvitationAdmin(RemovedTogether, RecognitionAdmin):
    """Sent from the pages and the API, because the link is known to the sender only."""

    list_display = ("email", "catalogue", "role", "invited_by", "created_at", "expires_at", "used")
    list_select_related = ("catalogue", "invited_by")
    list_filter = ("role", "catalogue")
    search_fields = ("email", "catalogue__name")
    fields = (
        ("email", "catalogue", "role"),
        ("invited_by", "created_at", "expires_at"),
        ("accepted_by", "accepted_at"),
    )
    actions = ("delete_selected",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @display(description=_("accepted"), boolean=True)
    def used(self, obj: Invitation) -> bool:
        return obj.accepted_at is not None

    def delete_model(self, request: HttpRequest, obj: Invitation) -> None:
        members.withdraw(obj)

    @action(description=_("Withdraw"), permissions=["delete"])
    def delete_selected(
        self, request: HttpRequest, queryset: QuerySet[Invitation]
    ) -> HttpResponse | None:
        return super().delete_selected(request, queryset)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Invitation]) -> None:
        for invitation in queryset.select_related("catalogue"):
            members.withdraw(invitation)
