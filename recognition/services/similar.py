"""More like this: what is near a gallery image, by the vector that is stored for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from recognition import search
from recognition.errors import Conflict
from recognition.models import Catalogue, GalleryImage, Metric
from recognition.search.store import stored
from recognition.search.wire import Vectors
from recognition.services import filtering, queries

MOST = 1000
"""So deep one can look."""


@dataclass(frozen=True, slots=True)
class Similar:
    """A product near an image, or another image of it. `score` is in the catalogue's metric."""

    catalogue: Catalogue
    product_id: int
    label: str
    number: int
    score: float


def vector_of(image: GalleryImage) -> Vectors:
    """The vector (1, D) that is stored for an image in the space that answers; of two views that of
    the whole picture. Raises Conflict before there is one."""
    vectors = stored(image.catalogue.require_index(), image.pk)
    if not len(vectors):
        raise Conflict(
            _("the image has no vector yet: it is %(state)s") % {"state": image.get_state_display()}
        )
    return vectors[:1]


def find(
    image: GalleryImage,
    *,
    limit: int,
    per_product: bool = True,
    among: Mapping[str, Any] | None = None,
    also: Sequence[Catalogue] = (),
) -> list[Similar]:
    """Up to `limit` other products, or with `per_product` off other images, nearest first.

    Found in the image's catalogue and in `also`, which the caller has seen to that the user may
    see. No worker is needed. Raises Conflict before the image has a vector, BadInput for a
    catalogue that uses another feature model or a condition that makes no sense.
    """
    catalogue = image.catalogue
    space = catalogue.require_index()
    together = [catalogue, *queries.alike(catalogue, also)]
    [found] = search.nearest(
        [one.require_index() for one in together],
        vector_of(image),
        limit=limit + 1,  # the image itself is among them
        per_product=per_product,
        among=filtering.among(among or {}),
    ).neighbours
    by_id = {one.pk: one for one in together}
    own = image.product_id
    return [
        Similar(
            by_id[one.catalogue_id],
            one.product_id,
            one.label,
            one.number,
            search.score(one.similarity, Metric(space.metric)),
        )
        for one in found
        if (one.product_id != own if per_product else one.image_id != image.pk)
    ][:limit]
