"""Who did what, to read. The database itself refuses to change it."""

from __future__ import annotations

from django.contrib import admin

from recognition.admin.work import ReadOnlyAdmin
from recognition.models import AuditEntry


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyAdmin):
    # `user` and `catalogue` may be gone, so what is shown was written down at the time.
    list_display = ("at", "user_name", "source", "action", "object_type", "object_name", "count")
    list_filter = ("source", "action", "object_type")
    search_fields = ("user_name", "object_name", "=object_id", "=request_id")
    fields = (
        ("at", "user_name", "source"),
        ("action", "count"),
        ("object_type", "object_id", "object_name"),
        "changes",
        "details",
        ("token", "request_id"),
    )
