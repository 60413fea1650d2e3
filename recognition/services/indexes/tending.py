"""The life of the vector indexes: built when a space grows, dropped when it shrinks, kept healthy.

`tend` may be called at any time, by anybody, any number of times.
"""

from __future__ import annotations

import math
from enum import StrEnum
from time import monotonic

import structlog
from django.conf import settings
from django.db import Error as DatabaseError
from django.utils import timezone

from recognition.models import IndexState, IndexType, VectorIndex
from recognition.search import physical, planner
from recognition.search.physical import PhysicalIndex
from recognition.services.indexes.effort import measure_recall

log = structlog.get_logger(__name__)

BLOATED = 1.4  # times the bytes a vector took when the index was new: much of it is dead
WORTH_KEEPING = 100_000  # vectors in an index: exactly they would take 50 ms a question
LOAD_SHARE = 0.25  # of the space after a load: from there on the index is better built anew
_LEAST_MEMORY = 64 * 2**20


class Tended(StrEnum):
    """What `tend` did."""

    KEPT = "kept"
    BUILT = "built"
    DROPPED = "dropped"
    FAILED = "failed"
    STOPPED = "stopped"  # by `physical.stop_build`, or by hand in PostgreSQL
    BUSY = "busy"  # another builder is at work; the next round comes by again
    GONE = "gone"


def tend(space_id: int, *, rebuild: bool = False) -> Tended:
    """Give a space the index it should have: none, a new one, or a fresh one beside the old.

    Runs for as long as the build takes, outside any transaction, and only one at a time in the
    whole installation. Readers and writers never wait; the old index answers until the new one is
    there. What a crash left half-built is removed. `rebuild` builds even if all is well.
    """
    with physical.builder() as mine:
        if not mine:
            return Tended.BUSY
        space = VectorIndex.objects.select_related("feature_model").filter(pk=space_id).first()
        current = _drop_leftovers(space_id, space.index_name if space else "")
        if space is None:
            return Tended.GONE
        space.vectors, space.images, space.products = physical.count(space_id)
        space.tended_at = timezone.now()
        if space.index_name and not current:  # dropped by hand, or not in the dump
            space.index_name, space.built_with = "", {}
        space.state = IndexState.INDEXED if current else IndexState.EXACT
        space.save(
            update_fields=[
                "vectors", "images", "products", "tended_at", "index_name", "built_with", "state",
            ]
        )  # fmt: skip
        if not _deserves(space):
            return _drop(space) if current else Tended.KEPT
        if current and not rebuild and _healthy(space, current):
            return Tended.KEPT
        return _build(space)


def tend_all() -> dict[int, Tended]:
    """Tend every space that may need it; returns what was done where. Small spaces cost nothing."""
    with physical.builder() as mine:
        if not mine:
            return {}
        wanted = set(VectorIndex.objects.exclude(index_name="").values_list("pk", flat=True)) | set(
            VectorIndex.objects.filter(state=IndexState.BUILDING).values_list("pk", flat=True)
        )
        wanted |= {index.space_id for index in physical.existing()}
        wanted |= set(physical.spaces_of_at_least(planner.BUILD_FROM))
    done = {space_id: tend(space_id) for space_id in sorted(wanted)}
    return {space_id: what for space_id, what in done.items() if what is not Tended.KEPT}


def before_load(space_id: int, coming: int) -> bool:
    """To be called before storing `coming` vectors in one go; True if the index was dropped.

    Building an index over everything is several times faster per vector than inserting into it, so
    it is dropped when much is to come; `tend` builds it again. Until then questions are answered
    exactly, so a large index stays where it is. Not inside a transaction.
    """
    space = VectorIndex.objects.filter(pk=space_id).exclude(index_name="").first()
    if space is None or space.vectors > WORTH_KEEPING:
        return False
    if coming < LOAD_SHARE * (space.vectors + coming):
        return False
    with physical.builder() as mine:
        if mine:
            _drop(space)
    return mine


def _deserves(space: VectorIndex) -> bool:
    """Whether a space of this size should have an index; the gap keeps it from changing often."""
    if space.index_type == IndexType.FLAT:
        return False
    least = planner.DROP_BELOW if space.index_name else planner.BUILD_FROM
    return space.vectors >= least


def _healthy(space: VectorIndex, current: PhysicalIndex) -> bool:
    """Whether an index is what its space asks for, and not mostly made of removed vectors."""
    wanted = _parameters(space)
    if any(space.built_with.get(name) != value for name, value in wanted.items()):
        return False
    new = float(space.built_with["bytes"]) / max(1, int(space.built_with["vectors"]))
    return current.size <= BLOATED * new * space.vectors


def _parameters(space: VectorIndex) -> dict[str, object]:
    """What an index of this space is built with; an automatic number of lists is left open."""
    if space.index_type == IndexType.IVF:
        return {"type": IndexType.IVF.value} | ({"lists": space.lists} if space.lists else {})
    return {
        "type": IndexType.HNSW32.value,
        "m": space.m,
        "ef_construction": space.ef_construction,
    }


def _lists(space: VectorIndex) -> int:
    """pgvector's advice: a thousand vectors a list, and the square root above a million."""
    if space.lists:
        return space.lists
    few = space.vectors <= 1_000_000
    return max(10, round(space.vectors / 1000 if few else math.sqrt(space.vectors)))


def _memory(space: VectorIndex) -> int:
    """Bytes to build in: the whole graph if that is allowed, because spilling is far slower."""
    graph = space.vectors * (2 * space.feature_model.dimension + 60 * space.m)
    most = settings.SHITU_INDEX_MEMORY_MB * 2**20
    return int(min(max(_LEAST_MEMORY, 1.1 * graph), most))


def _build(space: VectorIndex) -> Tended:
    VectorIndex.objects.filter(pk=space.pk).update(state=IndexState.BUILDING, build_error="")
    name, lists = physical.fresh_name(space.pk), _lists(space)
    log.info("index_build_started", space=space.pk, index=name, vectors=space.vectors)
    started = monotonic()
    try:
        physical.build(space, name, lists, _memory(space))
    except physical.BuildStopped:
        log.info("index_build_stopped", space=space.pk, index=name)
        _stay(space)
        return Tended.STOPPED
    except DatabaseError as error:
        reason = str(error).strip()
        log.error("index_build_failed", space=space.pk, index=name, reason=reason)
        _stay(space, reason)
        return Tended.FAILED
    seconds = monotonic() - started
    built = _parameters(space) | {
        "vectors": space.vectors,
        "bytes": physical.size(name),
        "seconds": round(seconds, 2),
    }
    if space.index_type == IndexType.IVF:
        built["lists"] = lists
    # From here on questions are planned for the new one; until the old one is gone either serves.
    VectorIndex.objects.filter(pk=space.pk).update(
        state=IndexState.INDEXED, index_name=name, built_with=built, stands_out=None
    )
    still_there = VectorIndex.objects.filter(pk=space.pk).exists()
    _drop_leftovers(space.pk, name if still_there else "")
    log.info("index_built", space=space.pk, index=name, seconds=round(seconds, 1))
    measure_recall(space.pk)
    return Tended.BUILT


def _stay(space: VectorIndex, build_error: str = "") -> None:
    """After a build that came to nothing: what was there before goes on answering."""
    VectorIndex.objects.filter(pk=space.pk).update(
        state=IndexState.INDEXED if space.index_name else IndexState.EXACT, build_error=build_error
    )
    _drop_leftovers(space.pk, space.index_name)


def _drop(space: VectorIndex) -> Tended:
    """First nobody plans for the index, then it goes."""
    VectorIndex.objects.filter(pk=space.pk).update(
        state=IndexState.EXACT, index_name="", built_with={}
    )
    _drop_leftovers(space.pk, "")
    return Tended.DROPPED


def _drop_leftovers(space_id: int, keep: str) -> PhysicalIndex | None:
    """Drop every index of a space except `keep`, if that is valid; returns it."""
    kept = None
    for index in physical.existing(space_id):
        if index.name == keep and index.valid:
            kept = index
        else:
            log.info("index_dropped", space=space_id, index=index.name, valid=index.valid)
            physical.drop(index.name)
    return kept
