"""The gallery: pictures come in, go out, change their product. The next answer knows.

Rows are locked in one order everywhere, so that nobody deadlocks: products, images, catalogues,
users, each by primary key. A worker locks images and then the catalogue.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.core.exceptions import ValidationError
from django.db import connection, transaction
from django.db.models import Q

from recognition import tasks
from recognition.errors import BadInput, Conflict, NotFound, RecognitionError
from recognition.gallery_list import MAX_LABEL_LENGTH, clean_label
from recognition.images import Picture, check_box
from recognition.models import (
    Action,
    BoxSource,
    Catalogue,
    GalleryImage,
    Product,
    State,
    User,
)
from recognition.models.gallery import gallery_path
from recognition.models.product import check_line
from recognition.models.work import retry as retry_rows
from recognition.services import audit, backpressure, files, quotas

MAX_LABEL = MAX_LABEL_LENGTH
MAX_EXTERNAL_ID = 255
# `add_each` stores this much at once: checked pictures are in memory until they are stored.
_CHUNK_IMAGES, _CHUNK_BYTES = 32, 32 * 1024 * 1024
_IDS_LOCK = 0x5EED  # class of our advisory locks


@dataclass(frozen=True, slots=True)
class NewImage:
    """A checked picture and what it shows. `box` is `[x1, y1, x2, y2]` in its pixels.

    `external_id` is the caller's own: the image that has it already is replaced.
    """

    label: str
    picture: Picture
    source_name: str = ""
    box: Sequence[float] | None = None
    external_id: str = ""


@dataclass(frozen=True, slots=True)
class Added:
    """What became of one NewImage: its row, and whether it is new or was there already.

    `duplicate_of` is an image of the catalogue, of whichever product, that has the same bytes:
    `image` itself when it was there already, None when there is no other. `replaced` says that an
    image with the same external id made place for this one.
    """

    image: GalleryImage
    created: bool
    duplicate_of: GalleryImage | None = None
    replaced: bool = False


@dataclass(frozen=True, slots=True)
class Upload:
    """A picture not read yet. `load` reads and checks it; it may raise a RecognitionError."""

    label: str
    load: Callable[[], Picture]
    source_name: str = ""
    box: Sequence[float] | None = None
    external_id: str = ""


def clean_external_id(external_id: str) -> str:
    """A caller's own id as it is stored: one line, no white space at the ends; may be empty.

    Raises BadInput for control characters and for more than 255 characters.
    """
    external_id = external_id.strip()
    if len(external_id) > MAX_EXTERNAL_ID:
        raise BadInput(
            f"the external id is longer than {MAX_EXTERNAL_ID} characters", field="external_id"
        )
    try:
        check_line(external_id)
    except ValidationError as error:
        raise BadInput(f"external_id: {error.message}", field="external_id") from error
    return external_id


def add_image(
    catalogue: Catalogue,
    label: str,
    picture: Picture,
    *,
    by: User | None,
    source_name: str = "",
    box: Sequence[float] | None = None,
    external_id: str = "",
) -> Added:
    """Store one gallery image and queue its embedding."""
    return add_images(catalogue, [NewImage(label, picture, source_name, box, external_id)], by=by)[
        0
    ]


def add_images(catalogue: Catalogue, new: Sequence[NewImage], *, by: User | None) -> list[Added]:
    """Store gallery images, in the order given, in one transaction; their embedding is queued.

    A picture that its product already has (same bytes) is not stored again: the row that is there
    comes back with `created=False`. One whose external id is there already replaces it in the same
    moment, with a vector id of its own; where the bytes are the same, only the product changes and
    no vector moves. Products are made as needed.

    Raises BadInput for a bad label, box or external id, StorageFull when a quota is used up; then
    nothing is stored.
    """
    items = [_clean(item) for item in new]
    with files.storing() as stored, transaction.atomic():
        shelf = _Shelf(catalogue, items)
        added = [shelf.put(item, by, stored) for item in items]
        shelf.write()
        _record_added(catalogue, items, added, by)
    return added


def _clean(item: NewImage) -> NewImage:
    box = item.box
    if box is not None:
        box = list(check_box(box, item.picture.width, item.picture.height))
    return replace(
        item,
        label=clean_label(item.label),
        box=box,
        external_id=clean_external_id(item.external_id),
    )


class _Shelf:
    """The part of a gallery that a call of `add_images` is about, locked until it commits."""

    def __init__(self, catalogue: Catalogue, items: Sequence[NewImage]) -> None:
        self._catalogue = catalogue
        external_ids = [item.external_id for item in items if item.external_id]
        if twice := [one for one, times in Counter(external_ids).items() if times > 1]:
            raise BadInput(
                f"the external id “{twice[0]}” is given to {Counter(external_ids)[twice[0]]} "
                "pictures of one call",
                field="external_id",
            )
        if external_ids:
            _lock_ids(catalogue)
        self._products = _products(catalogue, [item.label for item in items])
        # Locked, so that what is said to be there already is there until the commit. In the trash
        # too: an id that comes back replaces what has it there.
        checksums = {item.picture.checksum for item in items}
        wanted = Q(checksum__in=checksums, removed_at=None)
        if external_ids:
            wanted |= Q(external_id__in=external_ids)
        rows = GalleryImage.everything.filter(wanted, catalogue=catalogue).order_by("pk")
        self._by_id: dict[str, GalleryImage] = {}
        self._same: dict[str, list[GalleryImage]] = {}
        for row in rows.select_for_update(no_key=True):
            if row.external_id in external_ids:
                self._by_id[row.external_id] = row
            if row.checksum in checksums and row.removed_at is None:
                self._same.setdefault(row.checksum, []).append(row)
        self._new: list[GalleryImage] = []
        self._gone: list[GalleryImage] = []
        self._changed: list[GalleryImage] = []

    def put(self, item: NewImage, by: User | None, stored: list[str]) -> Added:
        """Decide what becomes of one picture; a new file is stored at once, rows by `write`."""
        product = self._products[item.label]
        checksum = item.picture.checksum
        same = self._same.setdefault(checksum, [])
        twin = next((row for row in same if row.product_id == product.pk), None)
        held = self._by_id.get(item.external_id)
        if held is not None and held is not twin:
            held = next((row for row in same if row.pk == held.pk), held)
        if held is not None and held in same and (item.box is None or item.box == held.box):
            if twin is None:  # the same picture under the same id, of another product now
                held.product = product
                self._changed.append(held)
                twin = held
            if twin is held:
                return Added(held, created=False, duplicate_of=held)
        if held is not None:
            self._gone.append(held)
            if held in same:
                same.remove(held)
            if twin is held:
                twin = None
        if twin is not None:
            if item.external_id and not twin.external_id:
                twin.external_id = item.external_id
                if twin.pk is not None:
                    self._changed.append(twin)
            return Added(twin, created=False, duplicate_of=twin, replaced=held is not None)
        row = self._store(product, item, by, stored)
        duplicate = same[0] if same else None
        same.append(row)
        return Added(row, created=True, duplicate_of=duplicate, replaced=held is not None)

    def _store(
        self, product: Product, item: NewImage, by: User | None, stored: list[str]
    ) -> GalleryImage:
        row = GalleryImage(
            catalogue=self._catalogue,
            product=product,
            external_id=item.external_id,
            checksum=item.picture.checksum,
            source_name=item.source_name[:255],
            width=item.picture.width,
            height=item.picture.height,
            byte_size=len(item.picture.data),
            box=item.box,
            box_source=BoxSource.GIVEN if item.box else BoxSource.NONE,
            added_by=by,
        )
        row.file.name = files.keep(gallery_path(row, f"x{item.picture.suffix}"), item.picture.data)
        stored.append(row.file.name)
        self._new.append(row)
        return row

    def write(self) -> None:
        """Write what was decided, old rows first: their ids may be taken by the new ones."""
        images, byte_size = _delete(self._gone)
        GalleryImage.objects.bulk_update(self._changed, ["product", "external_id"])
        if self._new:
            size = sum(row.byte_size for row in self._new)
            numbers = self._catalogue.take_numbers(len(self._new), byte_size=size)
            for row, number in zip(self._new, numbers, strict=True):
                row.number = number
            GalleryImage.objects.bulk_create(self._new)
            tasks.wake(tasks.embed_images, self._catalogue.pk)
        if self._gone or self._changed:
            self._catalogue.touch(images=-images, byte_size=-byte_size)
        if self._new:
            quotas.check_stored(self._catalogue)


def _record_added(
    catalogue: Catalogue, items: Sequence[NewImage], added: Sequence[Added], by: User | None
) -> None:
    created = [one.image for one in added if one.created]
    replaced = sum(one.replaced for one in added)
    if created or replaced:
        audit.record(
            Action.IMAGE_ADD,
            created[0] if len(created) == 1 else None,
            catalogue=catalogue,
            by=by,
            count=len(created),
            ids=audit.ids(created),
            labels=sorted({item.label for item in items})[:10],
            replaced=replaced,
        )


def has_already(image: GalleryImage) -> str:
    """Why a picture was not stored again, for reports."""
    return f"the product has this picture already (id {image.number})"


def add_each(
    catalogue: Catalogue, uploads: Iterable[Upload], *, by: User | None
) -> list[Added | RecognitionError]:
    """Store what can be stored of many uploads: for each, in order, what became of it.

    A picture, label or box that is refused does not stop the others; its error takes its place.
    Raises LimitReached when too many of the catalogue's images wait already.
    """
    backpressure.check_images(catalogue)
    became: dict[int, Added | RecognitionError] = {}
    waiting: dict[int, NewImage] = {}

    def store() -> None:
        try:
            added = add_images(catalogue, [*waiting.values()], by=by)
            became.update(zip(waiting, added, strict=True))
        except RecognitionError as error:
            if len(waiting) == 1:
                became.update(dict.fromkeys(waiting, error))
            else:  # what does not fit together may fit one by one
                for position, new in waiting.items():
                    try:
                        [became[position]] = add_images(catalogue, [new], by=by)
                    except RecognitionError as reason:
                        became[position] = reason
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
    label, external_id = clean_label(upload.label), clean_external_id(upload.external_id)
    picture = upload.load()
    if upload.box is not None:
        check_box(upload.box, picture.width, picture.height)
    return NewImage(label, picture, upload.source_name, upload.box, external_id)


def _products(catalogue: Catalogue, labels: Sequence[str]) -> dict[str, Product]:
    """Product of each label, made where there is none, locked until the commit.

    The lock makes two uploads of one picture wait for each other instead of both finding nothing.
    """
    unique = sorted(set(labels))
    while True:
        Product.objects.bulk_create(
            [Product(catalogue=catalogue, label=label) for label in unique], ignore_conflicts=True
        )
        rows = Product.objects.filter(catalogue=catalogue, label__in=unique)
        products = {row.label: row for row in rows.order_by("pk").select_for_update(no_key=True)}
        if len(products) == len(unique):  # else one was renamed or removed a moment ago
            return products


def _delete(rows: Sequence[GalleryImage]) -> tuple[int, int]:
    """Delete locked rows, their vectors and, after the commit, files; returns images and bytes."""
    if not rows:
        return 0, 0
    files.remove_on_commit([row.file.name or "" for row in rows])
    GalleryImage.everything.filter(pk__in=[row.pk for row in rows]).delete()
    return len(rows), sum(row.byte_size for row in rows)


@transaction.atomic
def remove_images(catalogue: Catalogue, images: Iterable[GalleryImage]) -> int:
    """Remove gallery images with their vectors; gone from every answer once this commits.

    Products stay, even without images. Returns how many images that was.
    """
    rows = list(
        GalleryImage.objects.filter(catalogue=catalogue, pk__in=[image.pk for image in images])
        .order_by("pk")
        .select_for_update()
    )
    if not rows:
        return 0
    gone = audit.ids(rows)
    images_gone, byte_size = _delete(rows)
    catalogue.touch(images=-images_gone, byte_size=-byte_size)
    audit.record(
        Action.IMAGE_REMOVE,
        rows[0] if len(rows) == 1 else None,
        catalogue=catalogue,
        count=len(rows),
        ids=gone,
        numbers=[row.number for row in rows[: audit.MOST_IDS]],
    )
    return len(rows)


def remove_numbers(catalogue: Catalogue, numbers: Iterable[int]) -> tuple[int, list[int]]:
    """Remove images by vector id; returns how many went and which ids were unknown."""
    wanted = list(dict.fromkeys(numbers))
    images = list(GalleryImage.objects.filter(catalogue=catalogue, number__in=wanted))
    known = {image.number for image in images}
    return remove_images(catalogue, images), [n for n in wanted if n not in known]


@transaction.atomic
def move_images(images: Iterable[GalleryImage], to: Product) -> int:
    """Relabel: give images to another product of the same catalogue. No vector moves.

    A picture that the product has already is removed instead. Returns how many it has got. Raises
    NotFound when an image is of another catalogue, or the product is gone.
    """
    ids = [image.pk for image in images]
    lock_products(to.catalogue, [to])
    named = GalleryImage.objects.filter(pk__in=ids).select_related("product")
    rows = list(named.order_by("pk").select_for_update(of=("self",)))
    if any(row.catalogue_id != to.catalogue_id for row in rows):
        raise NotFound("an image is not in this product's catalogue", field="images")
    coming = [row for row in rows if row.product_id != to.pk]
    moved = give(coming, to)
    if coming:
        to.catalogue.touch()
        before = sorted({row.product.label for row in coming})
        audit.record(
            Action.IMAGE_MOVE,
            to,
            catalogue=to.catalogue,
            count=moved,
            changes={"label": [before[0] if len(before) == 1 else before[:10], to.label]},
            ids=audit.ids(coming),
            came_from={row.number: row.product_id for row in coming[: audit.MOST_IDS]},
            doubles_removed=len(coming) - moved,
        )
    return moved


def lock_products(catalogue: Catalogue, products: Iterable[Product]) -> list[Product]:
    """Lock living products of a catalogue until the commit, and read them again; in the order of
    their primary keys. Raises NotFound when one is gone or not of this catalogue."""
    ids = {product.pk for product in products}
    rows = list(
        Product.objects.filter(catalogue=catalogue, pk__in=ids)
        .order_by("pk")
        .select_for_update(no_key=True)
    )
    if len(rows) != len(ids):
        missing = min(ids - {row.pk for row in rows})
        raise NotFound(f"this catalogue has no product {missing}", field="products")
    return rows


def give(rows: Sequence[GalleryImage], to: Product) -> int:
    """Give locked images to a locked product of the same catalogue; returns how many it got.

    What it has already is deleted, counted in the catalogue, and not counted here.
    """
    coming = [row for row in rows if row.product_id != to.pk]
    there = set(to.images.values_list("checksum", flat=True))
    moved: list[GalleryImage] = []
    doubles: list[GalleryImage] = []
    for row in coming:
        (doubles if row.checksum in there else moved).append(row)
        there.add(row.checksum)
    if doubles:
        images, byte_size = _delete(doubles)
        to.catalogue.touch(images=-images, byte_size=-byte_size)
    GalleryImage.objects.filter(pk__in=[row.pk for row in moved]).update(product=to)
    return len(moved)


@transaction.atomic
def relabel(catalogue: Catalogue, images: Iterable[GalleryImage], label: str) -> int:
    """`move_images` to the product with that label, made if there is none."""
    [to] = _products(catalogue, [clean_label(label)]).values()
    to.catalogue = catalogue
    return move_images(images, to)


@transaction.atomic
def set_external_id(image: GalleryImage, external_id: str) -> GalleryImage:
    """Give an image another id of the caller's, or none (empty). No answer changes.

    Raises BadInput for a bad id, Conflict when another image has it, NotFound.
    """
    wanted = clean_external_id(external_id)
    _lock_ids(image.catalogue)
    row = GalleryImage.objects.select_for_update().filter(pk=image.pk).first()
    if row is None:
        raise NotFound("the image was removed meanwhile")
    others = GalleryImage.everything.filter(catalogue=row.catalogue_id).exclude(pk=row.pk)
    if wanted and (other := others.filter(external_id=wanted).first()):
        raise Conflict(
            f"image {other.number} has the external id “{wanted}” already", field="external_id"
        )
    if row.external_id != wanted:
        changes = {"external_id": [row.external_id, wanted]}
        row.external_id = image.external_id = wanted
        row.save(update_fields=["external_id"])
        audit.record(Action.IMAGE_CHANGE, row, catalogue=row.catalogue, changes=changes)
    return image


def _lock_ids(catalogue: Catalogue) -> None:
    """Two calls that both find nobody with an id would otherwise both write it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [_IDS_LOCK, catalogue.pk % 2**31])


@transaction.atomic
def change_image(image: GalleryImage, **changes: Any) -> GalleryImage:
    """Change `label` or `product` (a row), `external_id`, `box` of an image: all of it or nothing.

    A new product and a new id move no vector; a new box has the image embedded anew. Raises
    BadInput, NotFound, Conflict for an id that is taken, or a product that has the picture already.
    """
    if "external_id" in changes:
        _lock_ids(image.catalogue)  # before any row, as `add_images` does
    if "product" in changes:
        move_images([image], changes["product"])
    elif "label" in changes:
        relabel(image.catalogue, [image], changes["label"])
    row = GalleryImage.objects.select_related("product", "catalogue").filter(pk=image.pk).first()
    if row is None:
        raise Conflict(
            "that product has this picture already; remove one of the two instead", field="label"
        )
    if "external_id" in changes:
        set_external_id(row, changes["external_id"])
    if "box" in changes:
        set_box(row, changes["box"])
    return row


@transaction.atomic
def set_box(image: GalleryImage, box: Sequence[float] | None) -> GalleryImage:
    """Say where in the picture the product is (None: leave it to the detector), and embed anew.

    Until that is done the old vector answers. Raises BadInput for a box outside of the picture.
    """
    wanted = list(check_box(box, image.width, image.height)) if box is not None else None
    row = GalleryImage.objects.select_for_update().filter(pk=image.pk).first()
    if row is None:
        raise NotFound("the image was removed meanwhile")
    source = BoxSource.GIVEN if wanted else BoxSource.NONE
    if (row.box, row.box_source) == (wanted, source):
        return image
    audit.record(
        Action.IMAGE_CHANGE, row, catalogue=row.catalogue, changes={"box": [row.box, wanted]}
    )
    image.box, image.box_source = wanted, source
    image.state, image.error, image.attempts, image.lease_until = State.PENDING, "", 0, None
    image.save(update_fields=["box", "box_source", "state", "error", "attempts", "lease_until"])
    tasks.wake(tasks.embed_images, image.catalogue_id)
    row.catalogue.touch()
    return image


def retry(images: Iterable[GalleryImage]) -> int:
    """Try failed images again; returns how many are pending now."""
    rows = list(images)
    pending = 0
    with transaction.atomic():
        for catalogue in Catalogue.objects.filter(pk__in={row.catalogue_id for row in rows}):
            mine = [row for row in rows if row.catalogue_id == catalogue.pk]
            if count := retry_rows(mine):
                tasks.wake(tasks.embed_images, catalogue.pk)
                audit.record(
                    Action.IMAGE_RETRY, catalogue=catalogue, count=count, ids=audit.ids(mine)
                )
                pending += count
    return pending


def reembed(catalogue: Catalogue) -> int:
    """Have every image embedded anew, for instance after the crop policy changed.

    Those in the trash too, as soon as they are restored. What came as a vector without a picture
    keeps its vector. Returns how many images that is.
    """
    with transaction.atomic():
        rows = GalleryImage.everything.filter(catalogue=catalogue).exclude(file="")
        count = rows.update(state=State.PENDING, error="", attempts=0, lease_until=None)
        if count:
            tasks.wake(tasks.embed_images, catalogue.pk)
            audit.record(Action.IMAGE_REEMBED, catalogue, catalogue=catalogue, count=count)
    return count


@transaction.atomic
def reembed_images(images: Iterable[GalleryImage]) -> int:
    """`reembed` of some images, of any catalogues; until it is done their old vectors answer.

    Returns how many wait now: what came as a vector without a picture keeps its vector, and what
    was removed meanwhile is gone.
    """
    rows = GalleryImage.objects.filter(pk__in=[image.pk for image in images]).exclude(file="")
    locked = list(rows.order_by("pk").select_for_update(no_key=True))
    GalleryImage.objects.filter(pk__in=[row.pk for row in locked]).update(
        state=State.PENDING, error="", attempts=0, lease_until=None
    )
    for catalogue in Catalogue.objects.filter(pk__in={row.catalogue_id for row in locked}):
        mine = [row for row in locked if row.catalogue_id == catalogue.pk]
        tasks.wake(tasks.embed_images, catalogue.pk)
        audit.record(
            Action.IMAGE_REEMBED, catalogue=catalogue, count=len(mine), ids=audit.ids(mine)
        )
    return len(locked)
