"""Search spaces filled with given vectors, without pictures."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

import numpy as np
from django.core.management import call_command
from django.db import connection
from numpy.typing import NDArray

from bench.vectors import Vectors
from recognition import search
from recognition.models import (
    Catalogue,
    FeatureModel,
    GalleryImage,
    IndexType,
    Metric,
    Product,
    State,
    User,
    VectorIndex,
    View,
)

_BATCH = 5_000


def make_space(
    dimension: int,
    *,
    name: str = "",
    index_type: IndexType = IndexType.HNSW32,
    metric: Metric = Metric.IP,
) -> VectorIndex:
    """An empty catalogue with its current search space, in tables that are up to date."""
    call_command("migrate", verbosity=0, interactive=False, skip_checks=True)
    owner, _ = User.objects.get_or_create(username="bench")
    model, _ = FeatureModel.objects.get_or_create(
        name=f"generated-{dimension}", digest="0" * 64, defaults={"dimension": dimension}
    )
    catalogue = Catalogue.objects.create(name=name or f"generated {uuid4()}", owner=owner)
    space = VectorIndex.objects.create(
        catalogue=catalogue, feature_model=model, index_type=index_type, metric=metric
    )
    catalogue.index = space
    catalogue.save(update_fields=["index"])
    return space


def add_products(
    catalogue: Catalogue, count: int, *, categories: Sequence[str] = ("",)
) -> NDArray[np.int64]:
    """Products `product 0` ... with categories in turn and the attributes `number` and `even`."""
    made = Product.objects.bulk_create(
        (
            Product(
                catalogue=catalogue,
                label=f"product {n}",
                category=categories[n % len(categories)],
                attributes={"number": n, "even": n % 2 == 0},
            )
            for n in range(count)
        ),
        batch_size=_BATCH,
    )
    return np.array([product.pk for product in made], dtype=np.int64)


def add_images(catalogue: Catalogue, product_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """One finished gallery image for each product id, numbered in order; no file behind it."""
    numbers = catalogue.take_numbers(len(product_ids))
    ids: list[int] = []
    for start in range(0, len(product_ids), _BATCH):
        made = GalleryImage.objects.bulk_create(
            GalleryImage(
                catalogue=catalogue,
                product_id=product_id,
                number=number,
                checksum=f"{number:064x}",
                width=9,
                height=9,
                byte_size=9,
                state=State.DONE,
            )
            for number, product_id in zip(
                numbers[start : start + _BATCH],
                product_ids[start : start + _BATCH].tolist(),
                strict=True,
            )
        )
        ids += [image.pk for image in made]
    return np.array(ids, dtype=np.int64)


def fill(
    space: VectorIndex,
    vectors: Vectors,
    products: NDArray[np.int64],
    *,
    categories: Sequence[str] = ("",),
) -> NDArray[np.int64]:
    """Store `vectors` (n, D) as images of product `products[i]` (0 ...); returns the image ids."""
    product_ids = add_products(space.catalogue, int(products.max()) + 1, categories=categories)
    image_ids = add_images(space.catalogue, product_ids[products])
    search.store(space, image_ids.tolist(), [View.WHOLE] * len(image_ids), vectors)
    return image_ids


def remove_images(image_ids: NDArray[np.int64]) -> None:
    """Take images out again, and their vectors with them, in one statement."""
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM recognition_galleryimage WHERE id = ANY(%s)", [image_ids.tolist()]
        )
