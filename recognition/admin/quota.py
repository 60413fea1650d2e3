"""Limits that differ from the settings."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.decorators import display

from recognition.admin.work import RecognitionAdmin
from recognition.errors import BadInput
from recognition.models import Quota
from recognition.services import quotas
from recognition.services.quotas import LIMITS


def limited(quota: Quota) -> quotas.Limited:
    """Whose quota it is; the database holds that it is exactly one."""
    whose = quota.catalogue or quota.user or quota.token
    if whose is None:
        raise BadInput(gettext("a quota is of a catalogue, a user or a token: choose one of them"))
    return whose


@admin.register(Quota)
class QuotaAdmin(RecognitionAdmin):
    list_display = ("of", *LIMITS)
    list_select_related = ("catalogue", "user", "token")
    search_fields = ("catalogue__name", "user__username", "token__name")
    autocomplete_fields = ("catalogue", "user", "token")
    fields = (("catalogue", "user", "token"), LIMITS[:2], LIMITS[2:])

    def get_readonly_fields(self, request: HttpRequest, obj: Quota | None = None) -> Any:
        return ("catalogue", "user", "token") if obj else ()

    @display(description=_("whose"))
    def of(self, obj: Quota) -> str:
        return str(obj.of)

    def save_model(self, request: HttpRequest, obj: Quota, form: Any, change: bool) -> None:
        most = {name: form.cleaned_data[name] for name in LIMITS}
        row = quotas.change(limited(obj), **most)
        obj.pk = row.pk
        obj._state.adding = False

    def delete_model(self, request: HttpRequest, obj: Quota) -> None:
        quotas.change(limited(obj), **dict.fromkeys(LIMITS))
        obj.delete()

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        for quota in queryset:
            self.delete_model(request, quota)
