"""Limits that differ from the settings."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from unfold.decorators import display

from recognition.admin.work import RecognitionAdmin
from recognition.errors import Conflict
from recognition.models import Quota
from recognition.services import quotas

LIMITS = ("images", "stored_bytes", "queries_per_minute", "concurrent_jobs")


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
        whose = obj.of
        if whose is None:
            raise Conflict("a quota is of a catalogue, a user or a token; choose one of them")
        row = quotas.change(whose, **{name: form.cleaned_data[name] for name in LIMITS})
        obj.pk = row.pk
        obj._state.adding = False

    def delete_model(self, request: HttpRequest, obj: Quota) -> None:
        if (whose := obj.of) is not None:
            quotas.change(whose, **dict.fromkeys(LIMITS))
        obj.delete()

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        for quota in queryset:
            self.delete_model(request, quota)
