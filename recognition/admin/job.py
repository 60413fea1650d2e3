"""Jobs: how far they are, and what became of each line."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from unfold.admin import TabularInline
from unfold.decorators import display

from recognition.admin.work import ReadOnlyAdmin, WithState
from recognition.models import Job, JobLine


class JobLineInline(TabularInline):
    model = JobLine
    extra = 0
    per_page = 50
    hide_title = True
    can_delete = False
    fields = readonly_fields = ("number", "text", "result", "reason", "image")
    ordering = ("number",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[JobLine]:
        return super().get_queryset(request).select_related("image")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Job)
class JobAdmin(WithState, ReadOnlyAdmin):
    list_display = (
        "key",
        "kind",
        "catalogue",
        "coloured_state",
        "progress",
        "started_by",
        "created_at",
        "finished_at",
    )
    list_select_related = ("catalogue", "started_by")
    list_filter = ("state", "kind", "catalogue")
    search_fields = ("key", "catalogue__name", "started_by__username")
    inlines = (JobLineInline,)
    fields = (
        ("kind", "catalogue"),
        ("state", "error"),
        "progress",
        ("source_name", "dry_run"),
        ("started_by", "key"),
        ("created_at", "finished_at"),
    )

    @display(description=_("progress"))
    def progress(self, obj: Job) -> SafeString:
        total = max(obj.total, obj.done + obj.failed, 1)
        return render_to_string(
            "admin/recognition/progress.html",
            {
                "done": f"{100 * obj.done / total:.1f}%",
                "failed": f"{100 * obj.failed / total:.1f}%",
                "job": obj,
            },
        )
