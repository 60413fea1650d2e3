"""What lines say about products, written before their pictures are added.

In transactions of their own: to say it twice is as good as once, so a kill in between does no harm,
and nobody who adds pictures waits for us in a circle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

from django.db import IntegrityError
from django.utils import timezone
from django.utils.translation import gettext as _

from recognition.errors import Conflict
from recognition.models import Catalogue, LineResult, Product
from recognition.services import product_fields, products
from recognition.services.imports.lines import Checked
from recognition.services.locks import lock_product_names

_MAPS: Final = ("names", "attributes")
"""Fields that are added to; everything else is replaced."""

Within = Callable[[], AbstractContextManager[None]]


def describe(catalogue: Catalogue, good: Sequence[Checked], within: Within) -> None:
    """Write what the lines say; each gets the label of its product, or the reason it is refused.

    A product is the one with the line's external id, else the one with its label, made as needed.
    One that has the label and no external id yet gets it. `within` makes the transactions.
    """
    with_id = [one for one in good if one.product.get("external_id")]
    if with_id:
        _by_external_id(catalogue, with_id, within)
    rest = [one for one in good if one.result == LineResult.OK and one.product]
    if rest:
        _by_label(catalogue, rest, within)


def _by_external_id(catalogue: Catalogue, lines: Sequence[Checked], within: Within) -> None:
    ids = {one.product["external_id"] for one in lines}
    labels = {label for one in lines for label in (one.label, one.line.other_label) if label}
    known = set(
        Product.objects.filter(catalogue=catalogue, external_id__in=ids).values_list(
            "external_id", flat=True
        )
    )
    owners = dict(
        Product.objects.filter(catalogue=catalogue, label__in=labels).values_list(
            "label", "external_id"
        )
    )
    items: dict[str, dict[str, Any]] = {}
    given: dict[str, str] = {}  # ids that a product without one gets, and its label
    asked: list[Checked] = []
    for one in lines:
        external_id = one.product["external_id"]
        if external_id in given and one.label in ("", given[external_id]):
            one.label = given[external_id]
            continue
        named = external_id in known or "label" in items.get(external_id, {})
        one.label = _label(one, external_id, named, owners)
        if not named and owners.get(one.label) == "":
            given[external_id], owners[one.label] = one.label, external_id
            continue  # `_by_label` writes it
        if one.label:
            owners.setdefault(one.label, external_id)
        _merge(items, one)
        asked.append(one)
    if not items:
        return
    with within():
        upserts = products.bulk_upsert(catalogue, list(items.values()), add_to=_MAPS)
        became = dict(zip(items, upserts, strict=True))
    for one in asked:
        upserted = became[one.product["external_id"]]
        if upserted.error is not None or upserted.product is None:
            one.refuse(upserted.error.message if upserted.error else _("the product is gone"))
        else:
            one.label, one.product = upserted.product.label, {}
            if not (upserted.created or upserted.changed):
                one.told_nothing_new()


def _label(one: Checked, external_id: str, named: bool, owners: dict[str, str]) -> str:
    """What the product of a line is to be called; empty leaves it as it is called now."""
    if one.label and owners.get(one.label, "") in ("", external_id):
        return one.label
    other = one.line.other_label
    return other if other and (one.label or not named) else one.label


def _merge(items: dict[str, dict[str, Any]], one: Checked) -> None:
    """Several lines of a chunk may tell about one product; later ones win."""
    external_id = one.product["external_id"]
    item = items.setdefault(external_id, {})
    for name, value in one.product.items():
        if name in _MAPS:
            item[name] = {**item.get(name, {}), **value}
        else:
            item[name] = value
    if one.label:
        item["label"] = one.label


def _by_label(catalogue: Catalogue, lines: Sequence[Checked], within: Within) -> None:
    labels = sorted({one.label for one in lines})
    try:
        with within():
            lock_product_names(catalogue)
            named = Product.objects.filter(catalogue=catalogue, label__in=labels)
            known = set(named.values_list("label", flat=True))
            made = Product.objects.bulk_create(
                [Product(catalogue=catalogue, label=label) for label in labels],
                ignore_conflicts=True,
            )
            locked = named.order_by("pk").select_for_update(no_key=True)
            found = {row.label: row for row in locked}
            told: dict[int, Product] = {}
            for one in lines:
                product = found.get(one.label)
                if product is None:
                    one.refuse(_("its product was renamed or removed a moment ago"))
                elif _tell(product, one):
                    told[product.pk] = product
                elif one.result == LineResult.OK and one.label in known:
                    one.told_nothing_new()
            Product.objects.bulk_update(told.values(), [*product_fields.FIELDS[1:], "changed_at"])
            if told or made:
                catalogue.touch()
    except IntegrityError as error:
        raise Conflict(
            _("an external id of the list was given to another product at this moment; retry")
        ) from error


def _tell(product: Product, one: Checked) -> bool:
    """Write the fields of a line; False when there is nothing new, or it is refused."""
    before = {name: getattr(product, name) for name in one.product}
    after = {
        name: {**before[name], **value} if name in _MAPS else value
        for name, value in one.product.items()
    }
    price, currency = (after.get(name, getattr(product, name)) for name in ("price", "currency"))
    if price is not None and not currency:
        one.refuse(_("a price needs a currency (ISO 4217, such as EUR)"))
        return False
    if after == before:
        return False
    for name, value in after.items():
        setattr(product, name, value)
    product.changed_at = timezone.now()
    return True
