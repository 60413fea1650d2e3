"""Products: found, made, changed, one or many. The next answer knows, and no vector moves."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _

from recognition.errors import BadInput, Conflict, NotFound, RecognitionError
from recognition.models import Action, Catalogue, Product
from recognition.services import audit, product_fields
from recognition.services.locks import lock_product_names, lock_products

_MOST_SHOWN = 200  # characters of a value in an entry about many products


@dataclass(frozen=True, slots=True)
class Upserted:
    """What became of one item of `bulk_upsert`: its product, or the reason why there is none.

    `written` is `{field: [before, after]}` of one that was there; empty, and `changed` False, when
    it was as the item says already.
    """

    product: Product | None
    created: bool = False
    written: Mapping[str, list[Any]] = field(default_factory=dict)
    error: RecognitionError | None = None

    @property
    def changed(self) -> bool:
        return bool(self.written)


def find(catalogue: Catalogue, product_id: int) -> Product:
    """The living product of that id, or the one it was merged into.

    Raises NotFound, also for what is in the trash.
    """
    row = (
        Product.everything.select_related("merged_into")
        .filter(catalogue=catalogue, pk=product_id)
        .first()
    )
    found = None if row is None else row.now
    if found is None:
        raise NotFound(_("this catalogue has no product %(id)s") % {"id": product_id})
    return found


def labelled(catalogue: Catalogue, labels: Sequence[str]) -> dict[str, Product]:
    """Product of each label, made where there is none, locked until the commit.

    The lock makes two uploads of one picture wait for each other instead of both finding nothing.
    """
    unique = sorted(set(labels))
    rows = Product.objects.filter(catalogue=catalogue, label__in=unique)
    while True:
        with transaction.atomic():
            known = set(rows.values_list("label", flat=True))
            if new := [label for label in unique if label not in known]:
                lock_product_names(catalogue, shared=True)
                Product.objects.bulk_create(
                    [Product(catalogue=catalogue, label=label) for label in new],
                    ignore_conflicts=True,
                )
            locked = rows.order_by("pk").select_for_update(no_key=True)
            products = {row.label: row for row in locked}
            if len(products) == len(unique):
                return products
            # One was renamed or removed a moment ago. Without letting go of the others its label
            # could not be waited for.
            transaction.set_rollback(True)


@transaction.atomic
def create(catalogue: Catalogue, label: str, **fields: Any) -> Product:
    """Make a product without images.

    Raises BadInput naming the field, Conflict when the label or the external id is taken.
    """
    product = insert(catalogue, product_fields.clean({"label": label, **fields}))
    catalogue.touch()
    audit.record(
        Action.PRODUCT_CREATE,
        product,
        catalogue=catalogue,
        changes=audit.differences(product_fields.blank(), product_fields.values(product)),
    )
    return product


def insert(catalogue: Catalogue, values: Mapping[str, Any]) -> Product:
    """Write a new product with clean values and nothing else; whoever calls touches and records.

    Raises as `create`.
    """
    product = Product(catalogue=catalogue, **values)
    _save(product, force_insert=True)
    return product


@transaction.atomic
def change(product: Product, **changes: Any) -> Product:
    """Change fields of a product, `product` itself included. No vector moves.

    Raises BadInput naming the field, Conflict when a label or external id is taken, NotFound when
    the product is gone.
    """
    values = product_fields.clean(changes)
    lock_if_renamed(product.catalogue, changes)
    _read_locked(product)
    if written := _change(product, values):
        product.catalogue.touch()
        audit.record(Action.PRODUCT_CHANGE, product, catalogue=product.catalogue, changes=written)
    return product


def lock_if_renamed(catalogue: Catalogue, changes: Collection[str]) -> None:
    """To be called before a product is locked that gets these fields."""
    if not {"label", "external_id"}.isdisjoint(changes):
        lock_product_names(catalogue)


@transaction.atomic
def change_many(catalogue: Catalogue, products: Iterable[Product], **changes: Any) -> int:
    """Give many products the same values (not a label or id); returns how many changed.

    Raises BadInput naming the field, NotFound when one is gone.
    """
    values = product_fields.clean(changes)
    for name in ("label", "external_id"):
        if name in values:
            raise BadInput(_("many products cannot have one %(name)s") % {"name": name}, field=name)
    rows = lock_products(catalogue, products)
    written = {row.pk: changes for row in rows if (changes := _change(row, values))}
    changed = [row for row in rows if row.pk in written]
    if changed:
        catalogue.touch()
        audit.record(
            Action.PRODUCT_CHANGE,
            catalogue=catalogue,
            count=len(changed),
            changes={name: [None, value] for name, value in values.items()},
            ids=audit.ids(changed),
            each=_each(written),
        )
    return len(changed)


def _each(written: Mapping[int, Mapping[str, list[Any]]]) -> dict[int, dict[str, list[Any]]]:
    """What was before and after in the first of many products, long values cut short."""
    first = list(written.items())[: audit.MOST_IDS]
    return {
        pk: {name: [_short(value) for value in both] for name, both in changes.items()}
        for pk, changes in first
    }


def _short(value: Any) -> Any:
    text = str(value)
    return value if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def _read_locked(product: Product) -> None:
    """Lock a living product until the commit and read it again. Raises NotFound."""
    catalogue = product.catalogue
    living = Product.objects.filter(catalogue=catalogue)
    try:
        product.refresh_from_db(from_queryset=living.select_for_update(no_key=True))
    except Product.DoesNotExist as error:
        raise NotFound(_("the product was removed, merged or moved meanwhile")) from error
    product.catalogue = catalogue  # the caller's own, whose version moves


def _change(product: Product, values: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Write what is different; returns that as `{field: [before, after]}`."""
    before = product_fields.values(product)
    written = audit.differences(before, values)
    if not written:
        return {}
    for name in written:
        setattr(product, name, values[name])
    try:
        _save(product, update_fields=[*written, "changed_at"])
    except RecognitionError:
        for name in written:
            setattr(product, name, before[name])
        raise
    return written


def _save(product: Product, **how: Any) -> None:
    """Raises BadInput for a price without a currency, Conflict for what is taken."""
    if product.price is not None and not product.currency:
        raise BadInput(_("a price needs a currency (ISO 4217, such as EUR)"), field="currency")
    try:
        with transaction.atomic():
            product.save(**how)
    except IntegrityError as error:
        raise _taken(product, error) from error


def _taken(product: Product, error: IntegrityError) -> Conflict:
    """Which of the unique things it was."""
    name = getattr(getattr(error.__cause__, "diag", None), "constraint_name", "")
    if name == "product_label_per_catalogue":
        return Conflict(
            _(
                "this catalogue already has a product “%(label)s”; merge the two, or choose "
                "another label"
            )
            % {"label": product.label},
            field="label",
        )
    if name == "product_external_id_per_catalogue":
        return Conflict(
            _("this catalogue already has a product with the external id “%(id)s”")
            % {"id": product.external_id},
            field="external_id",
        )
    raise error


def bulk_upsert(
    catalogue: Catalogue, items: Sequence[Mapping[str, Any]], *, add_to: Collection[str] = ()
) -> list[Upserted]:
    """Make or change products by their `external_id`; for each item, in order, what became of it.

    An item holds `external_id` and any other fields; a new product needs a `label`. Fields that are
    not given stay as they are, and what is in the maps of `add_to` (`names`, `attributes`) unless
    it is given. An item that is refused does not stop the others and writes nothing.
    """
    became: dict[int, Upserted] = {}
    wanted: dict[int, dict[str, Any]] = {}
    seen: set[str] = set()
    for position, item in enumerate(items):
        try:
            values = product_fields.clean(item)
            external_id = values.get("external_id", "")
            if not external_id:
                raise BadInput(_("an item needs an external_id"), field="external_id")
            if external_id in seen:
                raise BadInput(
                    _("the external id “%(id)s” is in this call already") % {"id": external_id},
                    field="external_id",
                )
            seen.add(external_id)
            wanted[position] = values
        except RecognitionError as error:
            became[position] = Upserted(None, error=error)
    with transaction.atomic():
        _upsert(catalogue, wanted, became, add_to)
    return [became[position] for position in range(len(items))]


def _upsert(
    catalogue: Catalogue,
    wanted: Mapping[int, dict[str, Any]],
    became: dict[int, Upserted],
    add_to: Collection[str],
) -> None:
    lock_product_names(catalogue)
    external_ids = [values["external_id"] for values in wanted.values()]
    living = Product.objects.filter(catalogue=catalogue, external_id__in=external_ids)
    known = set(living.values_list("external_id", flat=True))
    merged = dict(
        Product.everything.filter(
            catalogue=catalogue, external_id__in=external_ids, merged_into__isnull=False
        ).values_list("external_id", "merged_into")
    )
    # New ones first and by label, then locks by primary key: the order in which pictures are added.
    new = [position for position, values in wanted.items() if values["external_id"] not in known]
    for position in sorted(new, key=lambda position: wanted[position].get("label", "")):
        became[position] = _made(catalogue, wanted[position], merged)
    rows = {row.external_id: row for row in living.order_by("pk").select_for_update(no_key=True)}
    for position, values in wanted.items():
        if position not in became:
            became[position] = _changed(rows.get(values["external_id"]), values, add_to)
    done = [one for one in became.values() if one.created or one.changed]
    if done:
        catalogue.touch()
        created = [one.product for one in done if one.created and one.product]
        changed = [one.product for one in done if one.changed and one.product]
        audit.record(
            Action.PRODUCT_UPSERT,
            catalogue=catalogue,
            count=len(done),
            created=len(created),
            changed=len(changed),
            refused=sum(one.error is not None for one in became.values()),
            ids=audit.ids([*created, *changed]),
            each=_each(
                {one.product.pk: one.written for one in done if one.product and one.written}
            ),
        )


def _made(
    catalogue: Catalogue, values: Mapping[str, Any], merged: Mapping[str, int | None]
) -> Upserted:
    external_id = values["external_id"]
    try:
        if external_id in merged:
            raise Conflict(
                _(
                    "the product with the external id “%(id)s” was merged into product "
                    "%(into)s; change that one, or split it first"
                )
                % {"id": external_id, "into": merged[external_id]},
                field="external_id",
            )
        if "label" not in values:
            raise BadInput(
                _(
                    "there is no product with the external id “%(id)s” yet, and a new one needs a "
                    "label"
                )
                % {"id": external_id},
                field="label",
            )
        return Upserted(insert(catalogue, values), created=True)
    except RecognitionError as error:
        return Upserted(None, error=error)


def _changed(
    product: Product | None, values: Mapping[str, Any], add_to: Collection[str]
) -> Upserted:
    if product is None:
        return Upserted(None, error=NotFound(_("the product was removed a moment ago")))
    maps = {
        name: {**getattr(product, name), **value}
        for name, value in values.items()
        if name in add_to
    }
    try:
        return Upserted(product, written=_change(product, {**values, **product_fields.clean(maps)}))
    except RecognitionError as error:
        return Upserted(None, error=error)
