"""The gallery's images: removed, given to another product, given another box or id. The next answer
knows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _

from recognition import tasks
from recognition.errors import BadInput, Conflict, NotFound
from recognition.gallery_list import clean_label
from recognition.images import check_box
from recognition.models import Action, BoxSource, Catalogue, GalleryImage, Product, State
from recognition.models.product import check_line
from recognition.services import audit, files, products
from recognition.services.locks import lock_image_ids, lock_products

MAX_EXTERNAL_ID = 255
BOXING = ["box", "box_source", "state", "error", "attempts", "lease_until"]
"""The fields that `put_box` sets."""


def clean_external_id(external_id: str) -> str:
    """A caller's own id as it is stored: one line, no white space at the ends; may be empty.

    Raises BadInput for control characters and for more than 255 characters.
    """
    external_id = external_id.strip()
    if len(external_id) > MAX_EXTERNAL_ID:
        raise BadInput(
            _("the external id is longer than %(most)s characters") % {"most": MAX_EXTERNAL_ID},
            field="external_id",
        )
    try:
        check_line(external_id)
    except ValidationError as error:
        raise BadInput(f"external_id: {error.message}", field="external_id") from error
    return external_id


def remove_images(catalogue: Catalogue, images: Iterable[GalleryImage]) -> int:
    """Remove gallery images with their vectors; gone from every answer once this commits.

    Products stay, even without images. Returns how many images that was.
    """
    return len(_remove(catalogue, pk__in=[image.pk for image in images]))


def remove_numbers(catalogue: Catalogue, numbers: Iterable[int]) -> tuple[int, list[int]]:
    """Remove images by vector id; returns how many went and which ids were unknown."""
    wanted = list(dict.fromkeys(numbers))
    gone = {row.number for row in _remove(catalogue, number__in=wanted)}
    return len(gone), [n for n in wanted if n not in gone]


@transaction.atomic
def _remove(catalogue: Catalogue, **which: Any) -> list[GalleryImage]:
    """Remove the images to which that applies; returns the rows that went."""
    rows = list(
        GalleryImage.objects.filter(catalogue=catalogue, **which).order_by("pk").select_for_update()
    )
    if not rows:
        return []
    gone = audit.ids(rows)
    images_gone, byte_size = delete(rows)
    catalogue.touch(images=-images_gone, byte_size=-byte_size)
    audit.record(
        Action.IMAGE_REMOVE,
        rows[0] if len(rows) == 1 else None,
        catalogue=catalogue,
        count=len(rows),
        ids=gone,
        numbers=[row.number for row in rows[: audit.MOST_IDS]],
    )
    return rows


def delete(rows: Sequence[GalleryImage]) -> tuple[int, int]:
    """Delete locked rows, their vectors and, after the commit, files; returns images and bytes."""
    if not rows:
        return 0, 0
    files.remove_on_commit([row.file.name or "" for row in rows])
    going = GalleryImage.everything.filter(pk__in=[row.pk for row in rows])
    # An answer that is written now points to them before those are looked for, or not at all.
    list(going.order_by("pk").select_for_update().values_list("pk", flat=True))
    going.delete()
    return len(rows), sum(row.byte_size for row in rows)


@transaction.atomic
def move_images(images: Iterable[GalleryImage], to: Product) -> int:
    """Relabel: give images to another product of the same catalogue. No vector moves.

    A picture that the product has already is removed instead. Returns how many it has got. Raises
    NotFound when an image is of another catalogue, or the product is gone.
    """
    ids = [image.pk for image in images]
    lock_products(to.catalogue, [to])
    # Nothing joined: behind a lock that had to be waited for, only the locked row is read again.
    rows = list(GalleryImage.objects.filter(pk__in=ids).order_by("pk").select_for_update())
    if any(row.catalogue_id != to.catalogue_id for row in rows):
        raise NotFound(_("an image is not in this product's catalogue"), field="images")
    coming = [row for row in rows if row.product_id != to.pk]
    moved = give(coming, to)
    if coming:
        to.catalogue.touch()
        left = Product.everything.filter(pk__in={row.product_id for row in coming})
        before = sorted(left.values_list("label", flat=True))
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
        images, byte_size = delete(doubles)
        to.catalogue.touch(images=-images, byte_size=-byte_size)
    GalleryImage.objects.filter(pk__in=[row.pk for row in moved]).update(product=to)
    return len(moved)


@transaction.atomic
def relabel(catalogue: Catalogue, images: Iterable[GalleryImage], label: str) -> int:
    """`move_images` to the product with that label, made if there is none."""
    [to] = products.labelled(catalogue, [clean_label(label)]).values()
    to.catalogue = catalogue
    return move_images(images, to)


@transaction.atomic
def change_image(image: GalleryImage, **changes: Any) -> GalleryImage:
    """Change `label` or `product` (a row), `external_id`, `box` of an image: all of it or nothing.

    A new product and a new id move no vector; a new box has the image embedded anew. Raises
    BadInput, NotFound, Conflict for an id that is taken, or a product that has the picture already.
    """
    if "external_id" in changes:
        lock_image_ids(image.catalogue)  # before any row, as adding does
    if "product" in changes:
        move_images([image], changes["product"])
    elif "label" in changes:
        relabel(image.catalogue, [image], changes["label"])
    row = GalleryImage.objects.select_related("product", "catalogue").filter(pk=image.pk).first()
    if row is None:
        raise Conflict(
            _("that product has this picture already; remove one of the two instead"),
            field="label",
        )
    if "external_id" in changes:
        set_external_id(row, changes["external_id"])
    if "box" in changes:
        set_box(row, changes["box"])
    return row


@transaction.atomic
def set_external_id(image: GalleryImage, external_id: str) -> GalleryImage:
    """Give an image another id of the caller's, or none (empty). No answer changes.

    Raises BadInput for a bad id, Conflict when another image has it, NotFound.
    """
    wanted = clean_external_id(external_id)
    lock_image_ids(image.catalogue)
    row = GalleryImage.objects.select_for_update().filter(pk=image.pk).first()
    if row is None:
        raise NotFound(_("the image was removed meanwhile"))
    _refuse_taken(row, wanted)
    if row.external_id != wanted:
        changes = {"external_id": [row.external_id, wanted]}
        row.external_id = wanted
        try:
            with transaction.atomic():
                row.save(update_fields=["external_id"])
        except IntegrityError:  # products are moved here, with theirs, without waiting in that line
            _refuse_taken(row, wanted)
            raise
        image.external_id = wanted
        audit.record(Action.IMAGE_CHANGE, row, catalogue=row.catalogue, changes=changes)
    return image


def _refuse_taken(image: GalleryImage, external_id: str) -> None:
    others = GalleryImage.everything.filter(catalogue=image.catalogue_id).exclude(pk=image.pk)
    if external_id and (other := others.filter(external_id=external_id).first()):
        raise Conflict(
            _("image %(number)s has the external id “%(id)s” already")
            % {"number": other.number, "id": external_id},
            field="external_id",
        )


@transaction.atomic
def set_box(image: GalleryImage, box: Sequence[float] | None) -> GalleryImage:
    """Say where in the picture the product is (None: leave it to the detector), and embed anew.

    Until that is done the old vector answers. Raises BadInput for a box outside of the picture.
    """
    wanted = list(check_box(box, image.width, image.height)) if box is not None else None
    row = GalleryImage.objects.select_for_update().filter(pk=image.pk).first()
    if row is None:
        raise NotFound(_("the image was removed meanwhile"))
    source = BoxSource.GIVEN if wanted else BoxSource.NONE
    if (row.box, row.box_source) == (wanted, source):
        return image
    audit.record(
        Action.IMAGE_CHANGE, row, catalogue=row.catalogue, changes={"box": [row.box, wanted]}
    )
    put_box(image, wanted)
    image.save(update_fields=BOXING)
    tasks.wake(tasks.embed_images, image.catalogue_id)
    row.catalogue.touch()
    return image


def put_box(image: GalleryImage, box: Sequence[float] | None) -> None:
    """What is so of a row with another box: it waits for a worker. Saved by whoever locked it."""
    image.box, image.box_source = box, BoxSource.GIVEN if box else BoxSource.NONE
    put_again(image)


def put_again(image: GalleryImage) -> None:
    """What is so of a row that waits for a worker as if nobody had tried it; saved likewise."""
    image.state, image.error, image.attempts, image.lease_until = State.PENDING, "", 0, None
