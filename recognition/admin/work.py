"""What the screens share: refusals shown at the form, states in colour, pictures, page counts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.actions import delete_selected as remove_selected
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db import transaction
from django.db.models import (
    JSONField,
    Model,
    QuerySet,
    TextField,
)
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from unfold.admin import ModelAdmin
from unfold.decorators import display
from unfold.widgets import UnfoldAdminExpandableTextareaWidget

from recognition import delivery
from recognition.errors import RecognitionError
from recognition.models import State, Work

STATE_COLOURS: Mapping[str, str] = {
    State.PENDING: "info",
    State.RUNNING: "warning",
    State.DONE: "success",
    State.FAILED: "danger",
}


class EstimatingPaginator(Paginator):
    """Counts exactly up to `EXACT` rows; beyond, the planner's estimate is as good a page count.

    COUNT(*) reads every row or index entry that fits: a list of millions pays that at each click.
    """

    EXACT = 10_000

    @cached_property
    def count(self) -> int:
        rows: QuerySet[Any] = self.object_list  # type: ignore[assignment]
        exact = rows.order_by().values("pk")[: self.EXACT + 1].count()
        if exact <= self.EXACT:
            return exact
        [plan] = json.loads(rows.order_by().values("pk").explain(format="json"))
        return max(exact, int(plan["Plan"]["Plan Rows"]))


class RefusableForm(forms.ModelForm):
    """A form that can show why the service behind it refused."""

    refused: ClassVar[RecognitionError | None] = None

    def full_clean(self) -> None:
        super().full_clean()
        if self.refused is not None and self.is_bound:
            field = self.refused.field if self.refused.field in self.fields else None
            self.add_error(field, self.refused.message)


class RecognitionAdmin(ModelAdmin):
    """Base of every screen: a service's refusal is shown at the form, with nothing lost; that of a
    removal or a bulk action as a message."""

    form = RefusableForm
    formfield_overrides: ClassVar[dict[Any, Any]] = {
        JSONField: {"widget": UnfoldAdminExpandableTextareaWidget},
        TextField: {"widget": UnfoldAdminExpandableTextareaWidget},
    }
    paginator = EstimatingPaginator
    show_full_result_count = False
    list_per_page = 50
    list_filter_submit = False
    compressed_fields = True
    delete_selected_confirmation_template = "admin/recognition/delete_selected.html"

    class Media:
        css: ClassVar[dict[str, list[str]]] = {"all": ["recognition/admin.css"]}

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except RecognitionError as error:
            # Its transaction is undone; the same form again, this time with the reason.
            for name in request.FILES:
                for upload in request.FILES.getlist(name):
                    upload.seek(0)
            request.refused = error  # type: ignore[attr-defined]
            return super().changeform_view(request, object_id, form_url, extra_context)

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        try:
            return super().delete_view(request, object_id, extra_context)
        except RecognitionError as error:
            messages.error(request, error.message)
            name = f"admin:{self.opts.app_label}_{self.opts.model_name}_change"
            return HttpResponseRedirect(reverse(name, args=[object_id]))

    def response_action(
        self, request: HttpRequest, queryset: QuerySet[Any]
    ) -> HttpResponseBase | None:
        try:
            return super().response_action(request, queryset)
        except RecognitionError as error:
            messages.error(request, error.message)
            return HttpResponseRedirect(request.get_full_path())

    def get_form(
        self, request: HttpRequest, obj: Model | None = None, change: bool = False, **kwargs: Any
    ) -> type[forms.ModelForm]:
        form = super().get_form(request, obj, change=change, **kwargs)
        form.refused = getattr(request, "refused", None)
        return form


class RemovedTogether(ModelAdmin):
    """Several are removed all or none, and so with what Django notes of it. Name `delete_selected`
    among `actions`."""

    @admin.action(
        permissions=["delete"],
        description=remove_selected.short_description,  # type: ignore[attr-defined]
    )
    def delete_selected(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        with transaction.atomic():
            return remove_selected(self, request, queryset)


class ReadOnlyAdmin(RecognitionAdmin):
    """Facts to look at."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class WithState(ModelAdmin):
    """A column for the state of work."""

    @display(description=_("state"), ordering="state", label=STATE_COLOURS)
    def coloured_state(self, obj: Work) -> tuple[str, str]:
        return obj.state, obj.get_state_display()


class WithPicture(ModelAdmin):
    """Serves the picture of a row to staff who may view the row, and to nobody else."""

    SIDES = (96, 1280)

    def get_urls(self) -> list[URLPattern]:
        name = f"{self.opts.app_label}_{self.opts.model_name}_picture"
        view = self.admin_site.admin_view(self.picture_view, cacheable=True)
        return [
            path("<int:pk>/picture/", view, name=name),
            path("<int:pk>/picture/<int:side>/", view, name=name),
            *super().get_urls(),
        ]

    def picture_view(
        self, request: HttpRequest, pk: int, side: int | None = None
    ) -> HttpResponseBase:
        """The stored picture, or a small JPEG of it."""
        rows = getattr(self.model, "everything", self.model._default_manager)  # the trash too
        row = rows.filter(pk=pk).only("file").first()
        if not self.has_view_permission(request, row):
            raise PermissionDenied
        if row is None or not row.file or (side is not None and side not in self.SIDES):
            raise Http404  # without a file it came as a vector only
        return delivery.picture(request, row.file.name, side)

    @display(description=_("picture"))
    def small_picture(self, obj: Model) -> SafeString:
        return thumbnail(self.opts.model_name or "", obj.pk, str(obj))


def thumbnail(model_name: str, pk: int, text: str) -> SafeString:
    """An `<img>` of the picture of one row, fetched when it comes into view."""
    address = reverse(f"admin:recognition_{model_name}_picture", args=[pk, 96])
    return format_html(
        '<img src="{}" alt="{}" loading="lazy" width="48" height="48" '
        'style="width:48px;height:48px;object-fit:contain;background:#fff;border-radius:4px">',
        address,
        text,
    )


def framed_picture(
    model_name: str,
    pk: int,
    size: tuple[int, int],
    boxes: Iterable[tuple[Sequence[float], str, str]],
) -> SafeString:
    """The picture of one row with boxes over it: corners in pixels, text, and a `Status` value."""
    width, height = size
    shown = [
        {
            "x": x1,
            "y": y1,
            "width": x2 - x1,
            "height": y2 - y1,
            "left": f"{100 * x1 / width:.2f}%",
            "top": f"{100 * y1 / height:.2f}%",
            "text": text,
            "status": status,
        }
        for (x1, y1, x2, y2), text, status in boxes
    ]
    address = reverse(f"admin:recognition_{model_name}_picture", args=[pk, 1280])
    whole = reverse(f"admin:recognition_{model_name}_picture", args=[pk])
    return render_to_string(
        "admin/recognition/picture.html",
        {"address": address, "whole": whole, "width": width, "height": height, "boxes": shown},
    )


def choose(
    model_admin: ModelAdmin,
    request: HttpRequest,
    field: forms.Field,
    act: Callable[[Any], object],
    *,
    title: str,
) -> HttpResponse | None:
    """The second half of a bulk action that needs to know more: asks, then does `act(answer)`.

    A refusal of the service is shown at the question.
    """
    given = "chosen" in request.POST or "chosen" in request.FILES
    form = forms.Form(request.POST if given else None, request.FILES if given else None)
    form.fields["chosen"] = field
    if form.is_valid():
        try:
            act(form.cleaned_data["chosen"])
        except RecognitionError as error:
            form.add_error("chosen", error.message)
        else:
            return None
    context = {
        **model_admin.admin_site.each_context(request),
        "opts": model_admin.opts,
        "title": title,
        "form": form,
        "action": request.POST["action"],
        "selected": request.POST.getlist(ACTION_CHECKBOX_NAME),
        "select_across": request.POST.get("select_across", "0"),
    }
    return TemplateResponse(request, "admin/recognition/choose.html", context)


def pks(objs: QuerySet[Any] | Sequence[Model]) -> QuerySet[Any] | list[Any]:
    """The primary keys of what the "are you sure" page is about, for a filter, without loading it:
    it may be all rows of a list."""
    return objs.values("pk") if isinstance(objs, QuerySet) else [obj.pk for obj in objs]


def going(counts: Mapping[type[Model], int]) -> dict[str, int]:
    """Figures for the summary of Django's "are you sure" page, without loading what goes."""
    return {str(model._meta.verbose_name_plural): number for model, number in counts.items()}
