"""Recognitions: the picture, what was found, what answered, what people say about it."""

from __future__ import annotations

from typing import Any, cast

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from django_htmx.http import HttpResponseClientRedirect
from unfold.decorators import action, display
from unfold.enums import ActionVariant
from unfold.forms import BaseDialogForm
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from recognition.admin.work import (
    RecognitionAdmin,
    RemovedTogether,
    WithPicture,
    WithState,
    framed_picture,
    going,
    pks,
)
from recognition.errors import RecognitionError
from recognition.models import (
    Detection,
    Product,
    RecognitionQuery,
    State,
    User,
    Verdict,
)
from recognition.models.counting import counted
from recognition.services import feedback, queries

WITHDRAW = "withdraw"


class FeedbackForm(BaseDialogForm):
    """What one region shows. The service acts while the form is checked, so that the dialog can
    show what it refuses."""

    position = forms.TypedChoiceField(
        label=_("Region"), coerce=int, widget=UnfoldAdminSelectWidget, choices=()
    )
    verdict = forms.ChoiceField(
        label=_("What is right?"),
        choices=[*Verdict.choices, (WITHDRAW, _("take back what was said"))],
        widget=UnfoldAdminSelectWidget,
    )
    label = forms.CharField(
        label=_("Label of the right product"),
        required=False,
        help_text=_("only when it is another product"),
        widget=UnfoldAdminTextInputWidget,
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.query = get_object_or_404(RecognitionQuery, pk=self.object_id)
        regions = Detection.objects.filter(query=self.query).prefetch_related("matches")
        self.fields["position"].choices = [(one.position, _region(one)) for one in regions]

    def clean(self) -> dict[str, Any]:
        given = super().clean() or {}
        if not self.errors:
            try:
                self._act(given)
            except RecognitionError as error:
                # A dialog shows what is wrong with a field only.
                field = error.field if error.field in self.fields else "verdict"
                self.add_error(field, error.message)
        return given

    def _act(self, given: dict[str, Any]) -> None:
        by = cast(User, self.request.user)
        if given["verdict"] == WITHDRAW:
            feedback.withdraw(self.query, given["position"], by=by)
            return
        verdict, product = Verdict(given["verdict"]), None
        if verdict == Verdict.CORRECTED:
            asked = [self.query.catalogue_id, *self.query.also.values_list("pk", flat=True)]
            named = Product.objects.filter(catalogue__in=asked, label=given["label"])
            if (product := named.values_list("pk", flat=True).first()) is None:
                self.add_error("label", _("None of the catalogues that were asked has it."))
                return
        feedback.give(self.query, given["position"], verdict, product=product, by=by)


def _region(detection: Detection) -> str:
    best = next(iter(detection.matches.all()), None)
    shown = f"{detection.position + 1} · {detection.get_status_display()}"
    return f"{shown} · {best.label}" if best else shown


@admin.register(RecognitionQuery)
class RecognitionQueryAdmin(RemovedTogether, WithPicture, WithState, RecognitionAdmin):
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
    list_filter = ("state", "detections__feedback__verdict", "catalogue")
    search_fields = ("=key", "source_name", "asked_by__username", "catalogue__name")
    actions = ("delete_selected",)
    actions_detail = ("give_feedback",)
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

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_give_feedback_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return request.user.has_perm("recognition.change_feedback")

    def get_queryset(self, request: HttpRequest) -> QuerySet[RecognitionQuery]:
        rows = super().get_queryset(request)
        return rows.annotate(found_n=counted(Detection.objects, "query"))

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> Any:
        """Nobody says anything about an answer that is not there yet."""
        query = self.get_object(request, object_id)
        if query is None or query.state != State.DONE:
            return []
        return super().get_actions_detail(request, object_id)

    @display(description=_("objects"), ordering="found_n")
    def found(self, obj: RecognitionQuery) -> int:
        return obj.found_n  # type: ignore[attr-defined]

    @display(description=_("ms"))
    def milliseconds(self, obj: RecognitionQuery) -> str:
        return f"{sum(obj.timings.values()):.0f}" if obj.timings else ""

    @display(description=_("answer"))
    def answer(self, obj: RecognitionQuery) -> SafeString:
        detections = list(
            obj.detections.select_related("feedback__given_by").prefetch_related("matches__image")
        )
        boxes = []
        for detection in detections:
            best = next(iter(detection.matches.all()), None)
            text = f"{detection.position + 1} {best.label if best else ''}".strip()
            boxes.append((detection.coordinate, text, detection.status))
        picture = framed_picture("recognitionquery", obj.pk, (obj.width, obj.height), boxes)
        return render_to_string(
            "admin/recognition/answer.html", {"picture": picture, "detections": detections}
        )

    @action(
        description=_("Give feedback"),
        permissions=["give_feedback"],
        icon="rate_review",
        variant=ActionVariant.PRIMARY,
        dialog={
            "title": _("Give feedback"),
            "description": _("Say what a region shows. No answer changes; the last word counts."),
            "form_class": FeedbackForm,
            "form_submit_text": _("Save"),
        },
    )
    def give_feedback(
        self, request: HttpRequest, form: FeedbackForm, object_id: Any
    ) -> HttpResponse:
        messages.success(request, _("Your feedback is kept."))
        address = reverse("admin:recognition_recognitionquery_change", args=[object_id])
        return HttpResponseClientRedirect(address)

    def delete_model(self, request: HttpRequest, obj: RecognitionQuery) -> None:
        queries.remove(obj)

    def response_delete(self, request: HttpRequest, obj_display: str, obj_id: Any) -> HttpResponse:
        """Back to the list, though nobody may change what is in it."""
        super().response_delete(request, obj_display, obj_id)  # tells that it is gone
        return HttpResponseRedirect(reverse("admin:recognition_recognitionquery_changelist"))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[RecognitionQuery]) -> None:
        for query in queryset.order_by("pk"):
            queries.remove(query)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        regions = Detection.objects.filter(query__in=pks(objs))
        figures = going({RecognitionQuery: len(objs), Detection: regions.count()})
        return [str(obj) for obj in objs[:20]], figures, set(), []
