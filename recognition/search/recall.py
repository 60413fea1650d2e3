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


def truth(space: VectorIndex, asked: Vectors, *, k: int) -> tuple[list[list[Neighbour]], float]:
    """The exact answers, and the milliseconds each took."""
    return _answers(space, asked, k=k, exact=True)


def sample(
    space: VectorIndex, asked: Vectors, exact: Sequence[Sequence[Neighbour]], *, k: int
) -> tuple[float, float]:
    """The share, 0..1, of the exact answers that the index finds with the effort the space has
    now, and the milliseconds each took.
    """
    found, took = _answers(space, asked, k=k, exact=False)
    hits = total = 0
    for got, wanted in zip(found, exact, strict=True):
        if wanted:
            # Ties at the k-th place may be broken either way.
            worst = wanted[-1].similarity - 1e-6
            hits += sum(neighbour.similarity >= worst for neighbour in got[: len(wanted)])
            total += len(wanted)
    return (hits / total if total else 1.0), took


def contrast(space: VectorIndex, asked: Vectors, exact: Sequence[Sequence[Neighbour]]) -> float:
    """How much more similar the best of a first look is than its last, where it found the truth.

    The median over the questions; 0 where no first look is worth while or most of them miss.
    """
    look = planner.first_look(space)
    if not look:
        return 0.0
    only = copy(space)
    only.ef_search, only.stands_out = look, None
    found, _ = _answers(only, asked, k=look, exact=False)
    right = [
        got[0].similarity - got[-1].similarity
        for got, wanted in zip(found, exact, strict=True)
        if got and got[0].similarity >= wanted[0].similarity - 1e-6
    ]
    return median(right) if 2 * len(right) > len(asked) else 0.0


def _answers(
    space: VectorIndex, asked: Vectors, *, k: int, exact: bool
) -> tuple[list[list[Neighbour]], float]:
    """One by one, because the time of one is asked for as well."""
    answers, times = [], []
    for row in range(len(asked)):
        start = perf_counter()
        question = Question([space], asked[row : row + 1], k, per_product=False)
        [found] = nearest_many([question], exact=exact)
        times.append(1e3 * (perf_counter() - start))
        answers.append(found.neighbours[0])
    return answers, median(times) if times else 0.0
