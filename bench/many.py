"""What thousands of small catalogues cost: inserts and searches with one of them, and with all.

    .venv/bin/python bench/many.py --catalogues 5000 --json build/many.json

Uses the project's database and cleans up behind itself.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shitu_site.settings")

import django  # noqa: E402

django.setup()

from django.db import connection  # noqa: E402

from bench import spaces  # noqa: E402
from bench.vectors import Vectors, clustered, random_unit  # noqa: E402
from recognition import search  # noqa: E402
from recognition.models import Catalogue, GalleryImage, Product, State, VectorIndex  # noqa: E402
from recognition.search import Question, physical  # noqa: E402
from recognition.search.nearest import explain_many  # noqa: E402
from recognition.services import indexes  # noqa: E402

DIMENSION = 512


def figures(small: VectorIndex, big: VectorIndex) -> dict[str, Any]:
    """Milliseconds (medians): planning and the whole search in a small and in an indexed space,
    and storing 16 vectors into the small one.
    """
    questions = random_unit(200, DIMENSION, seed=1)
    found: dict[str, Any] = {}
    for name, space in (("small", small), ("indexed", big)):
        planning = []
        for row in range(20):
            lines = explain_many([Question([space], questions[row : row + 1], 5)])
            planning += [
                float(m[1]) for line in lines if (m := re.match(r"Planning Time: (.*) ms", line))
            ]
        times = []
        for row in range(len(questions)):
            began = time.perf_counter()
            search.nearest([space], questions[row : row + 1], limit=5)
            times.append(1e3 * (time.perf_counter() - began))
        found[f"{name}_planning_ms"] = float(np.median(planning))
        found[f"{name}_search_p50_ms"] = float(np.median(times))
    product = small.catalogue.products.first()
    ids = spaces.add_images(small.catalogue, np.full(16 * 40, product.pk))
    times = []
    for start in range(0, len(ids), 16):
        began = time.perf_counter()
        search.store(small, ids[start : start + 16].tolist(), [0] * 16, questions[:16])
        times.append(1e3 * (time.perf_counter() - began))
    spaces.remove_images(ids)
    return found | {"store_16_p50_ms": float(np.median(times))}


def fill_many(count: int, like: VectorIndex, vectors: Vectors) -> list[Catalogue]:
    """That many catalogues with one product each and its pictures."""
    catalogues = Catalogue.objects.bulk_create(
        Catalogue(
            name=f"many {n} of {like.pk}", owner=like.catalogue.owner, next_number=len(vectors)
        )
        for n in range(count)
    )
    made = VectorIndex.objects.bulk_create(
        VectorIndex(catalogue=catalogue, feature_model=like.feature_model)
        for catalogue in catalogues
    )
    products = Product.objects.bulk_create(
        Product(catalogue=catalogue, label="one") for catalogue in catalogues
    )
    images = GalleryImage.objects.bulk_create(
        (
            GalleryImage(
                catalogue=catalogue,
                product=product,
                number=number,
                checksum=f"{number:064x}",
                width=9,
                height=9,
                byte_size=9,
                state=State.DONE,
            )
            for catalogue, product in zip(catalogues, products, strict=True)
            for number in range(len(vectors))
        ),
        batch_size=5000,
    )
    for n, space in enumerate(made):
        mine = images[n * len(vectors) : (n + 1) * len(vectors)]
        search.store(space, [image.pk for image in mine], [0] * len(mine), vectors)
    return catalogues


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--catalogues", type=int, default=5000)
    parser.add_argument("--images", type=int, default=10, help="in each of them")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    made: list[Catalogue] = []
    try:
        data = clustered(10_000, dimension=DIMENSION)
        big = spaces.make_space(DIMENSION)
        made.append(big.catalogue)
        spaces.fill(big, data.vectors, data.products)
        indexes.tend(big.pk)
        big.refresh_from_db()
        small = spaces.make_space(DIMENSION)
        made.append(small.catalogue)
        vectors = random_unit(options.images, DIMENSION)
        spaces.fill(small, vectors, np.arange(options.images))
        result: dict[str, Any] = {"catalogues": options.catalogues}
        result["with_one"] = figures(small, big)
        began = time.perf_counter()
        made += fill_many(options.catalogues, small, vectors)
        result["fill_s"] = time.perf_counter() - began
        with connection.cursor() as cursor:  # what the first figures removed is no part of these
            cursor.execute("VACUUM ANALYZE recognition_embedding")
        result["with_all"] = figures(small, big)
        began = time.perf_counter()
        indexes.tend_all()
        result["tend_all_s"] = time.perf_counter() - began
        result["indexes"] = len(physical.existing())
        text = json.dumps(result, indent=2)
        print(text)
        if options.json:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(text + "\n")
    finally:
        for index in physical.existing():
            if index.space_id == big.pk:
                physical.drop(index.name)
        ids = [catalogue.pk for catalogue in made]
        with connection.cursor() as cursor:
            for table in ("galleryimage", "product"):
                cursor.execute(
                    f"DELETE FROM recognition_{table} WHERE catalogue_id = ANY(%s)", [ids]
                )
        Catalogue.objects.filter(pk__in=ids).delete()


if __name__ == "__main__":
    main()
