"""The trash: a product goes there with its images, comes back as it was, or is purged in the end.

From the moment it is there no answer, list, count or id knows it. Its rows, files and vectors stay,
which is why they count for the quota, and why it comes back without being embedded again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from itertools import groupby

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from recognition import tasks
from recognition.errors import Conflict, NotFound
from recognition.gallery_list import clean_label
from recognition.models import Action, Catalogue, Embedding, GalleryImage, Product, State
from recognition.services import audit, files
from recognition.services.locks import lock_products

_PURGE_CHUNK = 50


@transaction.atomic
def put(catalogue: Catalogue, products: Iterable[Product]) -> int:
    """Put living products into the trash; returns how many. Raises NotFound when one is gone."""
    rows = lock_products(catalogue, products)
    if not rows:
        return 0
    ids, now = [row.pk for row in rows], timezone.now()
    Product.objects.filter(pk__in=ids).update(
        removed_at=now, was_active=F("is_active"), is_active=False, changed_at=now
    )
    _lock_images(ids)
    images = GalleryImage.objects.filter(product__in=ids).update(removed_at=now)
    catalogue.touch()
    audit.record_products(Action.PRODUCT_TRASH, rows, catalogue=catalogue, images=images)
    return len(rows)


@transaction.atomic
def restore(product: Product, *, label: str | None = None) -> Product:
    """Take a product out of the trash, under another label if one is given; returns it.

    Active if it was, and found at once, unless its catalogue chose another network meanwhile: then
    its images are embedded first. Raises NotFound when it is not in the trash, Conflict when its
    label or external id belongs to another product now, BadInput for a bad label.
    """
    rows = Product.everything.in_trash().select_related("catalogue").filter(pk=product.pk)
    found = rows.select_for_update(of=("self",), no_key=True).first()
    if found is None:
        raise NotFound(_("this product is not in the trash (any more)"))
    if label is not None:
        found.label = clean_label(label)
    found.removed_at, found.is_active = None, found.was_active
    try:
        with transaction.atomic():
            found.save(update_fields=["removed_at", "is_active", "label", "changed_at"])
    except IntegrityError as error:
        raise _taken(found) from error
    _lock_images([found.pk])
    mine = GalleryImage.everything.filter(product=found)
    images = mine.update(removed_at=None)
    found.catalogue.touch()
    # Behind the catalogue's lock: another network may have been chosen since it was removed.
    there = Embedding.objects.filter(space=OuterRef("catalogue__index"), image=OuterRef("pk"))
    mine.filter(~Exists(there), state=State.DONE).again()
    audit.record(Action.PRODUCT_RESTORE, found, catalogue=found.catalogue, images=images)
    # What waited for its vector when it was removed, or was told to be embedded anew meanwhile.
    tasks.wake(tasks.embed_images, found.catalogue_id)
    return found


def _taken(product: Product) -> Conflict:
    living = Product.objects.filter(catalogue=product.catalogue_id)
    if living.filter(label=product.label).exists():
        return Conflict(
            _("another product is “%(label)s” by now; restore it under another label")
            % {"label": product.label},
            field="label",
        )
    return Conflict(
        _("another product has the external id “%(id)s” by now; give that one another id first")
        % {"id": product.external_id},
        field="external_id",
    )


@transaction.atomic
def purge(catalogue: Catalogue, products: Iterable[Product]) -> int:
    """Remove products of the trash for good, with images, vectors and files; returns how many.

    What was merged into them goes too. Products that are not in the trash are left alone.
    """
    ids = [product.pk for product in products]
    rows = _locked(Product.everything.in_trash().filter(catalogue=catalogue, pk__in=ids))
    if rows:
        _purge(catalogue, rows)
    return len(rows)


def purge_expired() -> int:
    """Purge what has been in the trash for `SHITU_TRASH_DAYS`; returns how many products.

    A few at a time, so that nobody waits for a long transaction. Runs periodically.
    """
    limit = timezone.now() - timedelta(days=settings.SHITU_TRASH_DAYS)
    old = Product.everything.in_trash().filter(removed_at__lt=limit)
    purged = 0
    while True:
        chunk = list(old.select_related("catalogue").order_by("catalogue", "pk")[:_PURGE_CHUNK])
        if not chunk:
            return purged
        for catalogue, rows in groupby(chunk, key=lambda row: row.catalogue):
            purged += _purge_still_expired(catalogue, list(rows), limit)


@transaction.atomic
def _purge_still_expired(catalogue: Catalogue, rows: Sequence[Product], limit: object) -> int:
    """Somebody may have restored one since it was found."""
    ids = [row.pk for row in rows]
    locked = _locked(Product.everything.in_trash().filter(pk__in=ids, removed_at__lt=limit))
    if locked:
        _purge(catalogue, locked)
    return len(locked)


def _locked(found: QuerySet[Product]) -> list[Product]:
    """Lock products of the trash, with what was merged into them and goes too; those that are still
    there."""
    ids = [row.pk for row in found]
    both = Product.everything.filter(Q(pk__in=ids) | Q(merged_into__in=ids)).order_by("pk")
    list(both.select_for_update().values_list("pk", flat=True))
    return list(found.filter(pk__in=ids).order_by("pk"))


def _purge(catalogue: Catalogue, rows: Sequence[Product]) -> None:
    ids = [row.pk for row in rows]
    # As in `gallery.delete`.
    _lock_images(ids, no_key=False)
    images = list(GalleryImage.everything.filter(product__in=ids).values_list("file", "byte_size"))
    files.remove_on_commit([name for name, _ in images])
    Product.everything.filter(pk__in=ids).delete()
    catalogue.touch(images=-len(images), byte_size=-sum(size for _, size in images))
    audit.record_products(Action.PRODUCT_PURGE, rows, catalogue=catalogue, images=len(images))


def _lock_images(product_ids: Sequence[int], *, no_key: bool = True) -> None:
    list(
        GalleryImage.everything.filter(product__in=product_ids)
        .order_by("pk")
        .select_for_update(no_key=no_key)
        .values_list("pk", flat=True)
    )
