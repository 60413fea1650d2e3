"""Products: made, changed, merged, split, moved. The next answer knows, and no vector is made anew
unless another catalogue sees with other eyes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from recognition import languages, tasks
from recognition.errors import BadInput, Conflict, NotFound, RecognitionError, TryAgain
from recognition.gallery_list import clean_label
from recognition.models import (
    Action,
    Catalogue,
    CropPolicy,
    Embedding,
    Feedback,
    GalleryImage,
    JobLine,
    Match,
    Product,
    State,
)
from recognition.services import audit, gallery, quotas

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

_COLUMNS = {field.name: field for field in Product._meta.fields}
_UPSERT_LOCK = 0x5EEE  # class of our advisory locks
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


def clean(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a product as they are stored: checked, trimmed, tags and codes in their own case.

    Only those given come back. Raises BadInput naming the field.
    """
    if unknown := [name for name in fields if name not in FIELDS]:
        raise BadInput(
            f"a product has no field {unknown[0]}; there are {', '.join(FIELDS)}", field=unknown[0]
        )
    return {name: _clean(name, value) for name, value in fields.items()}


def _clean(name: str, value: Any) -> Any:
    if name == "label":
        if not isinstance(value, str):
            raise BadInput("the label must be text", field="label")
        return clean_label(value)
    if name in ("external_id", "sku", "barcode", "currency", "category", "description"):
        if not isinstance(value, str):
            raise BadInput(f"{name} must be text", field=name)
        value = value.strip()
    if name == "currency":
        value = value.upper()
    if name == "category":
        value = "/".join(part.strip() for part in value.strip("/").split("/"))
    if name == "price" and value is not None:
        value = _price(value)
    if name in ("names", "attributes") and not isinstance(value, dict):
        raise BadInput(f"{name} must be an object", field=name)
    if name == "is_active" and not isinstance(value, bool):
        raise BadInput("is_active must be true or false", field=name)
    try:
        value = _COLUMNS[name].clean(value, None)
    except ValidationError as error:
        raise BadInput(f"{name}: {' '.join(error.messages)}", field=name) from error
    if name == "names":
        named = {str(languages.canonical(tag)): text.strip() for tag, text in value.items()}
        if len(named) != len(value):
            raise BadInput("names: one language is there twice", field=name)
        return named
    return value


def _price(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise BadInput("price must be a number", field="price")
    try:
        price = Decimal(str(value).strip())
    except InvalidOperation as error:
        raise BadInput(f"price: “{str(value)[:50]}” is no number", field="price") from error
    if not price.is_finite():
        raise BadInput("price must be a finite number", field="price")
    return price


def find(catalogue: Catalogue, product_id: int) -> Product:
    """The living product of that id, or the one it was merged into.

    Raises NotFound, also for what is in the trash.
    """
    row = (
        Product.everything.select_related("merged_into")
        .filter(catalogue=catalogue, pk=product_id)
        .first()
    )
    if row is not None and row.merged_into is not None:
        row = row.merged_into
    if row is None or row.removed_at is not None:
        raise NotFound(f"this catalogue has no product {product_id}")
    return row


@transaction.atomic
def create(catalogue: Catalogue, label: str, **fields: Any) -> Product:
    """Make a product without images.

    Raises BadInput naming the field, Conflict when the label or the external id is taken.
    """
    product = _create(catalogue, clean({"label": label, **fields}))
    catalogue.touch()
    audit.record(
        Action.PRODUCT_CREATE,
        product,
        catalogue=catalogue,
        changes=audit.differences(_blank(), _values(product)),
    )
    return product


def _create(catalogue: Catalogue, values: Mapping[str, Any]) -> Product:
    product = Product(catalogue=catalogue, **values)
    _save(product, force_insert=True)
    return product


@transaction.atomic
def change(product: Product, **changes: Any) -> Product:
    """Change fields of a product, `product` itself included. No vector moves.

    Raises BadInput naming the field, Conflict when a label or external id is taken, NotFound when
    the product is gone.
    """
    values = clean(changes)
    _read_locked(product)
    if written := _change(product, values):
        product.catalogue.touch()
        audit.record(Action.PRODUCT_CHANGE, product, catalogue=product.catalogue, changes=written)
    return product


@transaction.atomic
def change_many(catalogue: Catalogue, products: Iterable[Product], **changes: Any) -> int:
    """Give many products the same values (not a label or id); returns how many changed.

    Raises BadInput naming the field, NotFound when one is gone.
    """
    values = clean(changes)
    for name in ("label", "external_id"):
        if name in values:
            raise BadInput(f"many products cannot have one {name}", field=name)
    rows = gallery.lock_products(catalogue, products)
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
        raise NotFound("the product was removed, merged or moved meanwhile") from error
    product.catalogue = catalogue  # the caller's own, whose version moves


def _change(product: Product, values: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Write what is different; returns that as `{field: [before, after]}`."""
    before = _values(product)
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
        raise BadInput("a price needs a currency (ISO 4217, such as EUR)", field="currency")
    try:
        with transaction.atomic():
            product.save(**how)
    except IntegrityError as error:
        raise _taken(product, error) from error


def bulk_upsert(catalogue: Catalogue, items: Sequence[Mapping[str, Any]]) -> list[Upserted]:
    """Make or change products by their `external_id`; for each item, in order, what became of it.

    An item holds `external_id` and any other fields; a new product needs a `label`. Fields that are
    not given stay as they are. An item that is refused does not stop the others and writes nothing.
    """
    became: dict[int, Upserted] = {}
    wanted: dict[int, dict[str, Any]] = {}
    seen: set[str] = set()
    for position, item in enumerate(items):
        try:
            values = clean(item)
            external_id = values.get("external_id", "")
            if not external_id:
                raise BadInput("an item needs an external_id", field="external_id")
            if external_id in seen:
                raise BadInput(
                    f"the external id “{external_id}” is in this call already", field="external_id"
                )
            seen.add(external_id)
            wanted[position] = values
        except RecognitionError as error:
            became[position] = Upserted(None, error=error)
    with transaction.atomic():
        _upsert(catalogue, wanted, became)
    return [became[position] for position in range(len(items))]


def _upsert(
    catalogue: Catalogue, wanted: Mapping[int, dict[str, Any]], became: dict[int, Upserted]
) -> None:
    with connection.cursor() as cursor:  # two calls that make the same products wait in line
        cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [_UPSERT_LOCK, catalogue.pk % 2**31])
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
            became[position] = _changed(rows.get(values["external_id"]), values)
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
                f"the product with the external id “{external_id}” was merged into product "
                f"{merged[external_id]}; change that one, or split it first",
                field="external_id",
            )
        if "label" not in values:
            raise BadInput(
                f"there is no product with the external id “{external_id}” yet, and a new one "
                "needs a label",
                field="label",
            )
        return Upserted(_create(catalogue, values), created=True)
    except RecognitionError as error:
        return Upserted(None, error=error)


def _changed(product: Product | None, values: Mapping[str, Any]) -> Upserted:
    if product is None:
        return Upserted(None, error=NotFound("the product was removed a moment ago"))
    try:
        return Upserted(product, written=_change(product, values))
    except RecognitionError as error:
        return Upserted(None, error=error)


@transaction.atomic
def merge(products: Iterable[Product], into: Product) -> Product:
    """Give all images of `products` to `into`, which keeps its own fields; returns it.

    No vector moves. A picture that `into` has already is removed. The merged products are gone, and
    `find` leads from their ids to `into`. Raises NotFound when one is gone or of another catalogue,
    BadInput when there is nothing to merge.
    """
    catalogue = into.catalogue
    sources = {product.pk for product in products}
    if not sources or into.pk in sources:
        raise BadInput("name one or more other products to merge into this one", field="products")
    locked = gallery.lock_products(
        catalogue, [into, *(Product(pk=product_id) for product_id in sources)]
    )
    target = next(row for row in locked if row.pk == into.pk)
    gone = [row for row in locked if row.pk != into.pk]
    images = list(
        GalleryImage.objects.filter(product__in=sources).order_by("pk").select_for_update()
    )
    target.catalogue = catalogue
    moved = gallery.give(images, target)
    now = timezone.now()
    # The ids that led to them lead on, so that nobody ever follows more than one step.
    Product.everything.filter(merged_into__in=sources).update(merged_into=target)
    for row in gone:
        row.was_active, row.is_active = row.is_active, False
        row.removed_at, row.changed_at, row.merged_into = now, now, target
    Product.everything.bulk_update(
        gone, ["was_active", "is_active", "removed_at", "changed_at", "merged_into"]
    )
    catalogue.touch()
    audit.record(
        Action.PRODUCT_MERGE,
        target,
        catalogue=catalogue,
        count=len(gone),
        ids=audit.ids(gone),
        labels=[row.label for row in gone[:10]],
        images=moved,
        doubles_removed=len(images) - moved,
    )
    into.refresh_from_db()
    return into


@transaction.atomic
def split(product: Product, images: Iterable[GalleryImage], label: str, **fields: Any) -> Product:
    """Make a new product of some images of `product`; returns it. No vector moves.

    It is active if `product` is, unless `fields` say otherwise. Raises BadInput without images or
    naming the field, Conflict when the label is taken, NotFound when an image is not the product's.
    """
    catalogue = product.catalogue
    ids = {image.pk for image in images}
    if not ids:
        raise BadInput("name the images that the new product gets", field="images")
    values = {"is_active": product.is_active} | clean({"label": label, **fields})
    gallery.lock_products(catalogue, [product])
    rows = list(
        GalleryImage.objects.filter(product=product, pk__in=ids).order_by("pk").select_for_update()
    )
    if len(rows) != len(ids):
        missing = min(ids - {row.pk for row in rows})
        raise NotFound(f"the product has no image {missing}", field="images")
    made = _create(catalogue, values)
    GalleryImage.objects.filter(pk__in=ids).update(product=made)
    catalogue.touch()
    audit.record(
        Action.PRODUCT_SPLIT,
        made,
        catalogue=catalogue,
        changes=audit.differences(_blank(), _values(made)),
        of=product.pk,
        of_label=product.label,
        images=len(rows),
        ids=audit.ids(rows),
    )
    return made


@transaction.atomic
def move(products: Iterable[Product], to: Catalogue) -> int:
    """Move products with their images to another catalogue; returns how many products.

    Images get new vector ids there. Their vectors go along when both catalogues use the same
    feature model and crop alike, else they are embedded anew. What points to them in the catalogue
    they leave (answers, reports) lets go of them, and keeps the label. All or nothing.

    The caller sees to it that the user may edit both. Raises Conflict naming the label or external
    id that is taken there, StorageFull when a quota is used up there, BadInput for the same
    catalogue, NotFound when a product is gone.
    """
    several = list(products)
    if not several:
        return 0
    source = several[0].catalogue
    if source.pk == to.pk:
        raise BadInput("the products are in this catalogue already", field="catalogue")
    rows = gallery.lock_products(source, several)
    ids = [row.pk for row in rows]
    images = list(GalleryImage.objects.filter(product__in=ids).order_by("pk").select_for_update())
    # Fresh from the database: which eyes the catalogues see with may have changed a moment ago.
    source, to = (
        Catalogue.objects.select_related("index", "owner").get(pk=pk) for pk in (source.pk, to.pk)
    )
    _refuse_taken(rows, images, to)
    _let_go(ids)
    along = _see_alike(source, to)
    if not along and any(not image.file for image in images):
        raise Conflict(
            f"some images came as vectors without pictures, and “{to.name}” would have to embed "
            "them anew; add their pictures first, or choose the same feature model and crop policy",
            field="catalogue",
        )
    _move_vectors(images, source, to, along)
    now = timezone.now()
    Product.everything.filter(merged_into__in=ids).update(catalogue=to)
    try:
        with transaction.atomic():
            Product.objects.filter(pk__in=ids).update(catalogue=to, changed_at=now)
            _move_rows(images, source, to, along)
    except IntegrityError:
        _refuse_taken(rows, images, to)  # somebody was quicker: now it is seen
        raise
    audit.record(
        Action.PRODUCT_MOVE_OUT,
        rows[0] if len(rows) == 1 else None,
        catalogue=source,
        count=len(rows),
        ids=audit.ids(rows),
        labels=[row.label for row in rows[:10]],
        images=len(images),
        to=str(to.key),
    )
    audit.record(
        Action.PRODUCT_MOVE_IN,
        rows[0] if len(rows) == 1 else None,
        catalogue=to,
        count=len(rows),
        ids=audit.ids(rows),
        labels=[row.label for row in rows[:10]],
        images=len(images),
        embedded_anew=not along,
    )
    return len(rows)


def _refuse_taken(rows: Sequence[Product], images: Sequence[GalleryImage], to: Catalogue) -> None:
    there = Product.objects.filter(catalogue=to)
    if taken := there.filter(label__in=[row.label for row in rows]).first():
        raise Conflict(
            f"“{to.name}” already has a product “{taken.label}”; rename one of them, or merge them "
            "after moving",
            field="label",
        )
    external_ids = [row.external_id for row in rows if row.external_id]
    if taken := there.filter(external_id__in=external_ids).first():
        raise Conflict(
            f"“{to.name}” already has a product with the external id “{taken.external_id}”",
            field="external_id",
        )
    external_ids = [image.external_id for image in images if image.external_id]
    if image := GalleryImage.everything.filter(catalogue=to, external_id__in=external_ids).first():
        raise Conflict(
            f"“{to.name}” already has an image with the external id “{image.external_id}”",
            field="external_id",
        )


def _let_go(product_ids: Sequence[int]) -> None:
    """Nothing of the catalogue they leave may show what becomes of them elsewhere."""
    Match.objects.filter(product__in=product_ids).update(product=None)
    Feedback.objects.filter(product__in=product_ids).update(product=None)
    images = GalleryImage.objects.filter(product__in=product_ids)
    Match.objects.filter(image__in=images).update(image=None)
    JobLine.objects.filter(image__in=images).update(image=None)


def _see_alike(one: Catalogue, other: Catalogue) -> bool:
    """Whether both make the same vectors of a picture."""

    def eyes(catalogue: Catalogue) -> tuple[object, ...]:
        model = catalogue.require_index().feature_model_id
        if catalogue.crop_policy == CropPolicy.WHOLE:
            return model, catalogue.crop_policy
        return model, catalogue.crop_policy, catalogue.detector, catalogue.det_threshold

    return eyes(one) == eyes(other)


def _move_vectors(
    images: Sequence[GalleryImage], source: Catalogue, to: Catalogue, along: bool
) -> None:
    """Those of the current model go to the other space if they serve there; all others go."""
    vectors = Embedding.objects.filter(image__in=[image.pk for image in images])
    if along:
        vectors.filter(space=source.require_index()).update(space=to.require_index())
        vectors = vectors.exclude(space=to.require_index())
    vectors.delete()


def _move_rows(
    images: Sequence[GalleryImage], source: Catalogue, to: Catalogue, along: bool
) -> None:
    """Images and counts; the two catalogues are locked in one order, whoever moves where."""
    size = sum(image.byte_size for image in images)
    numbers = range(0)
    for catalogue in sorted((source, to), key=lambda one: one.pk):
        if catalogue is to:
            numbers = to.take_numbers(len(images), byte_size=size)
        else:
            source.touch(images=-len(images), byte_size=-size)
    for image, number in zip(images, numbers, strict=True):
        image.catalogue, image.number = to, number
        if not along or image.state != State.DONE:
            image.state, image.error, image.attempts, image.lease_until = State.PENDING, "", 0, None
    GalleryImage.objects.bulk_update(
        images,
        ["catalogue", "number", "state", "error", "attempts", "lease_until"],
        batch_size=1000,
    )
    quotas.check_stored(to)
    # Behind the locks of both: another network may have been chosen a moment ago.
    for catalogue in (source, to):
        if not Catalogue.objects.filter(pk=catalogue.pk, index=catalogue.index_id).exists():
            raise TryAgain(f"“{catalogue.name}” switched to another network; move them again")
    if any(image.state == State.PENDING for image in images):
        tasks.wake(tasks.embed_images, to.pk)


def _values(product: Product) -> dict[str, Any]:
    return {name: getattr(product, name) for name in FIELDS}


def _blank() -> dict[str, Any]:
    return _values(Product())


def _taken(product: Product, error: IntegrityError) -> Conflict:
    """Which of the unique things it was."""
    name = getattr(getattr(error.__cause__, "diag", None), "constraint_name", "")
    if name == "product_label_per_catalogue":
        return Conflict(
            f"this catalogue already has a product “{product.label}”; merge the two, or choose "
            "another label",
            field="label",
        )
    if name == "product_external_id_per_catalogue":
        return Conflict(
            f"this catalogue already has a product with the external id “{product.external_id}”",
            field="external_id",
        )
    raise error
