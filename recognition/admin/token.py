"""API tokens: seen and revoked, never made here, because the text is shown to its owner only."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext_lazy as _
from unfold.decorators import action, display

from recognition.admin.work import RecognitionAdmin, RemovedTogether
from recognition.models import ApiToken
from recognition.services import tokens


@admin.register(ApiToken)
class ApiTokenAdmin(RemovedTogether, RecognitionAdmin):
    list_display = ("name", "start", "user", "role", "created", "expiry", "last_used_at")
    list_select_related = ("user",)
    list_filter = ("role",)
    search_fields = ("name", "user__username", "token_key")
    fields = ("name", "start", "user", "role", "catalogues", "created", "expiry", "last_used_at")
    actions = ("delete_selected",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @display(description=_("starts with"))
    def start(self, obj: ApiToken) -> str:
        return f"{obj.token_key}…"

    def delete_model(self, request: HttpRequest, obj: ApiToken) -> None:
        tokens.revoke(obj)

    @action(description=_("Revoke"), permissions=["delete"])
    def delete_selected(
        self, request: HttpRequest, queryset: QuerySet[ApiToken]
    ) -> HttpResponse | None:
        return super().delete_selected(request, queryset)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[ApiToken]) -> None:
        for token in queryset:
            tokens.revoke(token)
