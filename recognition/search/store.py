# ruff: noqa: S608  (only our own whole numbers and conditions go into the text of a statement)
"""Vectors in, vectors out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from django.db import transaction
from numpy.typing import NDArray
from psycopg import Cursor

from recognition.errors import EngineFailed
from recognition.models import VectorIndex
from recognition.search import wire
from recognition.search.wire import Vectors

COPY_FROM = 200  # vectors from which COPY is faster than one INSERT
_COPY_BLOCK = 5_000
_UNIT_TOLERANCE = 1e-3


def store(
    space: VectorIndex, image_ids: Sequence[int], views: Sequence[int], vectors: Vectors
) -> int:
    """Write one vector per (image, view), replacing what was there; returns how many were written.

    `vectors` is (n, D) float32 of unit length. An image that was removed meanwhile is skipped, and
    one that is removed at this very moment either waits for us or is gone: nothing stays behind.
    The last one counts when a pair is given twice. All or nothing, in the caller's transaction.

    Raises EngineFailed for a wrong dimension, a vector that is not finite or not of unit length.
    """
    ids = np.asarray(image_ids, dtype=np.int64)
    kinds = np.asarray(views, dtype=np.int16)
    _check(space, ids, kinds, vectors)
    last = {(int(i), int(v)): at for at, (i, v) in enumerate(zip(ids, kinds, strict=True))}
    with transaction.atomic(), wire.cursor() as cur:
        present = _hold(cur, space, sorted({image for image, _ in last}))
        # One order for everybody who writes, so that two of them never wait for each other.
        keep = np.array([last[key] for key in sorted(last) if key[0] in present], dtype=np.intp)
        if len(keep) >= COPY_FROM:
            _copy(cur, space, ids[keep], kinds[keep], vectors[keep])
        elif len(keep):
            _insert(cur, space, ids[keep], kinds[keep], vectors[keep])
    return len(keep)


def keep_views(space: VectorIndex, image_ids: Sequence[int], views: Sequence[int]) -> int:
    """Remove the vectors of these images of any other view; returns how many."""
    with wire.cursor() as cur:
        cur.execute(
            f"DELETE FROM recognition_embedding WHERE space_id = {space.pk:d}"
            " AND image_id = ANY(%s::bigint[]) AND view <> ALL(%s::smallint[])",
            [list(image_ids), list(views)],
        )
        return cur.rowcount


def remove_space(space: VectorIndex) -> int:
    """Remove every vector of a space; returns how many. Its index goes with the next sweep."""
    with wire.cursor() as cur:
        cur.execute(f"DELETE FROM recognition_embedding WHERE space_id = {space.pk:d}")
        return cur.rowcount


def stored(space: VectorIndex, image_id: int) -> Vectors:
    """What is stored for an image: (views, D) float32, in order of view; (0, D) if nothing is."""
    with wire.cursor() as cur:
        cur.execute(
            f"SELECT halfvec_send(emb) FROM recognition_embedding WHERE space_id = {space.pk:d}"
            " AND image_id = %s ORDER BY view",
            [image_id],
            binary=True,
        )
        rows = [row[0] for row in cur.fetchall()]
    dimension = space.feature_model.dimension
    return wire.read_halves(rows) if rows else np.zeros((0, dimension), dtype=np.float32)


def _check(
    space: VectorIndex, ids: NDArray[np.int64], views: NDArray[np.int16], vectors: Vectors
) -> None:
    dimension = space.feature_model.dimension
    if vectors.shape != (len(ids), dimension) or len(ids) != len(views):
        raise EngineFailed(
            f"{space.feature_model.name} should have given {len(ids)} vectors of {dimension} "
            f"dimensions and gave an array of shape {vectors.shape}: its weights are not the ones "
            "this search space was made for"
        )
    norms = np.linalg.norm(vectors, axis=1)
    wrong = ~(np.abs(norms - 1.0) <= _UNIT_TOLERANCE)  # NaN is wrong too
    if wrong.any():
        at = int(np.argmax(wrong))
        raise EngineFailed(
            f"{space.feature_model.name} gave a vector of length {norms[at]:.4g} for image "
            f"{ids[at]} where 1 is needed: an empty picture or damaged weights"
        )


def _hold(cur: Cursor, space: VectorIndex, image_ids: Sequence[int]) -> set[int]:
    """The images that still exist in the space's catalogue, held until the commit."""
    cur.execute(
        "SELECT g.id FROM recognition_galleryimage g, recognition_vectorindex s"
        " WHERE s.id = %s AND g.catalogue_id = s.catalogue_id AND g.id = ANY(%s::bigint[])"
        " ORDER BY g.id FOR KEY SHARE",
        [space.pk, list(image_ids)],
    )
    return {row[0] for row in cur.fetchall()}


_UPSERT = " ON CONFLICT (space_id, image_id, view) DO UPDATE SET emb = EXCLUDED.emb"


def _insert(
    cur: Cursor,
    space: VectorIndex,
    ids: NDArray[np.int64],
    views: NDArray[np.int16],
    vectors: Vectors,
) -> None:
    rows = ", ".join(["(%s, %s, %s, %b::halfvec)"] * len(ids))
    params = [
        value
        for image, view, vector in zip(
            ids.tolist(), views.tolist(), wire.halves(vectors), strict=True
        )
        for value in (space.pk, image, view, vector)
    ]
    cur.execute(
        f"INSERT INTO recognition_embedding (space_id, image_id, view, emb) VALUES {rows}{_UPSERT}",
        params,
        prepare=False,
    )


def _copy(
    cur: Cursor,
    space: VectorIndex,
    ids: NDArray[np.int64],
    views: NDArray[np.int16],
    vectors: Vectors,
) -> None:
    cur.execute(
        "CREATE TEMPORARY TABLE incoming (image_id bigint, view smallint, emb halfvec)"
        " ON COMMIT DROP"
    )
    cur.execute("ALTER TABLE incoming ALTER COLUMN emb SET STORAGE PLAIN")
    with cur.copy("COPY incoming (image_id, view, emb) FROM STDIN (FORMAT binary)") as copy:
        copy.write(wire.COPY_HEADER)
        for start in range(0, len(ids), _COPY_BLOCK):
            block = slice(start, start + _COPY_BLOCK)
            copy.write(wire.copy_rows(ids[block], views[block], vectors[block]))
        copy.write(wire.COPY_TRAILER)
    cur.execute(
        "INSERT INTO recognition_embedding (space_id, image_id, view, emb)"
        f" SELECT {space.pk:d}, image_id, view, emb FROM incoming{_UPSERT}"
    )
    cur.execute("DROP TABLE incoming")
