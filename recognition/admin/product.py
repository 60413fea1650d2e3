"""Products."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db import transaction
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminSelectWidget

from recognition.admin.gallery import tell_embedded_again
from recognition.admin.work import RecognitionAdmin, choose, going, pks, thumbnail
from recognition.errors import BadInput, RecognitionError
from recognition.models import Catalogue, GalleryImage, Product
from recognition.services import gallery_embedding, product_merging, product_moving, products, trash

SHOWN = 24
MOST_MERGED = 100  # choices in one list


class PlaceFilter(admin.SimpleListFilter):
    """The trash instead of the shelves."""

    title = _("place")
    parameter_name = "place"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("trash", _("in the trash"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Product]) -> QuerySet[Product]:
        return queryset  # `ProductAdmin.get_queryset` has chosen the manager already


def by_catalogue(queryset: QuerySet[Product]) -> Iterator[tuple[Catalogue, list[Product]]]:
    """The chosen products, those of one catalogue together."""
    rows = queryset.select_related("catalogue").order_by("catalogue")
    for catalogue, group in groupby(rows, key=lambda row: row.catalogue):
        yield catalogue, list(group)


def in_trash(request: HttpRequest) -> bool:
    return request.GET.get(PlaceFilter.parameter_name) == "trash"


@admin.register(Product)
class ProductAdmin(RecognitionAdmin):
    list_display = (
        "cover",
        "label",
        "catalogue",
        "category",
        "image_count",
        "is_active",
        "changed_at",
    )
    list_display_links = ("cover", "label")
    list_select_related = ("catalogue",)
    list_filter = ("is_active", PlaceFilter, "catalogue")
    search_fields = ("label", "category", "=external_id", "=sku", "=barcode", "catalogue__name")
    autocomplete_fields = ("catalogue",)
    actions = ("merge", "move", "activate", "deactivate", "try_again", "embed_again", "restore")
    fieldsets = (
        (None, {"fields": ("catalogue", ("label", "is_active"), "gallery")}),
        (
            _("Details"),
            {
                "fields": (
                    ("external_id", "category"),
                    ("sku", "barcode"),
                    ("price", "currency"),
                    "names",
                    "attributes",
                    "description",
                )
            },
        ),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Product]:
        images = GalleryImage.everything.order_by("pk").filter(product=OuterRef("pk"))
        rows = super().get_queryset(request)
        if in_trash(request):
            rows = Product.everything.in_trash().order_by("-removed_at")
        return rows.annotate(cover_pk=Subquery(images.values("pk")[:1])).with_image_count()

    def get_list_display(self, request: HttpRequest) -> Any:
        shown = self.list_display
        return (*shown[:-2], "removed_at") if in_trash(request) else shown

    def get_list_display_links(self, request: HttpRequest, list_display: Any) -> Any:
        return None if in_trash(request) else self.list_display_links

    def get_actions(self, request: HttpRequest) -> Any:
        there = in_trash(request)
        actions = super().get_actions(request)
        return {name: one for name, one in actions.items() if (name == "restore") is there}

    def get_readonly_fields(self, request: HttpRequest, obj: Product | None = None) -> Any:
        # Moving between catalogues is not a matter of one field.
        return ("catalogue", "gallery") if obj else ("gallery",)

    @display(description=_("picture"))
    def cover(self, obj: Product) -> SafeString | None:
        pk = obj.cover_pk  # type: ignore[attr-defined]
        return thumbnail("galleryimage", pk, obj.label) if pk else None

    @display(description=_("pictures"), ordering="image_count")
    def image_count(self, obj: Product) -> SafeString:
        address = reverse("admin:recognition_galleryimage_changelist")
        count = obj.image_count  # type: ignore[attr-defined]
        return format_html('<a href="{}?product__id__exact={}">{}</a>', address, obj.pk, count)

    @display(description=_("pictures"))
    def gallery(self, obj: Product) -> SafeString | str:
        if not obj.pk:
            return ""
        images = obj.images.order_by("pk")[:SHOWN]
        return format_html(
            '<div style="display:flex;flex-wrap:wrap;gap:8px">{}</div>',
            format_html_join(
                "",
                '<a href="{}">{}</a>',
                (
                    (
                        reverse("admin:recognition_galleryimage_change", args=[image.pk]),
                        thumbnail("galleryimage", image.pk, str(image)),
                    )
                    for image in images
                ),
            ),
        )

    def save_model(self, request: HttpRequest, obj: Product, form: Any, change: bool) -> None:
        given = form.cleaned_data
        if change:
            products.change(obj, **{name: given[name] for name in form.changed_data})
            return
        fields = {
            name: value for name, value in given.items() if name not in ("catalogue", "label")
        }
        made = products.create(obj.catalogue, obj.label, **fields)
        obj.pk = made.pk
        obj._state.adding = False
        obj.refresh_from_db()

    def delete_model(self, request: HttpRequest, obj: Product) -> None:
        trash.put(obj.catalogue, [obj])

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Product]) -> None:
        for catalogue, rows in by_catalogue(queryset):
            trash.put(catalogue, rows)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        images = GalleryImage.objects.filter(product__in=pks(objs))
        figures = going({Product: len(objs), GalleryImage: images.count()})
        return [str(obj) for obj in objs[:SHOWN]], figures, set(), []

    @action(description=_("Activate: may be an answer"), permissions=["change"])
    def activate(self, request: HttpRequest, queryset: QuerySet[Product]) -> None:
        self._set_active(request, queryset, True)

    @action(description=_("Deactivate: never an answer"), permissions=["change"])
    def deactivate(self, request: HttpRequest, queryset: QuerySet[Product]) -> None:
        self._set_active(request, queryset, False)

    def _set_active(self, request: HttpRequest, queryset: QuerySet[Product], active: bool) -> None:
        count = sum(
            products.change_many(catalogue, rows, is_active=active)
            for catalogue, rows in by_catalogue(queryset)
        )
        messages.success(
            request,
            ngettext("%(n)d product changed.", "%(n)d products changed.", count) % {"n": count},
        )

    @action(description=_("Merge into one of them"), permissions=["change"])
    def merge(self, request: HttpRequest, queryset: QuerySet[Product]) -> HttpResponse | None:
        def act(into: Product) -> None:
            product_merging.merge([row for row in queryset if row.pk != into.pk], into)
            messages.success(request, _("Merged into %(product)s.") % {"product": into})

        if queryset.count() > MOST_MERGED:
            raise BadInput(
                gettext("At most %(n)d products are merged at once: choose fewer.")
                % {"n": MOST_MERGED}
            )
        chosen = forms.ModelChoiceField(
            queryset, label=_("Which one stays?"), widget=UnfoldAdminSelectWidget
        )
        return choose(self, request, chosen, act, title=str(_("Merge into one of them")))

    @action(description=_("Move to another catalogue"), permissions=["change"])
    def move(self, request: HttpRequest, queryset: QuerySet[Product]) -> HttpResponse | None:
        def act(to: Catalogue) -> None:
            with transaction.atomic():
                for _catalogue, rows in by_catalogue(queryset):
                    product_moving.move(rows, to)
            messages.success(request, _("Moved to %(catalogue)s.") % {"catalogue": to})

        chosen = forms.ModelChoiceField(
            Catalogue.objects.all(), label=_("Where to?"), widget=UnfoldAdminSelectWidget
        )
        return choose(self, request, chosen, act, title=str(_("Move to another catalogue")))

    @action(description=_("Restore"), permissions=["change"])
    def restore(self, request: HttpRequest, queryset: QuerySet[Product]) -> None:
        for product in queryset:
            try:
                trash.restore(product)
            except RecognitionError as error:
                messages.error(request, f"{product}: {error.message}")
            else:
                messages.success(request, _("%(product)s is back.") % {"product": product})

    @action(description=_("Try failed pictures again"), permissions=["change"])
    def try_again(self, request: HttpRequest, queryset: QuerySet[Product]) -> None:
        count = gallery_embedding.retry(
            GalleryImage.objects.filter(product__in=queryset.values("pk"))
        )
        messages.success(
            request,
            ngettext("%(n)d picture waits.", "%(n)d pictures wait.", count) % {"n": count},
        )

    @action(description=_("Embed their pictures again"), permissions=["change"])
    def embed_again(self, request: HttpRequest, queryset: QuerySet[Product]) -> None:
        tell_embedded_again(request, GalleryImage.objects.filter(product__in=queryset.values("pk")))
