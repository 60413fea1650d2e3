"""Pictures come into the gallery: checked, stored, and queued for their embedding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from django.db import transaction
from django.db.models import Q
from django.utils.translation import gettext as _

from recognition import tasks
from recognition.errors import BadInput, RecognitionError
from recognition.gallery_list import clean_label
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
from recognition.services import audit, backpressure, files, gallery, products, quotas
from recognition.services.locks import lock_image_ids

# `add_each` stores this much at once: checked pictures are in memory until they are stored.
_CHUNK_IMAGES, _CHUNK_BYTES = 32, 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class NewImage:
    """A checked picture and what it shows. `box` is `[x1, y1, x2, y2]` in its pixels.

    `external_id` is the caller's own: the image that has it already is replaced. A box that was
    only detected is for a new row: nothing that is there is changed for it.
    """

    label: str
    picture: Picture
    source_name: str = ""
    box: Sequence[float] | None = None
    external_id: str = ""
    box_source: BoxSource = BoxSource.GIVEN


@dataclass(frozen=True, slots=True)
class Added:
    """What became of one NewImage: its row, and whether it is new or was there already.

    `duplicate_of` is an image of the catalogue, of whichever product, that has the same bytes:
    `image` itself when it was there already, None when there is no other. `replaced` says that an
    image with the same external id made place for this one. `changes` is what an image that was
    there took over: `{"product" | "external_id" | "box" | "file": [before, after]}`, where "file"
    says that its own was missing.
    """

    image: GalleryImage
    created: bool
    duplicate_of: GalleryImage | None = None
    replaced: bool = False
    changes: Mapping[str, Sequence[Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Upload:
    """A picture not read yet. `load` reads and checks it; it may raise a RecognitionError."""

    label: str
    load: Callable[[], Picture]
    source_name: str = ""
    box: Sequence[float] | None = None
    external_id: str = ""


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
    comes back with `created=False` and takes over a box, an external id where it has none, and the
    file where its own is missing. One whose external id is there already replaces it in the same
    moment, with a vector id of its own; where the bytes are the same, the row stays and changes its
    product. No vector moves for a new product or id; a new box has the row embedded anew, and so
    has the file if it had failed without. The same call again changes nothing.
    Products are made as needed.

    Raises BadInput for a bad label, box or external id, StorageFull when a quota is used up; then
    nothing is stored.
    """
    items = [_clean(item) for item in new]
    with transaction.atomic(), files.storing() as stored:
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
        external_id=gallery.clean_external_id(item.external_id),
    )


class _Shelf:
    """The part of a gallery that a call of `add_images` is about, locked until it commits."""

    def __init__(self, catalogue: Catalogue, items: Sequence[NewImage]) -> None:
        self._catalogue = catalogue
        external_ids = [item.external_id for item in items if item.external_id]
        if twice := [one for one, times in Counter(external_ids).items() if times > 1]:
            raise BadInput(
                _("the external id “%(id)s” is given to %(n)s pictures of one call")
                % {"id": twice[0], "n": Counter(external_ids)[twice[0]]},
                field="external_id",
            )
        if external_ids:
            lock_image_ids(catalogue)
        self._products = products.labelled(catalogue, [item.label for item in items])
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
        self._lost = files.missing(row.file.name for same in self._same.values() for row in same)
        self._new: list[GalleryImage] = []
        self._gone: list[GalleryImage] = []
        self._changed: list[GalleryImage] = []

    def put(self, item: NewImage, by: User | None, stored: list[str]) -> Added:
        """Decide what becomes of one picture; a new file is stored at once, rows by `write`.

        By which row of its product has the same bytes (`twin`) and which row of the catalogue, in
        the trash or not, has its external id (`held`):

        twin   held                          becomes
        -----  ----------------------------  ------------------------------------
        a row  none, or the twin itself      the twin
        a row  another row                   the twin; the held row goes
        none   none                          a new row
        none   one with the same bytes       the held row, of this product now
        none   one with others, or in trash  a new row; the held row goes
        """
        product = self._products[item.label]
        same = self._same.setdefault(item.picture.checksum, [])
        twin = next((row for row in same if row.product_id == product.pk), None)
        held = self._by_id.get(item.external_id)
        if twin is None and held in same:
            twin = held
        replaced = held is not None and held is not twin
        if held is not None and replaced:
            self._gone.append(held)
            if held in same:
                same.remove(held)
        if twin is not None:
            changes = self._change(twin, product, item, stored)
            return Added(twin, False, duplicate_of=twin, replaced=replaced, changes=changes)
        row = self._store(product, item, by, stored)
        duplicate = same[0] if same else None
        same.append(row)
        return Added(row, True, duplicate_of=duplicate, replaced=replaced)

    def _change(
        self, row: GalleryImage, product: Product, item: NewImage, stored: list[str]
    ) -> dict[str, Sequence[Any]]:
        """Give a row that is there what `item` says otherwise: `{name: [before, after]}`."""
        changes: dict[str, Sequence[Any]] = {}
        if row.product_id != product.pk:
            changes["product"] = [row.product_id, product.pk]
            row.product = product
        if item.external_id and not row.external_id:
            changes["external_id"] = ["", item.external_id]
            row.external_id = item.external_id
        given = item.box is not None and item.box_source == BoxSource.GIVEN
        if given and (row.box, row.box_source) != (item.box, BoxSource.GIVEN):
            changes["box"] = [row.box, item.box]
            gallery.put_box(row, item.box)
        if row.file.name in self._lost:
            changes["file"] = [None, row.checksum]
            self._keep(row, item, stored)
            if row.state != State.DONE:
                gallery.put_again(row)
        if changes and row.pk is not None:
            self._changed.append(row)
        return changes

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
            box_source=item.box_source if item.box else BoxSource.NONE,
            added_by=by,
        )
        self._keep(row, item, stored)
        self._new.append(row)
        return row

    @staticmethod
    def _keep(row: GalleryImage, item: NewImage, stored: list[str]) -> None:
        row.file.name = files.keep(gallery_path(row, f"x{item.picture.suffix}"), item.picture.data)
        stored.append(row.file.name)

    def write(self) -> None:
        """Write what was decided, old rows first: their ids may be taken by the new ones."""
        images, byte_size = gallery.delete(self._gone)
        GalleryImage.objects.bulk_update(
            self._changed, ["product", "external_id", "file", *gallery.BOXING]
        )
        if self._new:
            size = sum(row.byte_size for row in self._new)
            numbers = self._catalogue.take_numbers(len(self._new), byte_size=size)
            for row, number in zip(self._new, numbers, strict=True):
                row.number = number
            GalleryImage.objects.bulk_create(self._new)
        if any(row.state == State.PENDING for row in (*self._new, *self._changed)):
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
    changed = [one for one in added if one.changes]
    if changed:
        alone = changed[0] if len(changed) == 1 else None
        audit.record(
            Action.IMAGE_CHANGE,
            alone.image if alone else None,
            catalogue=catalogue,
            by=by,
            count=len(changed),
            changes=alone.changes if alone else None,
            ids=audit.ids([one.image for one in changed]),
        )


def embeds_as_before(catalogue: Catalogue) -> bool:
    """Whether vectors that fitted `catalogue` when it was read still do: it answers with the same
    network, of the same part of each picture.

    To be asked behind `add_images`, in one transaction: what locks the catalogue there keeps it so
    until the commit.
    """
    return Catalogue.objects.filter(
        pk=catalogue.pk, index=catalogue.require_index(), crop_policy=catalogue.crop_policy
    ).exists()


def has_already(added: Added) -> str:
    """Why a picture was not stored again, for reports."""
    said = _("the product has this picture already (id %(id)s)") % {"id": added.image.number}
    if added.changes:
        said += _("; changed: %(names)s") % {"names": ", ".join(added.changes)}
    return said


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
    label, external_id = clean_label(upload.label), gallery.clean_external_id(upload.external_id)
    picture = upload.load()
    if upload.box is not None:
        check_box(upload.box, picture.width, picture.height)
    return NewImage(label, picture, upload.source_name, upload.box, external_id)
