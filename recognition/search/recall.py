# ruff: noqa: S608  (only our own whole numbers go into the text of a statement)
"""How much of the truth an index finds: a sample of questions, answered both ways."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from statistics import median
from time import perf_counter

import numpy as np

from recognition.models import VectorIndex
from recognition.search import planner, wire
from recognition.search.nearest import Neighbour, Question, nearest_many
from recognition.search.wire import Vectors

_BLUR = 0.5
_PRODUCTS = 5  # as many as an answer names unless told otherwise
_DEEP = 200  # images that are looked through for them


def questions(space: VectorIndex, count: int) -> Vectors:
    """Up to `count` made-up questions (n, D): vectors of the space, each moved a little.

    A vector would find itself, however bad the index; moved to a cosine of ~0.9, in any direction,
    it is a picture that is not there. Further out lie questions that no photo asks and that no
    graph answers well: with a cosine of 0.8 the effort doubled for nothing (docs/search.md).
    """
    rng = np.random.default_rng()
    with wire.cursor() as cur:
        cur.execute(
            f"SELECT min(image_id), max(image_id) FROM recognition_embedding"
            f" WHERE space_id = {space.pk:d}"
        )
        low, high = cur.fetchone() or (None, None)
        if low is None:
            return np.zeros((0, space.feature_model.dimension), dtype=np.float32)
        cur.execute(
            "SELECT halfvec_send(e.emb) FROM unnest(%s::bigint[]) r CROSS JOIN LATERAL ("
            f"SELECT emb FROM recognition_embedding WHERE space_id = {space.pk:d}"
            " AND image_id >= r ORDER BY image_id LIMIT 1) e",
            [rng.integers(low, high, size=count, endpoint=True).tolist()],
            binary=True,
        )
        vectors = wire.read_halves([row[0] for row in cur.fetchall()])
    noise = rng.standard_normal(vectors.shape, dtype=np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    moved = vectors + _BLUR * noise
    return moved / np.linalg.norm(moved, axis=1, keepdims=True)


def truth(space: VectorIndex, asked: Vectors) -> tuple[list[list[Neighbour]], float]:
    """The nearest images of each question in truth, deep enough for its products as well, and the
    milliseconds each took."""
    return _answers(space, asked, limit=_DEEP, per_product=False, exact=True)


def sample(
    space: VectorIndex, asked: Vectors, exact: Sequence[Sequence[Neighbour]], *, k: int
) -> tuple[float, float]:
    """The share, 0..1, of the right answers that the index finds with the effort the space has now,
    and the milliseconds each took.

    Questions are asked for `k` images, as PaddleX's clients do, and for products, as everybody else
    does, which is found less easily; the lesser share counts, and the time is that for products.
    """
    images, _ = _answers(space, asked, limit=k, per_product=False)
    products, took = _answers(space, asked, limit=_PRODUCTS, per_product=True)
    return min(
        _found(images, [deep[:k] for deep in exact]),
        _found(products, [_distinct(deep)[:_PRODUCTS] for deep in exact]),
    ), took


def _found(answers: Sequence[Sequence[Neighbour]], right: Sequence[Sequence[Neighbour]]) -> float:
    hits = total = 0
    for got, wanted in zip(answers, right, strict=True):
        if wanted:
            # Ties at the last place may be broken either way.
            worst = wanted[-1].similarity - 1e-6
            hits += sum(neighbour.similarity >= worst for neighbour in got[: len(wanted)])
            total += len(wanted)
    return hits / total if total else 1.0


def _distinct(images: Sequence[Neighbour]) -> list[Neighbour]:
    """The best image of each product, best first."""
    best: dict[int, Neighbour] = {}
    for image in images:
        best.setdefault(image.product_id, image)
    return list(best.values())


def contrast(space: VectorIndex, asked: Vectors, exact: Sequence[Sequence[Neighbour]]) -> float:
    """How much more similar the best of a first look is than its last, where it found the truth.

    The median over the questions; 0 where no first look is worth while or most of them miss.
    """
    look = planner.first_look(space)
    if not look:
        return 0.0
    only = copy(space)
    only.ef_search, only.stands_out = look, None
    found, _ = _answers(only, asked, limit=look, per_product=False)
    right = [
        got[0].similarity - got[-1].similarity
        for got, wanted in zip(found, exact, strict=True)
        if got and got[0].similarity >= wanted[0].similarity - 1e-6
    ]
    return median(right) if 2 * len(right) > len(asked) else 0.0


def _answers(
    space: VectorIndex, asked: Vectors, *, limit: int, per_product: bool, exact: bool = False
) -> tuple[list[list[Neighbour]], float]:
    """One by one, because the time of one is asked for as well."""
    answers, times = [], []
    for row in range(len(asked)):
        start = perf_counter()
        question = Question([space], asked[row : row + 1], limit, per_product=per_product)
        [found] = nearest_many([question], exact=exact)
        times.append(1e3 * (perf_counter() - start))
        answers.append(found.neighbours[0])
    return answers, median(times) if times else 0.0
