"""The thing to be named."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Self

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxLengthValidator, MinValueValidator
from django.db import models
from django.db.models import F, Func, Q, TextField
from django.utils.translation import get_language
from django.utils.translation import gettext_lazy as _

from recognition import languages
from recognition.currencies import CURRENCIES
from recognition.models.catalogue import Catalogue, InCatalogueQuerySet
from recognition.models.counting import counted

MAX_ATTRIBUTES = 200
MAX_KEY = 64
MAX_VALUE = 2000
MAX_LIST = 100
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029]")
_UNPRINTABLE_LINES = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def check_line(value: str) -> None:
    """One line of text that PostgreSQL can store. Raises ValidationError."""
    if found := _UNPRINTABLE.search(value):
        raise ValidationError(_("it holds the control character U+%04X") % ord(found[0]))


def check_lines(value: str) -> None:
    """Text that may have several lines. Raises ValidationError."""
    if found := _UNPRINTABLE_LINES.search(value):
        raise ValidationError(_("it holds the control character U+%04X") % ord(found[0]))


def check_names(value: Any) -> None:
    """`{language tag: name}`. Raises ValidationError."""
    if not isinstance(value, dict):
        raise ValidationError(_("write names as an object: {language tag: name}"))
    if len(value) > MAX_ATTRIBUTES:
        raise ValidationError(_("more than %d names") % MAX_ATTRIBUTES)
    for tag, name in value.items():
        if not isinstance(tag, str) or languages.canonical(tag) is None:
            raise ValidationError(_("%r is no language tag; write one such as en or zh-Hans") % tag)
        if not isinstance(name, str) or not name.strip() or len(name) > 255:
            raise ValidationError(_("the name in %s must be text of 1 to 255 characters") % tag)
        check_line(name)


def check_attributes(value: Any) -> None:
    """`{name: text, number, true or false, or a list of those}`. Raises ValidationError."""
    if not isinstance(value, dict):
        raise ValidationError(_("write attributes as an object: {name: value}"))
    if len(value) > MAX_ATTRIBUTES:
        raise ValidationError(_("more than %d attributes") % MAX_ATTRIBUTES)
    for key, inner in value.items():
        if not isinstance(key, str) or not 1 <= len(key) <= MAX_KEY or key != key.strip():
            raise ValidationError(
                _("the attribute name %(key)r must be text of 1 to %(most)d characters")
                % {"key": key, "most": MAX_KEY}
            )
        check_line(key)
        values = inner if isinstance(inner, list) else [inner]
        if len(values) > MAX_LIST:
            raise ValidationError(_("%r holds more than 100 values") % key)
        for one in values:
            _check_value(key, one)


def _check_value(key: str, value: Any) -> None:
    if isinstance(value, str):
        if len(value) > MAX_VALUE:
            raise ValidationError(_("%r holds text of more than 2000 characters") % key)
        check_lines(value)
    elif isinstance(value, bool):
        return
    elif isinstance(value, int | float):
        if not abs(value) < 1e300:  # NaN neither; compared as it is, for no float holds 10**400
            raise ValidationError(_("%r is no number that can be compared") % key)
    else:
        raise ValidationError(
            _("%r must be text, a number, true or false, or a list of those; leave it out if empty")
            % key
        )


def check_category(value: str) -> None:
    """A path such as `drinks/tea`. Raises ValidationError."""
    check_line(value)
    if value and any(not part.strip() for part in value.split("/")):
        raise ValidationError(_("write a category as a path such as drinks/tea, no empty parts"))


def check_currency(value: str) -> None:
    """An ISO 4217 code. Raises ValidationError."""
    if value and value not in CURRENCIES:
        raise ValidationError(_("“%s” is no currency of ISO 4217; write one such as EUR") % value)


class ProductQuerySet(InCatalogueQuerySet):
    def in_trash(self) -> Self:
        """Removed, not yet purged, and not merged into another."""
        return self.filter(removed_at__isnull=False, merged_into__isnull=True)

    def matching(self, text: str) -> Self:
        """Those with `text` in the label, a name in any language, the category or an id."""
        names = Func(
            F("names"),
            template="jsonb_path_query_array(%(expressions)s, '$.*')::text",
            output_field=TextField(),
        )
        where = Q(names_text__icontains=text)
        for name in ("label", "category", "sku", "barcode", "external_id"):
            where |= Q(**{f"{name}__icontains": text})
        return self.alias(names_text=names).filter(where)

    def with_image_count(self) -> Self:
        """With `image_count`; in the trash the images are there with their product."""
        from recognition.models.gallery import GalleryImage  # which have a product

        return self.annotate(image_count=counted(GalleryImage.everything, "product"))


class LivingProducts(models.Manager.from_queryset(ProductQuerySet)):  # type: ignore[misc]
    """Without the trash, so that nobody can forget to leave it out."""

    def get_queryset(self) -> ProductQuerySet:
        return super().get_queryset().filter(removed_at__isnull=True)


class Product(models.Model):
    """One product of one catalogue; `label` is its name in answers and unique in the catalogue.

    `external_id` is the caller's own stable id. `names` are by language (BCP 47). A product in the
    trash has `removed_at`; one that was merged stays as a row that says into which other. Both are
    inactive, so no answer knows them, and only `everything` shows them.
    """

    catalogue = models.ForeignKey(
        Catalogue, on_delete=models.CASCADE, related_name="products", verbose_name=_("catalogue")
    )
    label = models.CharField(_("label"), max_length=255)
    external_id = models.CharField(
        _("external id"),
        max_length=255,
        blank=True,
        default="",
        validators=[check_line],
        help_text=_("your own stable id"),
    )
    names = models.JSONField(
        _("names"),
        default=dict,
        blank=True,
        validators=[check_names],
        help_text=_("by language tag, such as en or zh-Hans"),
    )
    sku = models.CharField(
        _("SKU"), max_length=100, blank=True, default="", validators=[check_line]
    )
    barcode = models.CharField(
        _("barcode"), max_length=100, blank=True, default="", validators=[check_line]
    )
    price = models.DecimalField(
        _("price"),
        max_digits=14,
        decimal_places=4,
        null=True,
        blank=True,
        validators=[MinValueValidator(0)],
    )
    currency = models.CharField(
        _("currency"),
        max_length=3,
        blank=True,
        default="",
        validators=[check_currency],
        help_text=_("ISO 4217, such as EUR"),
    )
    description = models.TextField(
        _("description"),
        blank=True,
        default="",
        validators=[check_lines, MaxLengthValidator(20_000)],
    )
    category = models.CharField(
        _("category"),
        max_length=255,
        blank=True,
        default="",
        validators=[check_category],
        help_text=_("path such as drinks/tea"),
    )
    attributes = models.JSONField(
        _("attributes"),
        default=dict,
        blank=True,
        validators=[check_attributes],
        help_text=_("text, numbers, true or false, and lists of those, by name"),
    )
    is_active = models.BooleanField(
        _("active"), default=True, help_text=_("inactive products are never an answer")
    )
    removed_at = models.DateTimeField(_("removed"), null=True, editable=False)
    was_active = models.BooleanField(
        _("was active"), default=True, editable=False, help_text=_("before it went to the trash")
    )
    merged_into = models.ForeignKey(
        "self",
        on_delete=models.CASCADE,
        null=True,
        editable=False,
        related_name="merged",
        verbose_name=_("merged into"),
    )
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    changed_at = models.DateTimeField(_("changed"), auto_now=True)

    objects = LivingProducts()
    everything = ProductQuerySet.as_manager()

    class Meta:
        ordering = ["label", "pk"]
        verbose_name = _("product")
        verbose_name_plural = _("products")
        constraints = [
            models.UniqueConstraint(
                fields=["catalogue", "label"],
                condition=Q(removed_at=None),
                name="product_label_per_catalogue",
            ),
            models.UniqueConstraint(
                fields=["catalogue", "external_id"],
                condition=Q(removed_at=None) & ~Q(external_id=""),
                name="product_external_id_per_catalogue",
            ),
            models.CheckConstraint(
                condition=Q(removed_at=None) | Q(is_active=False),
                name="product_removed_is_inactive",
            ),
            models.CheckConstraint(
                condition=Q(price=None) | ~Q(currency=""), name="product_price_has_currency"
            ),
        ]
        indexes = [
            models.Index(fields=["catalogue", "category"], name="product_by_category"),
            models.Index(
                fields=["removed_at"],
                name="product_in_trash",
                condition=Q(removed_at__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return self.label

    @property
    def now(self) -> Product | None:
        """What it is by now: itself, the product it was merged into, or None once that is gone."""
        row = self.merged_into or self
        return None if row.removed_at else row

    @property
    def now_id(self) -> int | None:
        """The id that leads to it by now, told by its own row: it may be of one removed since."""
        if self.merged_into_id is not None:
            return self.merged_into_id
        return None if self.removed_at else self.pk

    def name_in(self, wanted: Iterable[str]) -> str:
        """Its name in the first of these languages (BCP 47) that it has one in, else its label."""
        tag = languages.best(wanted, self.names)
        return self.names[tag] if tag else self.label

    @property
    def page_name(self) -> str:
        """Its name in the language of the page that is being made, else its label."""
        return self.name_in([get_language() or settings.LANGUAGE_CODE])
