"""Search spaces filled with given vectors, without pictures: thousands of rows in a second."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

import numpy as np
from django.db import connection
from numpy.typing import NDArray

from bench.vectors import Vectors
from recognition import search
from recognition.models import Catalogue, FeatureModel, IndexType, Metric, User, VectorIndex, View


def make_space(
    dimension: int,
    *,
    name: str = "",
    index_type: IndexType = IndexType.HNSW32,
    metric: Metric = Metric.IP,
) -> VectorIndex:
    """An empty catalogue with its current search space."""
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
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO recognition_product (catalogue_id, label, category, attributes,"
            " is_active, created_at, changed_at)"
            " SELECT %s, 'product ' || n, (%s::text[])[1 + n %% %s],"
            " jsonb_build_object('number', n, 'even', n %% 2 = 0), true, now(), now()"
            " FROM generate_series(0, %s) n RETURNING id",
            [catalogue.pk, list(categories), len(categories), count - 1],
        )
        return np.array(sorted(row[0] for row in cursor.fetchall()), dtype=np.int64)


def add_images(catalogue: Catalogue, product_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """One finished gallery image for each product id, numbered in order; no file behind it."""
    numbers = catalogue.take_numbers(len(product_ids))
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO recognition_galleryimage (catalogue_id, product_id, number, file,"
            " source_name, checksum, width, height, byte_size, box_source, created_at, state,"
            " error, attempts)"
            " SELECT %s, p, %s + n - 1, '', '', md5(random()::text) || md5(n::text), 9, 9, 9, '',"
            " now(), 'done', '', 0 FROM unnest(%s::bigint[]) WITH ORDINALITY u (p, n) RETURNING id",
            [catalogue.pk, numbers.start, product_ids.tolist()],
        )
        return np.array(sorted(row[0] for row in cursor.fetchall()), dtype=np.int64)


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
