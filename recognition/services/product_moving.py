"""Products go to another catalogue: with their images, and with their vectors where those serve."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from recognition import tasks
from recognition.errors import BadInput, Conflict, TryAgain
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
from recognition.services.locks import lock_leaving, lock_product_names


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
        raise BadInput(_("the products are in this catalogue already"), field="catalogue")
    lock_product_names(to)
    rows = lock_leaving(source, several)
    ids = [row.pk for row in rows]
    images = list(GalleryImage.objects.filter(product__in=ids).order_by("pk").select_for_update())
    # Fresh from the database: which eyes the catalogues see with may have changed a moment ago.
    source, to = (
        Catalogue.objects.select_related("index", "owner").get(pk=pk) for pk in (source.pk, to.pk)
    )
    _refuse_taken(rows, images, to)
    _let_go([*ids, *Product.everything.filter(merged_into__in=ids).values_list("pk", flat=True)])
    along = _eyes(source) == _eyes(to)
    if not along and any(not image.file for image in images):
        raise Conflict(
            _(
                "some images came as vectors without pictures, and “%(catalogue)s” would have to "
                "embed them anew; add their pictures first, or choose the same feature model and "
                "crop policy"
            )
            % {"catalogue": to.name},
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
    audit.record_products(
        Action.PRODUCT_MOVE_OUT, rows, catalogue=source, images=len(images), to=str(to.key)
    )
    audit.record_products(
        Action.PRODUCT_MOVE_IN, rows, catalogue=to, images=len(images), embedded_anew=not along
    )
    return len(rows)


def _refuse_taken(rows: Sequence[Product], images: Sequence[GalleryImage], to: Catalogue) -> None:
    there = Product.objects.filter(catalogue=to)
    if taken := there.filter(label__in=[row.label for row in rows]).first():
        raise Conflict(
            _(
                "“%(catalogue)s” already has a product “%(label)s”; rename one of them, or merge "
                "them after moving"
            )
            % {"catalogue": to.name, "label": taken.label},
            field="label",
        )
    external_ids = [row.external_id for row in rows if row.external_id]
    if taken := there.filter(external_id__in=external_ids).first():
        raise Conflict(
            _("“%(catalogue)s” already has a product with the external id “%(id)s”")
            % {"catalogue": to.name, "id": taken.external_id},
            field="external_id",
        )
    external_ids = [image.external_id for image in images if image.external_id]
    if image := GalleryImage.everything.filter(catalogue=to, external_id__in=external_ids).first():
        raise Conflict(
            _("“%(catalogue)s” already has an image with the external id “%(id)s”")
            % {"catalogue": to.name, "id": image.external_id},
            field="external_id",
        )


def _let_go(product_ids: Sequence[int]) -> None:
    """Nothing of the catalogue they leave may show what becomes of them elsewhere.

    Whoever follows a product that was merged into one of them gets there too.
    """
    Match.objects.filter(product__in=product_ids).update(product=None)
    Feedback.objects.filter(product__in=product_ids).update(product=None)
    images = GalleryImage.objects.filter(product__in=product_ids)
    Match.objects.filter(image__in=images).update(image=None)
    JobLine.objects.filter(image__in=images).update(image=None)


def _eyes(catalogue: Catalogue) -> tuple[object, ...]:
    """What a catalogue sees a picture with; the same eyes make the same vectors of it."""
    model = catalogue.require_index().feature_model_id
    if catalogue.crop_policy == CropPolicy.WHOLE:
        return model, catalogue.crop_policy
    return model, catalogue.crop_policy, catalogue.detector, catalogue.det_threshold


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
            gallery.put_again(image)
    GalleryImage.objects.bulk_update(
        images,
        ["catalogue", "number", "state", "error", "attempts", "lease_until"],
        batch_size=1000,
    )
    quotas.check_stored(to)
    # Behind the locks of both: another network may have been chosen a moment ago.
    for catalogue in (source, to):
        now = Catalogue.objects.select_related("index").get(pk=catalogue.pk)
        if _eyes(now) != _eyes(catalogue):
            raise TryAgain(
                _("“%(catalogue)s” got another network or crops otherwise now; move them again")
                % {"catalogue": catalogue.name}
            )
    if any(image.state == State.PENDING for image in images):
        tasks.wake(tasks.embed_images, to.pk)
