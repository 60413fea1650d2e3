"""Gallery images."""

from __future__ import annotations

from itertools import groupby
from typing import Any, cast

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import Count, Field, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.defaultfilters import filesizeformat
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminFileFieldWidget, UnfoldAdminTextInputWidget

from recognition import images
from recognition.admin.work import (
    RecognitionAdmin,
    RefusableForm,
    WithPicture,
    WithState,
    choose,
    framed_picture,
    going,
)
from recognition.errors import Conflict, NotFound, RecognitionError
from recognition.gallery_list import MAX_LABEL_LENGTH, clean_label
from recognition.models import GalleryImage, Product, State, Status, User
from recognition.models.product import check_line
from recognition.services import gallery, gallery_adding, gallery_embedding


class ReasonFilter(admin.SimpleListFilter):
    """The commonest reasons for which pictures failed."""

    title = _("reason")
    parameter_name = "reason"
    MOST = 10

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        reasons = (
            GalleryImage.objects.filter(state=State.FAILED)
            .order_by()
            .values_list("error")
            .annotate(n=Count("*"))
            .order_by("-n")[: self.MOST]
        )
        return [(reason, f"{reason[:60]} ({n})") for reason, n in reasons]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[GalleryImage]
    ) -> QuerySet[GalleryImage]:
        if reason := self.value():
            return queryset.filter(state=State.FAILED, error=reason)
        return queryset


class GalleryImageForm(RefusableForm):
    """A new picture, checked as everywhere."""

    file = forms.FileField(label=capfirst(_("picture")), widget=UnfoldAdminFileFieldWidget)

    def clean_file(self) -> images.Picture:
        upload = self.cleaned_data["file"]
        self.source_name = upload.name
        try:
            return images.check(upload, name=upload.name)
        except RecognitionError as error:
            raise ValidationError(error.message, code=error.code) from error

    def _post_clean(self) -> None:
        """Nothing is put on the instance: the service makes the row."""


@admin.register(GalleryImage)
class GalleryImageAdmin(WithPicture, WithState, RecognitionAdmin):
    list_display = (
        "small_picture",
        "number",
        "product",
        "catalogue",
        "coloured_state",
        "error",
        "size",
        "source_name",
        "created_at",
    )
    list_display_links = ("small_picture", "number")
    list_select_related = ("product", "catalogue")
    list_filter = ("state", ReasonFilter, "box_source", "catalogue")
    search_fields = ("product__label", "source_name", "=checksum", "=external_id")
    autocomplete_fields = ("product",)
    actions = ("move", "try_again", "embed_again")
    fieldsets = (
        (None, {"fields": ("preview", "product", ("state", "error"))}),
        (
            _("File"),
            {
                "fields": (
                    ("number", "catalogue"),
                    ("source_name", "external_id"),
                    ("checksum", "size"),
                    ("box", "box_source"),
                    ("added_by", "created_at"),
                )
            },
        ),
    )
    add_fieldsets = ((None, {"fields": ("product", "file", "box")}),)

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any
    ) -> type[forms.ModelForm]:
        if not change:
            kwargs["form"] = GalleryImageForm
        return super().get_form(request, obj, change=change, **kwargs)

    def formfield_for_dbfield(
        self, db_field: Field[Any, Any], request: HttpRequest, **kwargs: Any
    ) -> forms.Field | None:
        if db_field.name == "box":
            kwargs["help_text"] = _(
                "where in the picture the product is: [x1, y1, x2, y2] in pixels, from its top "
                "left; empty: the detector says"
            )
        return super().formfield_for_dbfield(db_field, request, **kwargs)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is None:
            return ()
        return [
            name
            for _title, options in self.fieldsets
            for line in options["fields"]
            for name in (line if isinstance(line, tuple) else (line,))
            if name not in ("product", "box")
        ]

    @display(description=_("size"))
    def size(self, obj: GalleryImage) -> str:
        return f"{obj.width} × {obj.height}, {filesizeformat(obj.byte_size)}"

    @display(description=_("preview"))
    def preview(self, obj: GalleryImage) -> SafeString:
        boxes = [(obj.box, obj.get_box_source_display(), Status.MATCH)] if obj.box else []
        return framed_picture("galleryimage", obj.pk, (obj.width, obj.height), boxes)

    def save_model(self, request: HttpRequest, obj: GalleryImage, form: Any, change: bool) -> None:
        given = form.cleaned_data
        if not change:
            product = given["product"]
            added = gallery_adding.add_image(
                product.catalogue,
                product.label,
                given["file"],
                by=cast(User, request.user),
                source_name=form.source_name,
                box=given["box"],
            )
            if not added.created:
                raise Conflict(
                    gettext("“%(product)s” has this picture already: %(image)s")
                    % {"product": product, "image": added.image},
                    field="file",
                )
            obj.__dict__.update(added.image.__dict__)
            return
        if "box" in form.changed_data:
            gallery.set_box(obj, given["box"])
        if "product" in form.changed_data and not gallery.move_images([obj], given["product"]):
            messages.warning(
                request, _("That product has this picture already, so this one was removed.")
            )

    def delete_model(self, request: HttpRequest, obj: GalleryImage) -> None:
        gallery.remove_images(obj.catalogue, [obj])

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[GalleryImage]) -> None:
        rows = queryset.select_related("catalogue").order_by("catalogue")
        for catalogue, group in groupby(rows, key=lambda row: row.catalogue):
            gallery.remove_images(catalogue, group)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        return [str(obj) for obj in objs[:20]], going({GalleryImage: len(objs)}), set(), []

    @action(description=_("Move to another product"), permissions=["change"])
    def move(self, request: HttpRequest, queryset: QuerySet[GalleryImage]) -> HttpResponse | None:
        catalogues = set(queryset.order_by().values_list("catalogue", flat=True).distinct())
        if len(catalogues) > 1:
            messages.error(request, _("Choose pictures of one catalogue only."))
            return None
        if not catalogues:  # a worker took them out of the state that the list shows
            messages.warning(request, _("The chosen pictures are not in this list any more."))
            return None
        [catalogue] = catalogues

        def act(label: str) -> None:
            to = Product.objects.filter(catalogue=catalogue, label=clean_label(label)).first()
            if to is None:
                raise NotFound(
                    gettext("this catalogue has no product “%(label)s”") % {"label": label}
                )
            count = gallery.move_images(queryset, to)
            messages.success(
                request,
                ngettext("%(n)d picture moved.", "%(n)d pictures moved.", count) % {"n": count},
            )

        chosen = forms.CharField(
            label=_("Label of the product"),
            max_length=MAX_LABEL_LENGTH,
            validators=[check_line],
            widget=UnfoldAdminTextInputWidget,
        )
        return choose(self, request, chosen, act, title=str(_("Move to another product")))

    @action(description=_("Try failed ones again"), permissions=["change"])
    def try_again(self, request: HttpRequest, queryset: QuerySet[GalleryImage]) -> None:
        count = gallery_embedding.retry(queryset)
        messages.success(
            request,
            ngettext("%(n)d picture waits.", "%(n)d pictures wait.", count) % {"n": count},
        )

    @action(description=_("Embed again"), permissions=["change"])
    def embed_again(self, request: HttpRequest, queryset: QuerySet[GalleryImage]) -> None:
        tell_embedded_again(request, queryset)


def tell_embedded_again(request: HttpRequest, queryset: QuerySet[GalleryImage]) -> None:
    """Have pictures embedded anew, and say how many that is and how many cannot be."""
    rows = list(queryset)
    count = gallery_embedding.reembed_images(rows)
    if count:
        messages.success(
            request,
            ngettext(
                "%(n)d picture waits to be embedded again; until then its old vector answers.",
                "%(n)d pictures wait to be embedded again; until then their old vectors answer.",
                count,
            )
            % {"n": count},
        )
    if bare := sum(not row.file for row in rows):
        messages.warning(
            request,
            ngettext(
                "%(n)d came as a vector without a picture, so it keeps its vector.",
                "%(n)d came as vectors without pictures, so they keep their vectors.",
                bare,
            )
            % {"n": bare},
        )
    if not rows:
        messages.warning(request, _("There are no pictures to embed."))
