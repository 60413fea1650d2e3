"""Recognitions: the picture, what was found, what answered."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from unfold.decorators import display

from recognition.admin.work import ReadOnlyAdmin, WithPicture, WithState, counted, framed_picture
from recognition.models import Detection, RecognitionQuery


@admin.register(RecognitionQuery)
class RecognitionQueryAdmin(WithPicture, WithState, ReadOnlyAdmin):
    list_display = (
        "small_picture",
        "key",
        "catalogue",
        "coloured_state",
        "error",
        "found",
        "milliseconds",
        "asked_by",
        "created_at",
    )
    list_display_links = ("small_picture", "key")
    list_select_related = ("catalogue", "asked_by")
    list_filter = ("state", "catalogue")
    search_fields = ("=key", "source_name", "asked_by__username", "catalogue__name")
    fieldsets = (
        (None, {"fields": ("answer", ("state", "error"))}),
        (
            _("Question"),
            {
                "fields": (
                    ("catalogue", "asked_by"),
                    ("source_name", "created_at"),
                    ("det_threshold", "rec_threshold"),
                    ("top_k", "per_product"),
                    "boxes",
                )
            },
        ),
        (
            _("Answered with"),
            {
                "fields": (
                    ("feature_model", "catalogue_version"),
                    "answered_with",
                    "timings",
                    ("answered_at", "key"),
                )
            },
        ),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[RecognitionQuery]:
        rows = super().get_queryset(request)
        return rows.annotate(found_n=counted(Detection.objects, "query"))

    @display(description=_("objects"), ordering="found_n")
    def found(self, obj: RecognitionQuery) -> int:
        return obj.found_n  # type: ignore[attr-defined]

    @display(description=_("ms"))
    def milliseconds(self, obj: RecognitionQuery) -> str:
        return f"{sum(obj.timings.values()):.0f}" if obj.timings else ""

    @display(description=_("answer"))
    def answer(self, obj: RecognitionQuery) -> SafeString:
        detections = list(obj.detections.prefetch_related("matches__image"))
        boxes = []
        for detection in detections:
            best = next(iter(detection.matches.all()), None)
            text = f"{detection.position + 1} {best.label if best else ''}".strip()
            boxes.append((detection.coordinate, text, detection.status))
        picture = framed_picture("recognitionquery", obj.pk, (obj.width, obj.height), boxes)
        return render_to_string(
            "admin/recognition/answer.html", {"picture": picture, "detections": detections}
        )
