# ruff: noqa: S608  (only our own whole numbers go into the text of a statement)
"""Vectors as a stream, for files that leave the platform."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from recognition.models import VectorIndex, View
from recognition.search import wire
from recognition.search.wire import Vectors

_BATCH = 2_000


@dataclass(frozen=True, slots=True)
class Part:
    """Some images of a space, by ascending number: their vectors are (n, D) float32, length 1."""

    image_ids: list[int]
    numbers: list[int]
    labels: list[str]
    vectors: Vectors


def count(space: VectorIndex, view: View) -> int:
    """How many vectors `fetch` would give now."""
    with wire.cursor() as cur:
        cur.execute(f"SELECT count(*) {_active(space, view)}")
        row = cur.fetchone()
    return int(row[0]) if row else 0


def fetch(space: VectorIndex, view: View) -> Iterator[Part]:
    """One view of every image of every active product, in the order of their numbers.

    A few thousand at a time and in no transaction: an image that is removed meanwhile is left out,
    and number, label and vector of one image always belong together. Half precision lets lengths
    differ from 1 by up to 5e-4, which is put right here.
    """
    last = -1
    while True:
        with wire.cursor() as cur:
            cur.execute(
                f"SELECT g.id, g.number, p.label, halfvec_send(e.emb) {_active(space, view)}"
                " AND g.number > %s ORDER BY g.number LIMIT %s",
                [last, _BATCH],
                binary=True,
            )
            rows = cur.fetchall()
        if not rows:
            return
        ids, numbers, labels, halves = (list(column) for column in zip(*rows, strict=True))
        vectors = wire.read_halves(halves)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        yield Part(ids, numbers, labels, vectors)
        last = numbers[-1]


def _active(space: VectorIndex, view: View) -> str:
    return (
        "FROM recognition_galleryimage g"
        " JOIN recognition_product p ON p.id = g.product_id"
        f" JOIN recognition_embedding e ON e.space_id = {space.pk:d} AND e.image_id = g.id"
        f" AND e.view = {int(view):d}"
        f" WHERE g.catalogue_id = {space.catalogue_id:d} AND p.is_active"
    )
