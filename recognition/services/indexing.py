"""Gallery images become vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.utils import translation
from django.utils.translation import gettext as _

from recognition import images, search, tasks
from recognition.engine.types import Box, Pixels, Vectors
from recognition.errors import Conflict, ModelUnavailable, RecognitionError, TryAgain
from recognition.models import (
    BoxSource,
    Catalogue,
    CropPolicy,
    GalleryImage,
    State,
    VectorIndex,
    View,
)
from recognition.models.gallery import GalleryImageQuerySet
from recognition.models.work import may_leave_more
from recognition.services import bell, embed_jobs, files, workers
from recognition.services.portions import portions
from recognition.services.runtime import get_runtime

log = structlog.get_logger(__name__)

Within = Callable[[], AbstractContextManager[None]]


@dataclass(slots=True)
class _Crop:
    """One view of one image on its way through the network."""

    image: GalleryImage
    view: View
    pixels: Pixels


_last_served = 0
"""Id of the catalogue that this worker served last."""


def embed_in_turn(catalogue_id: int) -> None:
    """Embed one batch of the catalogue whose turn it is.

    A wake-up of any catalogue is taken as one of all: a catalogue that got a thousand pictures one
    by one has a thousand wake-ups in the queue, and would otherwise be served as often before one
    that comes after it. While more may be waiting, the wake-up goes to the back of the queue again,
    before this batch is worked on: the next worker that is free need not wait for its end.
    """
    global _last_served
    _last_served = served = _next_after(_last_served) or catalogue_id
    claimed = _claim(served)
    if may_leave_more(claimed, settings.SHITU_BATCH_SIZE) or served != catalogue_id:
        tasks.wake(tasks.embed_images, catalogue_id)
    try:
        _embed_claimed(served, claimed)
    except ModelUnavailable as error:
        if served == catalogue_id:
            raise
        log.error("other_catalogue_failed", catalogue=served, reason=error.message)


def _next_after(catalogue_id: int) -> int | None:
    """The next catalogue, by id and round again, that has waiting images."""
    waiting = (
        GalleryImage.objects.waiting()
        .order_by("catalogue_id")
        .values_list("catalogue_id", flat=True)
    )
    return waiting.filter(catalogue_id__gt=catalogue_id).first() or waiting.first()


def embed_waiting(catalogue_id: int) -> bool:
    """Embed one batch of the catalogue's waiting images; True when more may be waiting.

    Twice is as good as once: vectors are upserted on (space, image, view). An image that cannot be
    embedded fails alone, with its reason; one removed meanwhile leaves nothing behind.
    """
    claimed = _claim(catalogue_id)
    _embed_claimed(catalogue_id, claimed)
    return may_leave_more(claimed, settings.SHITU_BATCH_SIZE)


def _claim(catalogue_id: int) -> list[GalleryImage]:
    return GalleryImage.objects.filter(catalogue=catalogue_id).claim(settings.SHITU_BATCH_SIZE)


def _embed_claimed(catalogue_id: int, claimed: Sequence[GalleryImage]) -> None:
    """See `embed_waiting`. Raises ModelUnavailable, once all of them have failed with it, and
    TryAgain when the storage is away."""
    if not claimed:
        return
    # Read behind the claim: whoever changes how it sees takes claimed images back afterwards.
    catalogue = (
        Catalogue.objects.select_related("index__feature_model").filter(pk=catalogue_id).first()
    )
    if catalogue is None:  # removed, and the images with it
        return
    try:
        for part in portions(claimed):
            _embed_part(catalogue, part)
    except ModelUnavailable as error:
        _fail(claimed, error.message)
        raise
    except TryAgain:
        # Again when the lease has run out, as often as it takes: this was no attempt.
        _still_ours(claimed).update(attempts=F("attempts") - 1)
        raise
    finally:
        bell.embedded(catalogue.pk)
        embed_jobs.look(catalogue.pk)


def _embed_part(catalogue: Catalogue, rows: Sequence[GalleryImage]) -> None:
    pictures: list[tuple[GalleryImage, Pixels]] = []
    with _decoders() as pool:
        for image, read in zip(rows, pool.map(_decode, rows), strict=True):
            if isinstance(read, str):
                _fail([image], read)
            else:
                pictures.append((image, read))
    try:
        _embed(catalogue, pictures)
    except ModelUnavailable:
        raise
    except RecognitionError as error:
        # One bad picture must not fail its neighbours.
        log.warning("batch_failed_so_one_by_one", catalogue=catalogue.pk, reason=error.message)
        for picture in pictures:
            try:
                _embed(catalogue, [picture])
            except RecognitionError as reason:
                _fail([picture[0]], reason.message)


def _decoders() -> ThreadPoolExecutor:
    """Threads for `_decode`: reading and decoding release the GIL."""
    return ThreadPoolExecutor(
        max_workers=2,
        initializer=translation.activate,  # a thread does not inherit it
        initargs=(translation.get_language(),),
    )


def _decode(image: GalleryImage) -> Pixels | str:
    """Pixels of the image's file, or the reason why there are none. Touches no database.

    Raises TryAgain when the storage does not answer.
    """
    if not image.file:
        return _("it came as a vector without a picture, so it cannot be embedded; add its picture")
    try:
        return images.decode(files.read(image.file.name))
    except TryAgain:  # the storage is away, and says nothing of the picture
        raise
    except RecognitionError as error:
        return error.message
    except OSError:
        return _("its file is missing or unreadable; add the picture again")


def _embed(catalogue: Catalogue, pictures: Sequence[tuple[GalleryImage, Pixels]]) -> None:
    """Crop, embed and store pictures of one catalogue; all of them or none."""
    if not pictures:
        return
    model = catalogue.require_index().feature_model
    with workers.counting(len(pictures)):
        crops = _crops(catalogue, pictures)
        vectors = get_runtime().embed(
            model.name,
            [crop.pixels for crop in crops],
            batch_size=settings.SHITU_BATCH_SIZE,
            expected_digest=model.digest,
        )
    _finish(catalogue, crops, vectors)


def embed_into(space: VectorIndex, rows: Sequence[GalleryImage], within: Within) -> dict[int, str]:
    """Give images that are embedded already their vectors in another space of their catalogue, too.

    Same crops, another network; nothing of the images changes. One that got another box meanwhile
    is left out. `within` makes the transactions that store some; what it raises stops it. Returns,
    by image id, why an image could not be embedded. Raises ModelUnavailable; Conflict when the
    catalogue has another crop policy by now than `space.catalogue`.
    """
    failed: dict[int, str] = {}
    for part in portions(rows):
        failed |= _embed_part_into(space, part, within)
    return failed


def _embed_part_into(
    space: VectorIndex, rows: Sequence[GalleryImage], within: Within
) -> dict[int, str]:
    failed: dict[int, str] = {}
    pictures: list[tuple[GalleryImage, Pixels]] = []
    with _decoders() as pool:
        for image, read in zip(rows, pool.map(_decode, rows), strict=True):
            if isinstance(read, str):
                failed[image.pk] = read
            else:
                pictures.append((image, read))
    try:
        _embed_into(space, pictures, within)
    except (ModelUnavailable, Conflict):  # of all of them
        raise
    except RecognitionError:
        for picture in pictures:
            try:
                _embed_into(space, [picture], within)
            except Conflict:
                raise
            except RecognitionError as reason:
                failed[picture[0].pk] = reason.message
    return failed


def _embed_into(
    space: VectorIndex,
    pictures: Sequence[tuple[GalleryImage, Pixels]],
    within: Within,
) -> None:
    model = space.feature_model
    crops = _crops(space.catalogue, pictures, detect=False)
    with workers.counting(len(pictures)):
        vectors = get_runtime().embed(
            model.name,
            [crop.pixels for crop in crops],
            batch_size=settings.SHITU_BATCH_SIZE,
            expected_digest=model.digest,
        )
    with within():
        there = _as_seen([image for image, _pixels in pictures])
        # Behind the images' locks: whoever changes the policy takes them first, and has them
        # embedded anew, which empties the spaces beside.
        policy = space.catalogue.crop_policy
        if not Catalogue.objects.filter(pk=space.catalogue_id, crop_policy=policy).exists():
            raise Conflict(
                _(
                    "the crop policy of the catalogue was changed meanwhile; start again once its "
                    "images are embedded anew"
                ),
                field="crop_policy",
            )
        keep = [position for position, crop in enumerate(crops) if crop.image.pk in there]
        search.keep_views(space, list(there), views(space.catalogue))
        search.store(
            space,
            [crops[position].image.pk for position in keep],
            [crops[position].view for position in keep],
            vectors[keep],
        )


def _as_seen(rows: Sequence[GalleryImage]) -> set[int]:
    """Lock embedded images until the commit; the ids of those that have the box they had."""
    boxes = {row.pk: (row.box, row.box_source) for row in rows}
    images = GalleryImage.objects.filter(pk__in=boxes, state=State.DONE).order_by("pk")
    locked = images.select_for_update(no_key=True).values_list("pk", "box", "box_source")
    return {pk for pk, *box in locked if tuple(box) == boxes[pk]}


def views(catalogue: Catalogue) -> list[View]:
    """The views that the catalogue's crop policy asks for."""
    return {
        CropPolicy.WHOLE: [View.WHOLE],
        CropPolicy.MAIN_BODY: [View.MAIN_BODY],
        CropPolicy.BOTH: [View.WHOLE, View.MAIN_BODY],
    }[CropPolicy(catalogue.crop_policy)]


def _crops(
    catalogue: Catalogue,
    pictures: Sequence[tuple[GalleryImage, Pixels]],
    *,
    detect: bool = True,
) -> list[_Crop]:
    """The views that the catalogue's crop policy asks for.

    A box that somebody gave wins over detection; where nothing is detected the main body is the
    whole picture. Without `detect` the boxes are those that were found before.
    """
    crops: list[_Crop] = []
    if catalogue.crop_policy != CropPolicy.MAIN_BODY:
        for image, pixels in pictures:
            given = image.box if image.box_source == BoxSource.GIVEN else None
            whole = Box.at(given).crop(pixels) if given else pixels
            crops.append(_Crop(image, View.WHOLE, whole))
    if catalogue.crop_policy != CropPolicy.WHOLE:
        if detect:
            _find_main_bodies(catalogue, pictures)
        for image, pixels in pictures:
            body = Box.at(image.box).crop(pixels) if image.box else pixels
            crops.append(_Crop(image, View.MAIN_BODY, body))
    return crops


def _find_main_bodies(
    catalogue: Catalogue, pictures: Sequence[tuple[GalleryImage, Pixels]]
) -> None:
    """Set the box of every image that nobody gave one to the best detection in it."""
    unboxed = [pair for pair in pictures if pair[0].box_source != BoxSource.GIVEN]
    if not unboxed or not catalogue.detector:
        return
    found = get_runtime().detect(
        catalogue.detector,
        [pixels for _, pixels in unboxed],
        threshold=catalogue.det_threshold,
    )
    for (image, _pixels), boxes in zip(unboxed, found, strict=True):
        best = max(boxes, key=lambda box: box.score, default=None)
        image.box = [best.x1, best.y1, best.x2, best.y2] if best else None
        image.box_source = BoxSource.DETECTED if best else BoxSource.NONE


def _finish(catalogue: Catalogue, crops: Sequence[_Crop], vectors: Vectors) -> None:
    """Vectors, states and the new version: all of it or nothing."""
    done = {crop.image.pk: crop.image for crop in crops}
    with transaction.atomic():
        # Locked in one order everywhere, so that workers, removals and moves never deadlock. Only
        # what is still ours: an image that moved, got another box or was taken over by another
        # worker meanwhile is embedded again.
        boxes = {
            pk: tuple(box)
            for pk, *box in GalleryImage.objects.filter(
                pk__in=done, catalogue=catalogue, lease_until=crops[0].image.lease_until
            )
            .order_by("pk")
            .select_for_update(no_key=True)
            .values_list("pk", "box", "box_source")
        }
        there = set(boxes)
        keep = [position for position, crop in enumerate(crops) if crop.image.pk in there]
        if not keep:
            return
        search.keep_views(catalogue.require_index(), list(there), views(catalogue))
        search.store(
            catalogue.require_index(),
            [crops[position].image.pk for position in keep],
            [crops[position].view for position in keep],
            vectors[keep],
        )
        seen_anew = [
            done[pk] for pk, box in boxes.items() if (done[pk].box, done[pk].box_source) != box
        ]
        GalleryImage.objects.bulk_update(seen_anew, ["box", "box_source"])
        GalleryImage.objects.filter(pk__in=there).update(
            state=State.DONE, error="", lease_until=None
        )
        catalogue.touch()
        # Behind the catalogue's lock: another network, or other views, may have been chosen while
        # this one worked.
        if Catalogue.objects.filter(
            pk=catalogue.pk, index=catalogue.index_id, crop_policy=catalogue.crop_policy
        ).exists():
            # What is beside it may be of another box; `model_switch` embeds what is missing there.
            for beside in catalogue.spaces.exclude(pk=catalogue.require_index().pk):
                search.keep_views(beside, list(there), [])
        else:
            GalleryImage.objects.filter(pk__in=there).again()
            tasks.wake(tasks.embed_images, catalogue.pk)


def _fail(rows: Sequence[GalleryImage], reason: str) -> None:
    _still_ours(rows).fail(reason)


def _still_ours(rows: Sequence[GalleryImage]) -> GalleryImageQuerySet:
    """Of images that were claimed together; another worker may have embedded the others
    meanwhile."""
    return GalleryImage.objects.filter(
        pk__in=[row.pk for row in rows], lease_until=rows[0].lease_until
    )
