"""What the fields of a product may hold: checked and trimmed, before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _

from recognition import languages
from recognition.errors import BadInput
from recognition.gallery_list import clean_label
from recognition.models import Product

FIELDS = (
    "label",
    "external_id",
    "names",
    "sku",
    "barcode",
    "price",
    "currency",
    "description",
    "category",
    "attributes",
    "is_active",
)
"""What may be written; everything else about a product happens to it."""

_COLUMNS = {column.name: column for column in Product._meta.fields}


def clean(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a product as they are stored: checked, trimmed, tags and codes in their own case.

    Only those given come back. Raises BadInput naming the field.
    """
    if unknown := [name for name in fields if name not in FIELDS]:
        raise BadInput(
            _("a product has no field %(name)s; there are %(fields)s")
            % {"name": unknown[0], "fields": ", ".join(FIELDS)},
            field=unknown[0],
        )
    return {name: _clean(name, value) for name, value in fields.items()}


def _clean(name: str, value: Any) -> Any:
    if name == "label":
        if not isinstance(value, str):
            raise BadInput(_("the label must be text"), field="label")
        return clean_label(value)
    if name in ("external_id", "sku", "barcode", "currency", "category", "description"):
        if not isinstance(value, str):
            raise BadInput(_("%(name)s must be text") % {"name": name}, field=name)
        value = value.strip()
    if name == "currency":
        value = value.upper()
    if name == "category":
        value = "/".join(part.strip() for part in value.strip("/").split("/"))
    if name == "price" and value is not None:
        value = _price(value)
    if name in ("names", "attributes") and not isinstance(value, dict):
        raise BadInput(_("%(name)s must be an object") % {"name": name}, field=name)
    if name == "is_active" and not isinstance(value, bool):
        raise BadInput(_("is_active must be true or false"), field=name)
    try:
        value = _COLUMNS[name].clean(value, None)
    except ValidationError as error:
        raise BadInput(f"{name}: {' '.join(error.messages)}", field=name) from error
    if name == "names":
        named = {str(languages.canonical(tag)): text.strip() for tag, text in value.items()}
        if len(named) != len(value):
            raise BadInput(_("names: one language is there twice"), field=name)
        return named
    return value


def _price(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise BadInput(_("price must be a number"), field="price")
    try:
        price = Decimal(str(value).strip())
    except InvalidOperation as error:
        raise BadInput(
            _("price: “%(value)s” is no number") % {"value": str(value)[:50]}, field="price"
        ) from error
    if not price.is_finite():
        raise BadInput(_("price must be a finite number"), field="price")
    return price


def values(product: Product) -> dict[str, Any]:
    """What is in the fields of a product."""
    return {name: getattr(product, name) for name in FIELDS}


def blank() -> dict[str, Any]:
    """What is in the fields of a product that nobody has written to."""
    return values(Product())
