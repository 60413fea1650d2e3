"""The gallery: pictures come in, go out, change their product. The next answer knows."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import IntegrityError, transaction

from recognition import tasks
from recognition.errors import BadInput, Conflict, NotFound, RecognitionError
from recognition.images import Picture, check_box
from recognition.models import BoxSource, Catalogue, GalleryImage, Product, State, User
from recognition.models.gallery import gallery_path
from recognition.models.work import retry as retry_rows
from recognition.services import files

MAX_LABEL = 255
# `add_each` stores this much at once: checked pictures are in memory until they are stored.
_CHUNK_IMAGES, _CHUNK_BYTES = 32, 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class NewImage:
    """A checked picture and what it shows. `box` is `[x1, y1, x2, y2]` in its pixels."""

    label: str
    picture: Picture
    source_name: str = ""
    box: Sequence[float] | None = None


@dataclass(frozen=True, slots=True)
class Added:
    """What became of one NewImage: its row, and whether it is new or was there already."""

    image: GalleryImage
    created: bool


@dataclass(frozen=True, slots=True)
class Upload:
    """A picture that is not read yet. `load` reads and checks it; it may raise a RecognitionError."""

    label: str
    load: Callable[[], Picture]
    source_name: str = ""
    box: Sequence[float] | None = None


def clean_label(label: str) -> str:
    """A label as it is stored: Unicode NFC, no white space at the ends.

    Raises BadInput for an empty label, one over 255 characters, or one with control characters.
    """
    label = unicodedata.normalize("NFC", label).strip()
    if not label:
        raise BadInput("the label is empty; give the product a name", field="label")
    if len(label) > MAX_LABEL:
        raise BadInput(
            f"the label has {len(label)} characters, more than {MAX_LABEL}; shorten it",
            field="label",
        )
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in label):
        raise BadInput("the label holds control characters; remove them", field="label")
    return label


def add_image(
    catalogue: Catalogue,
    label: str,
    picture: Picture,
    *,
    by: User | None,
    source_name: str = "",
    box: Sequence[float] | None = None,
) -> Added:
    """Store one gallery image and queue its embedding."""
    return add_images(catalogue, [NewImage(label, picture, source_name, box)], by=by)[0]


def add_images(catalogue: Catalogue, new: Sequence[NewImage], *, by: User | None) -> list[Added]:
    """Store gallery images, in the order given, in one transaction; their embedding is queued.

    A picture that its product already has (same bytes) is not stored again: the row that is there
    comes back with `created=False`. Products are made as needed. Raises BadInput for a bad label or
    box; then nothing is stored.
    """
    labels = [clean_label(item.label) for item in new]
    boxes = [
        list(check_box(item.box, item.picture.width, item.picture.height)) if item.box else None
        for item in new
    ]
    with files.storing() as stored, transaction.atomic():
        products = _products(catalogue, labels)
        wanted = [
            (products[label].pk, item.picture.checksum)
            for label, item in zip(labels, new, strict=True)
        ]
        known = _known(wanted)
        rows: dict[tuple[int, str], GalleryImage] = {}
        for pair, label, item, box in zip(wanted, labels, new, boxes, strict=True):
            if pair in known or pair in rows:
                continue
            image = GalleryImage(
                catalogue=catalogue,
                product=products[label],
                checksum=item.picture.checksum,
                source_name=item.source_name[:255],
                width=item.picture.width,
                height=item.picture.height,
                byte_size=len(item.picture.data),
                box=box,
                box_source=BoxSource.GIVEN if box else BoxSource.NONE,
                added_by=by,
            )
            image.file.name = files.keep(
                gallery_path(image, f"x{item.picture.suffix}"), item.picture.data
            )
            stored.append(image.file.name)
            rows[pair] = image
        if rows:
            for image, number in zip(rows.values(), catalogue.take_numbers(len(rows)), strict=True):
                image.number = number
            GalleryImage.objects.bulk_create(rows.values())
            tasks.wake(tasks.embed_images, catalogue.pk)
    return _in_order(wanted, rows, known)


def add_each(
    catalogue: Catalogue, uploads: Iterable[Upload], *, by: User | None
) -> list[Added | RecognitionError]:
    """Store what can be stored of many uploads: for each, in order, what became of it.

    A picture, label or box that is refused does not stop the others; its error takes its place.
    """
    became: dict[int, Added | RecognitionError] = {}
    waiting: dict[int, NewImage] = {}

    def store() -> None:
        became.update(zip(waiting, add_images(catalogue, [*waiting.values()], by=by), strict=True))
        waiting.clear()

    for position, upload in enumerate(uploads):
        try:
            waiting[position] = _load(upload)
        except RecognitionError as error:
            became[position] = error
        held = sum(len(new.picture.data) for new in waiting.values())
        if len(waiting) >= _CHUNK_IMAGES or held >= _CHUNK_BYTES:
            store()
    if waiting:
        store()
    return [became[position] for position in sorted(became)]


def _load(upload: Upload) -> NewImage:
    label = clean_label(upload.label)
    picture = upload.load()
    if upload.box is not None:
        check_box(upload.box, picture.width, picture.height)
    return NewImage(label, picture, upload.source_name, upload.box)


def _products(catalogue: Catalogue, labels: Sequence[str]) -> dict[str, Product]:
    """Product of each label, made where there is none; safe beside other writers."""
    unique = list(dict.fromkeys(labels))
    Product.objects.bulk_create(
        [Product(catalogue=catalogue, label=label) for label in sorted(unique)],
        ignore_conflicts=True,
    )
    return {
        product.label: product
        for product in Product.objects.filter(catalogue=catalogue, label__in=unique)
    }


def _known(wanted: Sequence[tuple[int, str]]) -> dict[tuple[int, str], GalleryImage]:
    """Rows that exist already for these (product, checksum) pairs.

    The products are locked first, so that two uploads of one picture wait for each other instead
    of both finding nothing.
    """
    product_ids = sorted({product_id for product_id, _ in wanted})
    list(
        Product.objects.filter(pk__in=product_ids)
        .order_by("pk")
        .select_for_update(no_key=True)
        .values_list("pk", flat=True)
    )
    found = GalleryImage.objects.filter(
        product_id__in=product_ids, checksum__in={checksum for _, checksum in wanted}
    )
    return {(image.product_id, image.checksum): image for image in found}


def _in_order(
    wanted: Sequence[tuple[int, str]],
    rows: dict[tuple[int, str], GalleryImage],
    known: dict[tuple[int, str], GalleryImage],
) -> list[Added]:
    answer, seen = [], set()
    for pair in wanted:
        created = pair in rows and pair not in seen
        seen.add(pair)
        answer.append(Added(rows.get(pair) or known[pair], created))
    return answer


@transaction.atomic
def remove_images(catalogue: Catalogue, images: Iterable[GalleryImage]) -> int:
    """Remove gallery images with their vectors; gone from every answer once this commits.

    Products stay, even without images. Returns how many images that was.
    """
    ids = [image.pk for image in images]
    rows = list(
        GalleryImage.objects.filter(catalogue=catalogue, pk__in=ids)
        .order_by("pk")
        .select_for_update()
    )
    if not rows:
        return 0
    files.remove_on_commit([row.file.name for row in rows])
    GalleryImage.objects.filter(pk__in=[row.pk for row in rows]).delete()
    catalogue.touch()
    return len(rows)


def remove_numbers(catalogue: Catalogue, numbers: Iterable[int]) -> tuple[int, list[int]]:
    """Remove images by vector id; returns how many went and which ids were unknown."""
    wanted = list(dict.fromkeys(numbers))
    images = list(GalleryImage.objects.filter(catalogue=catalogue, number__in=wanted))
    known = {image.number for image in images}
    return remove_images(catalogue, images), [n for n in wanted if n not in known]


@transaction.atomic
def change_product(product: Product, **changes: Any) -> Product:
    """Change fields of a product. No vector moves, and the next answer shows it.

    Raises BadInput for a bad label, Conflict when another product has the label already.
    """
    if "label" in changes:
        changes["label"] = clean_label(changes["label"])
        others = Product.objects.filter(catalogue=product.catalogue, label=changes["label"])
        if others.exclude(pk=product.pk).exists():
            raise Conflict(
                f"this catalogue already has a product “{changes['label']}”; merge the two, "
                "or choose another label",
                field="label",
            )
    for field, value in changes.items():
        setattr(product, field, value)
    try:
        with transaction.atomic():
            product.save(update_fields=[*changes, "changed_at"])
    except IntegrityError as error:  # somebody else took the label a moment ago
        raise Conflict(
            f"this catalogue already has a product “{product.label}”", field="label"
        ) from error
    product.catalogue.touch()
    return product


def create_product(catalogue: Catalogue, label: str, **fields: Any) -> Product:
    """Make a product without images. Raises BadInput, or Conflict when the label is taken."""
    label = clean_label(label)
    with transaction.atomic():
        product, created = Product.objects.get_or_create(
            catalogue=catalogue, label=label, defaults=fields
        )
        if not created:
            raise Conflict(f"this catalogue already has a product “{label}”", field="label")
        catalogue.touch()
    return product


@transaction.atomic
def remove_product(product: Product) -> None:
    """Remove a product with all its images and vectors."""
    files.remove_on_commit(product.images.values_list("file", flat=True))
    catalogue = product.catalogue
    product.delete()
    catalogue.touch()


@transaction.atomic
def move_images(images: Iterable[GalleryImage], to: Product) -> int:
    """Relabel: give images to another product of the same catalogue. No vector moves.

    A picture that the product has already is removed instead. Raises NotFound when an image is of
    another catalogue.
    """
    rows = list(
        GalleryImage.objects.filter(pk__in=[image.pk for image in images])
        .order_by("pk")
        .select_for_update()
    )
    if any(row.catalogue_id != to.catalogue_id for row in rows):
        raise NotFound("an image is not in this product's catalogue", field="images")
    there = set(to.images.values_list("checksum", flat=True))
    doubles = [row for row in rows if row.checksum in there and row.product_id != to.pk]
    moved = [row for row in rows if row not in doubles]
    remove_images(to.catalogue, doubles)
    GalleryImage.objects.filter(pk__in=[row.pk for row in moved]).update(product=to)
    to.catalogue.touch()
    return len(moved)


def retry(images: Iterable[GalleryImage]) -> int:
    """Try failed images again; returns how many are pending now."""
    rows = list(images)
    with transaction.atomic():
        count = retry_rows(rows)
        for catalogue_id in {row.catalogue_id for row in rows}:
            tasks.wake(tasks.embed_images, catalogue_id)
    return count


def reembed(catalogue: Catalogue) -> int:
    """Have every image embedded anew, for instance after the crop policy changed."""
    with transaction.atomic():
        count = GalleryImage.objects.filter(catalogue=catalogue).update(
            state=State.PENDING, error="", attempts=0, lease_until=None
        )
        tasks.wake(tasks.embed_images, catalogue.pk)
    return count
