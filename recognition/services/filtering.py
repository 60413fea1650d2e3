"""Which products a question or a list is about: conditions as callers write them, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.db.models.expressions import RawSQL
from django.utils.translation import gettext as _

from recognition.errors import BadInput
from recognition.models import Product
from recognition.models.product import check_attributes
from recognition.search import Comparison, Filter

MOST_CONDITIONS = 20
MOST_PRODUCTS = 10_000
OPERATORS = ("=", "!=", "<", "<=", ">", ">=", "in", "contains", "exists")


def among(wanted: Mapping[str, Any]) -> Filter | None:
    """The filter of `{"categories": [...], "attributes": [...], "products": [...]}`.

    None when it lets everything through. Raises BadInput naming the part that is wrong.
    """
    products = wanted.get("products")
    found = Filter(
        categories=tuple(wanted.get("categories") or ()),
        attributes=comparisons(wanted.get("attributes") or ()),
        product_ids=None if products is None else tuple(products),
    )
    return found or None


def comparisons(items: Sequence[Mapping[str, Any]]) -> tuple[Comparison, ...]:
    """Comparisons of `{"name", "operator", "value"}`.

    `in` takes a list of values, `exists` true or false, all others one value. Raises BadInput.
    """
    if len(items) > MOST_CONDITIONS:
        raise BadInput(
            _("more than %(most)s conditions on attributes") % {"most": MOST_CONDITIONS},
            field="attributes",
        )
    return tuple(_comparison(item) for item in items)


def _comparison(item: Mapping[str, Any]) -> Comparison:
    name, operator, value = item["name"], item["operator"], item["value"]
    if operator == "exists" and not isinstance(value, bool):
        raise BadInput(
            _("%(name)s: `exists` takes true or false") % {"name": name}, field="attributes"
        )
    try:  # what no attribute can be, none can be compared with
        check_attributes({name: value})
    except ValidationError as error:
        raise BadInput(f"attributes: {' '.join(error.messages)}", field="attributes") from error
    return Comparison(name, operator, tuple(value) if isinstance(value, list) else value)


def with_attributes(
    products: QuerySet[Product], attributes: Sequence[Comparison]
) -> QuerySet[Product]:
    """Those of `products` for which every comparison holds."""
    for comparison in attributes:
        condition, params = comparison.sql()
        products = products.filter(
            # Only our own text, see Comparison.sql.
            pk__in=RawSQL(  # noqa: S611
                f"SELECT p.id FROM recognition_product p WHERE {condition}",  # noqa: S608
                params,
            )
        )
    return products
