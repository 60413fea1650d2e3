"""Gallery images wait for a worker once more: those that failed, or all that have a picture."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import transaction
from django.db.models import QuerySet

from recognition import tasks
from recognition.models import Action, Catalogue, GalleryImage, State
from recognition.services import audit


def retry(images: Iterable[GalleryImage]) -> int:
    """Try failed images again; returns how many are pending now."""
    rows = GalleryImage.objects.filter(pk__in=[image.pk for image in images], state=State.FAILED)
    return _again(rows, Action.IMAGE_RETRY)


def reembed(catalogue: Catalogue) -> int:
    """Have every image embedded anew, for instance after the crop policy changed.

    Those in the trash too, as soon as they are restored. What came as a vector without a picture
    keeps its vector. Returns how many images that is.
    """
    return _all_again(catalogue, GalleryImage.everything.select_for_update(no_key=True))


def reembed_rest(catalogue: Catalogue) -> bool:
    """`reembed` of what was embedded while that ran, in its transaction, with the catalogue locked.

    Whoever changes an image holds it before waiting for the catalogue, so that one is not waited
    for. Returns False when there is such a one.
    """
    rows = GalleryImage.everything.filter(state=State.DONE)
    _all_again(catalogue, rows.select_for_update(no_key=True, skip_locked=True))
    return not rows.filter(catalogue=catalogue).exclude(file="").exists()


@transaction.atomic
def _all_again(catalogue: Catalogue, rows: QuerySet[GalleryImage]) -> int:
    """Have a worker take all of a catalogue's that have a picture; returns how many that is."""
    # Locked in order by the statement that writes them, however many there are.
    ids = rows.filter(catalogue=catalogue).exclude(file="").order_by("pk").values("pk")
    count = GalleryImage.everything.filter(pk__in=ids).again()
    if count:
        tasks.wake(tasks.embed_images, catalogue.pk)
        audit.record(Action.IMAGE_REEMBED, catalogue, catalogue=catalogue, count=count)
    return count


def reembed_images(images: Iterable[GalleryImage]) -> int:
    """`reembed` of some images, of any catalogues; until it is done their old vectors answer.

    Returns how many wait now: what came as a vector without a picture keeps its vector, and what
    was removed meanwhile is gone.
    """
    rows = GalleryImage.objects.filter(pk__in=[image.pk for image in images]).exclude(file="")
    return _again(rows, Action.IMAGE_REEMBED)


@transaction.atomic
def _again(rows: QuerySet[GalleryImage], action: Action) -> int:
    """Have a worker take these once more; returns how many that is."""
    locked = list(rows.order_by("pk").select_for_update(no_key=True))
    GalleryImage.objects.filter(pk__in=[row.pk for row in locked]).again()
    for catalogue in Catalogue.objects.filter(pk__in={row.catalogue_id for row in locked}):
        mine = [row for row in locked if row.catalogue_id == catalogue.pk]
        tasks.wake(tasks.embed_images, catalogue.pk)
        audit.record(action, catalogue=catalogue, count=len(mine), ids=audit.ids(mine))
    return len(locked)
