"""PostgreSQL's binary form of half-precision vectors, and a cursor that speaks it.

A vector as text costs ~6 kB and a parse on both sides; in binary it is a copy. Statements are
prepared after a few uses, and because every statement of this package names its search space as a
literal, PostgreSQL may keep one plan for it: planning costs more than a small search does.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
from django.db import DEFAULT_DB_ALIAS, connections
from numpy.typing import NDArray
from psycopg import Connection, Cursor
from psycopg.adapt import Dumper
from psycopg.pq import Format

Vectors = NDArray[np.float32]
PREPARE_AFTER = 3


class Binary(bytes):
    """A value already in PostgreSQL's binary form; a cast in the statement gives its type."""


class _BinaryDumper(Dumper):
    format = Format.BINARY
    oid = 0

    def dump(self, obj: Any) -> bytes:
        return cast(bytes, obj)


def _rows(vectors: Vectors) -> NDArray[np.uint8]:
    """(n, D) float32 -> (n, 4 + 2 D) bytes: dimension, two zero bytes, big-endian halves."""
    count, dimension = vectors.shape
    rows = np.zeros((count, 4 + 2 * dimension), dtype=np.uint8)
    rows[:, :4] = np.frombuffer(dimension.to_bytes(2, "big") + b"\0\0", dtype=np.uint8)
    rows[:, 4:] = vectors.astype(">f2").view(np.uint8).reshape(count, 2 * dimension)
    return rows


def halves(vectors: Vectors) -> list[Binary]:
    """Each row of (n, D) as one `halfvec` parameter."""
    return [Binary(row.tobytes()) for row in _rows(vectors)]


def copy_rows(image_ids: NDArray[np.int64], views: NDArray[np.int16], vectors: Vectors) -> bytes:
    """Rows (image_id, view, emb) of COPY ... (FORMAT binary), without header and trailer."""
    emb = _rows(vectors)
    layout = np.dtype(
        [
            ("columns", ">i2"),
            ("image_size", ">i4"),
            ("image_id", ">i8"),
            ("view_size", ">i4"),
            ("view", ">i2"),
            ("emb_size", ">i4"),
            ("emb", "u1", (emb.shape[1],)),
        ]
    )
    rows = np.zeros(len(emb), dtype=layout)
    rows["columns"], rows["image_size"], rows["view_size"] = 3, 8, 2
    rows["emb_size"] = emb.shape[1]
    rows["image_id"], rows["view"], rows["emb"] = image_ids, views, emb
    return rows.tobytes()


COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_TRAILER = b"\xff\xff"


def read_halves(values: Sequence[bytes]) -> Vectors:
    """`halfvec_send` output of n vectors of one dimension -> (n, D) float32."""
    rows = np.frombuffer(b"".join(values), dtype=np.uint8).reshape(len(values), -1)
    return np.ascontiguousarray(rows[:, 4:]).view(">f2").astype(np.float32)


class _Own(threading.local):
    cursor: Cursor[Any] | None = None


_own = _Own()
"""The cursor of each thread that nobody uses now: making one takes a tenth of a small search."""


@contextmanager
def cursor() -> Iterator[Cursor[Any]]:
    """A server-side binding, binary cursor on Django's connection, inside its transaction if any.

    Errors are Django's (`django.db.utils`), as from any other cursor.
    """
    django = connections[DEFAULT_DB_ALIAS]
    django.ensure_connection()
    raw = cast("Connection[Any]", django.connection)
    cur, _own.cursor = _own.cursor, None
    if cur is None or cur.connection is not raw:
        # Django's own cursors bind on the client and never prepare: only ours are affected.
        raw.prepare_threshold = PREPARE_AFTER
        raw.adapters.register_dumper(Binary, _BinaryDumper)
        cur = Cursor(raw)
    with django.wrap_database_errors:
        yield cur
    _own.cursor = cur
