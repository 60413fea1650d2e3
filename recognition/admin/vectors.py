"""Feature models and search spaces, to look at."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import Case, Count, F, IntegerField, OuterRef, QuerySet, Subquery, When
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext_lazy as _
from django_htmx.http import HttpResponseClientRedirect
from unfold.admin import TabularInline
from unfold.decorators import action, display
from unfold.forms import BaseDialogForm

from recognition.admin.catalogue import INDEX_COLOURS
from recognition.admin.work import ReadOnlyAdmin
from recognition.models import Embedding, FeatureModel, RecallSample, VectorIndex
from recognition.models.counting import counted
from recognition.services import feature_models


@admin.register(FeatureModel)
class FeatureModelAdmin(ReadOnlyAdmin):
    list_display = ("name", "digest", "dimension", "installed", "space_count", "created_at")
    list_filter = ("installed",)
    search_fields = ("name", "digest")
    fields = (
        ("name", "installed"),
        ("digest", "dimension"),
        "preprocessing",
        ("space_count", "created_at"),
    )
    actions_list = ("look_again",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[FeatureModel]:
        rows = super().get_queryset(request)
        return rows.annotate(spaces_n=counted(VectorIndex.objects, "feature_model"))

    def has_look_again_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("recognition.change_featuremodel")

    @display(description=_("catalogues"), ordering="spaces_n")
    def space_count(self, obj: FeatureModel) -> int:
        return obj.spaces_n  # type: ignore[attr-defined]

    @action(
        description=_("Look into the models directory again"),
        permissions=["look_again"],
        dialog={
            "title": _("Look into the models directory again"),
            "description": _("Models that were installed or changed since are noted."),
            "form_class": None,
            "form_submit_text": _("Look"),
        },
    )
    def look_again(self, request: HttpRequest, form: BaseDialogForm) -> HttpResponse:
        found = ", ".join(str(row) for row in feature_models.sync())
        messages.success(request, _("Installed: %(models)s") % {"models": found or "–"})
        # The dialog posts by htmx, which would put the page it is redirected to into the dialog.
        return HttpResponseClientRedirect(reverse("admin:recognition_featuremodel_changelist"))


class RecallSampleInline(TabularInline):
    model = RecallSample
    extra = 0
    per_page = 20
    hide_title = True
    can_delete = False
    fields = readonly_fields = (
        "measured_at",
        "recall",
        "k",
        "questions",
        "vectors",
        "indexed_ms",
        "exact_ms",
        "effort",
        "raised_to",
    )

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(VectorIndex)
class VectorIndexAdmin(ReadOnlyAdmin):
    list_display = (
        "catalogue",
        "feature_model",
        "coloured_state",
        "index_type",
        "metric",
        "vector_count",
        "product_count",
        "recall",
        "build_error",
        "tended_at",
    )
    list_select_related = ("catalogue", "feature_model")
    list_filter = ("state", "index_type", "metric", "feature_model")
    search_fields = ("catalogue__name", "feature_model__name", "=index_name")
    inlines = (RecallSampleInline,)
    fieldsets = (
        (
            None,
            {
                "fields": (
                    ("catalogue", "feature_model"),
                    ("state", "tended_at"),
                    ("vector_count", "product_count"),
                    "build_error",
                )
            },
        ),
        (
            _("Parameters"),
            {
                "fields": (
                    ("index_type", "metric"),
                    ("m", "ef_construction", "ef_search"),
                    ("lists", "probes"),
                    "recall_target",
                )
            },
        ),
        (_("In PostgreSQL"), {"fields": ("index_name", "built_with", "created_at")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[VectorIndex]:
        samples = RecallSample.objects.filter(space=OuterRef("pk")).order_by("-measured_at")
        recall_now = samples.annotate(now=Coalesce("recall_after", "recall")).values("now")
        rows = super().get_queryset(request)
        return rows.annotate(
            last_recall=Subquery(recall_now[:1]),
            vectors_n=_now_if_small("vectors", counted(Embedding.objects, "space")),
            products_n=_now_if_small(
                "products",
                counted(Embedding.objects, "space", Count("image__product", distinct=True)),
            ),
        )

    @display(description=_("vectors"), ordering="vectors_n")
    def vector_count(self, obj: VectorIndex) -> int:
        return obj.vectors_n  # type: ignore[attr-defined]

    @display(description=_("products"), ordering="products_n")
    def product_count(self, obj: VectorIndex) -> int:
        return obj.products_n  # type: ignore[attr-defined]

    @display(description=_("state"), ordering="state", label=INDEX_COLOURS)
    def coloured_state(self, obj: VectorIndex) -> tuple[str, str]:
        return obj.state, obj.get_state_display()

    @display(description=_("recall"), ordering="last_recall")
    def recall(self, obj: VectorIndex) -> str | None:
        last = obj.last_recall  # type: ignore[attr-defined]
        return None if last is None else f"{last:.3f}"


def _now_if_small(stored: str, now: Coalesce) -> Case:
    """What was counted when a space was last looked after; those that never were are small, and
    are counted now."""
    return Case(When(tended_at=None, then=now), default=F(stored), output_field=IntegerField())
