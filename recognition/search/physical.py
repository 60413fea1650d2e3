# ruff: noqa: S608  (only our own names and whole numbers go into the text of a statement)
"""The indexes as PostgreSQL sees them: build, drop, watch. Which space has which is not known here.

Every index is partial, on the partition of its space, and is named after the space, so that what a
crash left behind can be told apart from what is in use.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog
from django.conf import settings
from django.db import OperationalError, connection
from psycopg.errors import DiskFull, OutOfMemory, QueryCanceled

from recognition.models import IndexType, VectorIndex

log = structlog.get_logger(__name__)

PARTITIONS = 16
_BUILDER_LOCK = 0x5348_4954  # any number that nobody else takes
_NAME = re.compile(r"^recognition_space_(\d+)_\d+$")


@dataclass(frozen=True, slots=True)
class PhysicalIndex:
    """One index in PostgreSQL; not `valid`: being built, or left behind by a build that died."""

    name: str
    space_id: int
    valid: bool
    size: int


@dataclass(frozen=True, slots=True)
class Progress:
    """Of a build that runs now. `share` is 0..1 of its current phase."""

    phase: str
    share: float


class BuildStopped(Exception):
    """A build was stopped from outside, which is no fault of it."""


@contextmanager
def builder() -> Iterator[bool]:
    """Whether this session is the one builder of the whole installation, while the block runs.

    Two builds at a time would wait for each other's snapshots. Whoever holds this knows too that
    an invalid index is nobody's work in progress.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [_BUILDER_LOCK])
        mine = cursor.fetchone()[0]
    try:
        yield mine
    finally:
        if mine and connection.is_usable():
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [_BUILDER_LOCK])


def partition(space_id: int) -> str:
    """The table that holds a space's rows."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
            " WHERE i.inhparent = 'recognition_embedding'::regclass AND"
            " satisfies_hash_partition(i.inhparent, %s, right(c.relname, 2)::int, %s::bigint)",
            [PARTITIONS, space_id],
        )
        return str(cursor.fetchone()[0])


def existing(space_id: int | None = None) -> list[PhysicalIndex]:
    """Every vector index of one space, or of all of them, in use or not; oldest first."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.relname, i.indisvalid AND i.indisready, pg_relation_size(c.oid)"
            " FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid"
            " WHERE c.relname ^@ %s ORDER BY c.oid",
            ["recognition_space_" if space_id is None else f"recognition_space_{space_id}_"],
        )
        return [
            PhysicalIndex(name, int(found.group(1)), valid, size)
            for name, valid, size in cursor.fetchall()
            if (found := _NAME.match(name))
        ]


def build(space: VectorIndex, name: str, lists: int, memory: int) -> None:
    """Build an index of `space.index_type` beside whatever is there; no reader or writer waits.

    `memory` is in bytes. Not inside a transaction. An error leaves an invalid index behind, which
    `existing` shows. Raises BuildStopped after `stop_build`.
    """
    table, dimension = partition(space.pk), space.feature_model.dimension
    if space.index_type == IndexType.IVF:
        method, options = "ivfflat", f"lists = {lists:d}"
    else:
        method, options = "hnsw", f"m = {space.m:d}, ef_construction = {space.ef_construction:d}"
    statement = (
        f"CREATE INDEX CONCURRENTLY {name} ON {table} USING {method}"
        f" ((emb::halfvec({dimension:d})) halfvec_ip_ops) WITH ({options})"
        f" WHERE space_id = {space.pk:d}"
    )
    workers = settings.SHITU_INDEX_WORKERS
    try:
        _build(statement, memory, workers)
    except OperationalError as error:
        # A parallel build puts the whole graph into /dev/shm at once, which containers keep small.
        if not workers or not isinstance(error.__cause__, DiskFull | OutOfMemory):
            raise
        log.warning("index_build_not_parallel", index=name, reason=str(error).strip())
        drop(name)
        _build(statement, memory, 0)
    with connection.cursor() as cursor:
        cursor.execute(f"ANALYZE {table}")


def _build(statement: str, memory: int, workers: int) -> None:
    with connection.cursor() as cursor:
        try:
            cursor.execute(
                f"SET maintenance_work_mem = '{memory // 1024}kB';"
                f" SET max_parallel_maintenance_workers = {workers:d}; SET statement_timeout = 0"
            )
            cursor.execute(statement)
        except OperationalError as error:
            if isinstance(error.__cause__, QueryCanceled):
                raise BuildStopped(str(error).strip()) from error
            raise
        finally:
            if connection.is_usable():
                cursor.execute(
                    "RESET maintenance_work_mem; RESET max_parallel_maintenance_workers;"
                    " RESET statement_timeout"
                )


def fresh_name(space_id: int) -> str:
    """A name no index of the space has."""
    numbers = [int(index.name.rsplit("_", 1)[1]) for index in existing(space_id)]
    return f"recognition_space_{space_id}_{max(numbers, default=0) + 1}"


def drop(name: str) -> None:
    """Drop an index without making anybody wait. Not inside a transaction."""
    with connection.cursor() as cursor:
        cursor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")


def stop_build(space_id: int) -> bool:
    """Have PostgreSQL stop the build that runs for a space; False when none is running.

    Whoever called `build` gets `BuildStopped`.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_cancel_backend(p.pid)"
            " FROM pg_stat_progress_create_index p JOIN pg_class c ON c.oid = p.index_relid"
            " WHERE p.datname = current_database() AND c.relname ^@ %s",
            [f"recognition_space_{space_id}_"],
        )
        return bool(cursor.fetchall())


def size(name: str) -> int:
    """Bytes on disk, 0 when there is no such index."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT coalesce(pg_relation_size(to_regclass(%s)), 0)", [name])
        return int(cursor.fetchone()[0])


def progress(space_id: int) -> Progress | None:
    """How far the build for a space is, None when none is running."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT p.phase, coalesce("
            " nullif(p.tuples_done, 0)::float8 / nullif(p.tuples_total, 0),"
            " p.blocks_done::float8 / nullif(p.blocks_total, 0), 0)"
            " FROM pg_stat_progress_create_index p JOIN pg_class c ON c.oid = p.index_relid"
            " WHERE c.relname ^@ %s",
            [f"recognition_space_{space_id}_"],
        )
        row = cursor.fetchone()
    return Progress(row[0], min(1.0, row[1])) if row else None


def count(space_id: int) -> tuple[int, int, int]:
    """Vectors, images and products of a space, counted."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*), count(DISTINCT e.image_id), count(DISTINCT g.product_id)"
            " FROM recognition_embedding e JOIN recognition_galleryimage g ON g.id = e.image_id"
            f" WHERE e.space_id = {space_id:d}"
        )
        vectors, images, products = cursor.fetchone()
    return vectors, images, products


def spaces_of_at_least(vectors: int) -> list[int]:
    """The spaces that hold that many vectors."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT space_id FROM recognition_embedding GROUP BY space_id HAVING count(*) >= %s",
            [vectors],
        )
        return [row[0] for row in cursor.fetchall()]
