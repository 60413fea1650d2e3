"""API tokens: seen and revoked, never made here, because the text is shown to its owner only."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from unfold.decorators import action, display

from recognition.admin.work import RecognitionAdmin
from recognition.models import ApiToken
from recognition.services import tokens


@admin.register(ApiToken)
class ApiTokenAdmin(RecognitionAdmin):
    list_display = ("name", "start", "user", "role", "created", "expiry", "last_used_at")
    list_select_related = ("user",)
    list_filter = ("role",)
    search_fields = ("name", "user__username", "token_key")
    fields = ("name", "start", "user", "role", "catalogues", "created", "expiry", "last_used_at")
    actions = ("revoke",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_actions(self, request: HttpRequest) -> Any:
        actions = super().get_actions(request)
        actions.pop("delete_selected", None)  # `revoke` says it better
        return actions

    @display(description=_("starts with"))
    def start(self, obj: ApiToken) -> str:
        return f"{obj.token_key}…"

    def delete_model(self, request: HttpRequest, obj: ApiToken) -> None:
        tokens.revoke(obj)

    @action(description=_("Revoke"), permissions=["delete"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiToken]) -> None:
        for token in queryset:
            tokens.revoke(token)
