"""Catalogues and their members."""

from __future__ import annotations

from typing import Any, BinaryIO, cast

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.files.uploadedfile import UploadedFile
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.text import capfirst
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _
from unfold.admin import TabularInline
from unfold.decorators import action, display
from unfold.widgets import (
    UnfoldAdminFileFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
)

from recognition.admin.work import (
    RecognitionAdmin,
    RefusableForm,
    choose,
    going,
    pks,
)
from recognition.errors import BadInput
from recognition.models import (
    Catalogue,
    FeatureModel,
    GalleryImage,
    IndexState,
    IndexType,
    Job,
    Membership,
    Metric,
    Product,
    RecognitionQuery,
    User,
)
from recognition.services import catalogues, exports, gallery_embedding, imports, members

INDEX_COLOURS = {
    IndexState.EXACT: "info",
    IndexState.BUILDING: "warning",
    IndexState.INDEXED: "success",
}
SETTINGS = (
    "description",
    "crop_policy",
    "det_threshold",
    "rec_threshold",
    "margin",
    "top_k",
    "max_detections",
    "shown_label",
)


class MembershipForm(forms.ModelForm):
    """Who it is stays: another person is another row, and another entry in the audit log."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk and "user" in self.fields:
            self.fields["user"].disabled = True


class MembershipInline(TabularInline):
    model = Membership
    form = MembershipForm
    extra = 0
    autocomplete_fields = ("user",)
    fields = ("user", "role")
    hide_title = True
    tab = True

    def get_queryset(self, request: HttpRequest) -> QuerySet[Membership]:
        return super().get_queryset(request).select_related("user")


class CatalogueForm(RefusableForm):
    """Settings of the catalogue, and those of its search space that staff choose."""

    feature_model = forms.ModelChoiceField(
        FeatureModel.objects.none(),
        label=capfirst(_("feature model")),
        required=False,
        empty_label=_("the site's own (SHITU_FEATURE_MODEL)"),
        widget=UnfoldAdminSelectWidget,
    )
    metric = forms.ChoiceField(
        label=capfirst(_("metric")),
        choices=Metric.choices,
        initial=Metric.IP,
        widget=UnfoldAdminSelectWidget,
    )
    index_type = forms.ChoiceField(
        label=capfirst(_("index type")),
        choices=IndexType.choices,
        initial=IndexType.HNSW32,
        widget=UnfoldAdminSelectWidget,
    )
    detector = forms.CharField(
        label=capfirst(_("detector")),
        required=False,
        max_length=100,
        widget=UnfoldAdminTextInputWidget,
        help_text=_("name of the detection model; empty: the whole picture is one object"),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            # Asked for once, when it is made; a declared field would be required for ever.
            for name in ("feature_model", "index_type"):
                self.fields.pop(name, None)
            if self.instance.index:
                self.initial.setdefault("metric", self.instance.index.metric)
        if "feature_model" in self.fields:
            self.fields["feature_model"].queryset = FeatureModel.objects.filter(installed=True)  # type: ignore[attr-defined]


@admin.register(Catalogue)
class CatalogueAdmin(RecognitionAdmin):
    form = CatalogueForm
    list_display = (
        "name",
        "owner",
        "index_state",
        "product_count",
        "image_count",
        "waiting_count",
        "failed_count",
        "version",
        "changed_at",
    )
    list_select_related = ("owner", "index")
    list_filter = ("crop_policy", "index__state", "index__feature_model")
    search_fields = ("name", "key", "owner__username")
    autocomplete_fields = ("owner",)
    inlines = (MembershipInline,)
    actions = ("import_file", "judge_file", "export", "embed_again")
    fieldsets = (
        (None, {"fields": ("name", "description", "owner", "key", "version")}),
        (
            _("Recognition"),
            {
                "fields": (
                    "detector",
                    ("det_threshold", "max_detections"),
                    ("rec_threshold", "margin"),
                    ("top_k", "metric"),
                    "shown_label",
                ),
            },
        ),
        (_("Gallery"), {"fields": ("crop_policy",)}),
        (
            _("State"),
            {
                "fields": (
                    ("index", "index_said"),
                    ("product_count", "image_count"),
                    ("waiting_count", "failed_count"),
                    ("stored_images", "stored_bytes"),
                    ("created_at", "changed_at"),
                ),
            },
        ),
    )
    add_fieldsets = (
        (None, {"fields": ("name", "description", "owner")}),
        (_("Search space"), {"fields": ("feature_model", ("metric", "index_type"))}),
        (
            _("Recognition"),
            {
                "fields": (
                    "detector",
                    "crop_policy",
                    ("det_threshold", "max_detections"),
                    ("rec_threshold", "margin"),
                    ("top_k", "shown_label"),
                )
            },
        ),
    )
    readonly_fields = (
        "key",
        "version",
        "index",
        "index_said",
        "product_count",
        "image_count",
        "waiting_count",
        "failed_count",
        "stored_images",
        "stored_bytes",
        "created_at",
        "changed_at",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Catalogue]:
        return super().get_queryset(request).select_related("index__feature_model").with_counts()

    def get_inlines(self, request: HttpRequest, obj: Catalogue | None) -> Any:
        return self.inlines if obj else ()  # the owner becomes the first manager by himself

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        given = super().get_changeform_initial_data(request)
        return {"detector": settings.SHITU_DETECTOR, "owner": request.user.pk} | given

    @display(description=_("index"), label=INDEX_COLOURS)
    def index_state(self, obj: Catalogue) -> tuple[str, str] | None:
        return (obj.index.state, obj.index.get_state_display()) if obj.index else None

    @display(description=_("state"))
    def index_said(self, obj: Catalogue) -> str | None:
        return obj.index.get_state_display() if obj.index else None

    @display(description=_("products"), ordering="product_count")
    def product_count(self, obj: Catalogue) -> int:
        return obj.product_count  # type: ignore[attr-defined]

    @display(description=_("pictures"), ordering="image_count")
    def image_count(self, obj: Catalogue) -> int:
        return obj.image_count  # type: ignore[attr-defined]

    @display(description=_("waiting"), ordering="waiting_count")
    def waiting_count(self, obj: Catalogue) -> int:
        return obj.waiting_count  # type: ignore[attr-defined]

    @display(description=_("failed"), ordering="failed_count")
    def failed_count(self, obj: Catalogue) -> int:
        return obj.failed_count  # type: ignore[attr-defined]

    def save_model(self, request: HttpRequest, obj: Catalogue, form: Any, change: bool) -> None:
        given = form.cleaned_data
        if change:
            catalogues.change(obj, **{name: given[name] for name in form.changed_data})
            return
        model = given["feature_model"]
        made = catalogues.create(
            obj.name,
            owner=obj.owner,
            feature_model=model.name if model else None,
            detector=given["detector"],
            metric=given["metric"],
            index_type=given["index_type"],
            **{name: given[name] for name in SETTINGS},
        )
        obj.pk = made.pk
        obj._state.adding = False
        obj.refresh_from_db()

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        formset.save(commit=False)
        for membership in formset.deleted_objects:
            members.remove(membership)
        for membership in formset.new_objects:
            members.add(form.instance, membership.user, membership.role)
        for membership, _fields in formset.changed_objects:
            members.change(membership, membership.role)

    def delete_model(self, request: HttpRequest, obj: Catalogue) -> None:
        catalogues.remove(obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Catalogue]) -> None:
        for catalogue in queryset:
            catalogues.remove(catalogue)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        ids = pks(objs)
        figures = going(
            {
                model: model._default_manager.filter(catalogue__in=ids).count()
                for model in (Product, GalleryImage, RecognitionQuery)
            }
        )
        return [str(obj) for obj in objs], figures, set(), []

    @action(description=_("Import a file into one of them"), permissions=["change"])
    def import_file(
        self, request: HttpRequest, queryset: QuerySet[Catalogue]
    ) -> HttpResponse | None:
        return self._import(request, queryset, dry_run=False)

    @action(description=_("Judge a file for one of them, import nothing"), permissions=["change"])
    def judge_file(
        self, request: HttpRequest, queryset: QuerySet[Catalogue]
    ) -> HttpResponse | None:
        return self._import(request, queryset, dry_run=True)

    def _import(
        self, request: HttpRequest, queryset: QuerySet[Catalogue], *, dry_run: bool
    ) -> HttpResponse | None:
        if queryset.count() != 1:
            raise BadInput(gettext("A file goes into one catalogue: choose one."))
        catalogue = queryset.get()

        def act(file: UploadedFile) -> None:
            imports.check_size(file.size)
            by = cast(User, request.user)
            _tell_started(
                request,
                imports.start(
                    catalogue,
                    cast(BinaryIO, file),
                    by=by,
                    name=file.name or "",
                    dry_run=dry_run,
                ),
            )

        chosen = forms.FileField(
            label=_("Which file?"),
            help_text=_("ZIP, CSV or XLSX; what it is, its content says."),
            widget=UnfoldAdminFileFieldWidget,
        )
        return choose(self, request, chosen, act, title=_("Import into %s") % catalogue)

    @action(description=_("Export"), permissions=["change"])
    def export(self, request: HttpRequest, queryset: QuerySet[Catalogue]) -> HttpResponse | None:
        def act(with_vectors: str) -> None:
            for catalogue in queryset.order_by("pk"):
                by = cast(User, request.user)
                job = exports.start(catalogue, by=by, embeddings=with_vectors == "yes")
                _tell_started(request, job)

        chosen = forms.ChoiceField(
            choices=[("no", _("products and pictures")), ("yes", _("and the vectors"))],
            label=_("What?"),
            widget=UnfoldAdminSelectWidget,
        )
        return choose(self, request, chosen, act, title=str(_("Export")))

    @action(description=_("Embed all pictures again"), permissions=["change"])
    def embed_again(self, request: HttpRequest, queryset: QuerySet[Catalogue]) -> None:
        count = sum(gallery_embedding.reembed(catalogue) for catalogue in queryset)
        messages.success(
            request,
            ngettext("%(n)d picture waits.", "%(n)d pictures wait.", count) % {"n": count},
        )


def _tell_started(request: HttpRequest, job: Job) -> None:
    address = reverse("admin:recognition_job_change", args=[job.pk])
    messages.success(request, format_html(gettext('Started: <a href="{}">{}</a>.'), address, job))
