"""Which pictures are of one product: several made one, and one made two. No vector moves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from recognition.errors import BadInput, NotFound
from recognition.models import Action, GalleryImage, Product
from recognition.services import audit, gallery, product_fields, products
from recognition.services.locks import lock_merges, lock_product_names, lock_products


@transaction.atomic
def merge(others: Iterable[Product], into: Product) -> Product:
    """Give all images of `others` to `into`, which keeps its own fields; returns it.

    No vector moves. A picture that `into` has already is removed. The merged products are gone, and
    `products.find` leads from their ids to `into`. Raises NotFound when one is gone or of another
    catalogue, BadInput when there is nothing to merge.
    """
    catalogue = into.catalogue
    sources = {product.pk for product in others}
    if not sources or into.pk in sources:
        raise BadInput(
            _("name one or more other products to merge into this one"), field="products"
        )
    lock_merges(catalogue)
    locked = lock_products(catalogue, [into, *(Product(pk=product_id) for product_id in sources)])
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
    audit.record_products(
        Action.PRODUCT_MERGE,
        gone,
        target,
        catalogue=catalogue,
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
        raise BadInput(_("name the images that the new product gets"), field="images")
    values = product_fields.clean({"label": label, **fields})
    lock_product_names(catalogue)
    [whole] = lock_products(catalogue, [product])
    rows = list(
        GalleryImage.objects.filter(product=whole, pk__in=ids).order_by("pk").select_for_update()
    )
    if len(rows) != len(ids):
        missing = min(ids - {row.pk for row in rows})
        raise NotFound(_("the product has no image %(id)s") % {"id": missing}, field="images")
    made = products.insert(catalogue, {"is_active": whole.is_active} | values)
    GalleryImage.objects.filter(pk__in=ids).update(product=made)
    catalogue.touch()
    audit.record(
        Action.PRODUCT_SPLIT,
        made,
        catalogue=catalogue,
        changes=audit.differences(product_fields.blank(), product_fields.values(made)),
        of=whole.pk,
        of_label=whole.label,
        images=len(rows),
        ids=audit.ids(rows),
    )
    return made
