"""Workers, as they announce themselves."""

from __future__ import annotations

from django.contrib import admin
from django.template.defaultfilters import filesizeformat
from django.utils.translation import gettext_lazy as _
from unfold.decorators import display

from recognition.admin.work import ReadOnlyAdmin
from recognition.models import Worker


@admin.register(Worker)
class WorkerAdmin(ReadOnlyAdmin):
    list_display = ("name", "alive", "device", "queues", "memory", "speed", "pictures", "seen_at")
    search_fields = ("name",)
    fields = (
        ("name", "alive"),
        ("device", "queues", "batch_size"),
        ("pictures", "speed", "memory"),
        "networks",
        ("started_at", "seen_at"),
    )

    @display(description=_("alive"), boolean=True)
    def alive(self, obj: Worker) -> bool:
        return obj.is_alive

    @display(description=_("memory"), ordering="memory_bytes")
    def memory(self, obj: Worker) -> str:
        return filesizeformat(obj.memory_bytes)

    @display(description=_("pictures per second"))
    def speed(self, obj: Worker) -> str | None:
        rate = obj.pictures_per_second
        return None if rate is None else f"{rate:.1f}"
