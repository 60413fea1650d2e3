"""The life of the vector indexes: built when a space grows, dropped when it shrinks, kept healthy.

Nothing here changes an answer's meaning, only its speed: a space without an index is read exactly.
`tend` may be called at any time, by anybody, any number of times.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from time import monotonic

import numpy as np
import structlog
from django.conf import settings
from django.db import Error as DatabaseError
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from recognition.errors import BadInput
from recognition.models import (
    Catalogue,
    GalleryImage,
    IndexState,
    IndexType,
    Metric,
    RecallSample,
    VectorIndex,
)
from recognition.search import physical, planner, ranking, recall
from recognition.search.nearest import Neighbour, Question, explain_many
from recognition.search.physical import PhysicalIndex, Progress
from recognition.search.store import stored
from recognition.search.wire import Vectors

log = structlog.get_logger(__name__)

BLOATED = 1.4  # times the bytes a vector took when the index was new: much of it is dead
WORTH_KEEPING = 100_000  # vectors in an index: exactly they would take 50 ms a question
LOAD_SHARE = 0.25  # of the space after a load: from there on the index is better built anew
RECALL_K = 10
RECALL_QUESTIONS = 50
RECALL_DOUBT = 5  # times as many questions decide where those found too little
_RAISE = 1.25
_STANDS_OUT = (1 / 3, 1 / 2, 1)
"""Shares of what a question that was answered rightly stands out by."""
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


def measure_recall(space_id: int) -> RecallSample | None:
    """Answer a sample of questions both ways, and search wider if too little was found.

    `ef_search` (or `probes`) grows until the space's target is met, with one standard error of the
    sample to spare, or pgvector's limit is reached; the stored sample says from what to what. One
    question missed altogether puts a small sample under the target, and effort never falls again:
    before it grows, more are asked. Then it is measured when a first look is enough
    (`planner.first_look`). None when the space has no index.
    """
    space = VectorIndex.objects.select_related("feature_model").filter(pk=space_id).first()
    if space is None or not space.index_name:
        return None
    field, most = (
        ("probes", int(space.built_with.get("lists", 1)))
        if space.built_with.get("type") == IndexType.IVF
        else ("ef_search", planner.MOST_EFFORT)
    )
    asked = recall.questions(space, RECALL_QUESTIONS)
    if not len(asked):
        return None
    exact, exact_ms = recall.truth(space, asked)
    before = {field: getattr(space, field), "stands_out": space.stands_out}
    share, indexed_ms = first = recall.sample(space, asked, exact, k=RECALL_K)
    if not _enough(space, share, asked):
        more = recall.questions(space, (RECALL_DOUBT - 1) * RECALL_QUESTIONS)
        asked, exact = np.vstack([asked, more]), exact + recall.truth(space, more)[0]
        share, indexed_ms = first = recall.sample(space, asked, exact, k=RECALL_K)
    if not _enough(space, share, asked) or (space.stands_out is None and planner.first_look(space)):
        share = _tune(space, field, most, asked, exact)
    after = {name: getattr(space, name) for name in before}
    effort = after[field]
    if after != before:
        # Not if somebody set it meanwhile.
        VectorIndex.objects.filter(pk=space_id, **{field: before[field]}).update(**after)
        log.info("index_effort_set", space=space_id, before=before, after=after)
    if share < space.recall_target:
        log.warning("recall_below_target", space=space_id, recall=share, target=space.recall_target)
    return RecallSample.objects.create(
        space=space,
        k=RECALL_K,
        questions=len(asked),
        recall=first[0],
        indexed_ms=indexed_ms,
        exact_ms=exact_ms,
        vectors=space.vectors,
        effort=before[field],
        raised_to=effort if effort != before[field] else None,
        recall_after=share if after != before else None,
    )


def _tune(
    space: VectorIndex,
    field: str,
    most: int,
    asked: Vectors,
    exact: Sequence[Sequence[Neighbour]],
) -> float:
    """Raise the effort of a space until it finds enough, then allow the shortest first look that
    finds as much; sets both on `space` and returns the recall."""

    def measured() -> float:
        return recall.sample(space, asked, exact, k=RECALL_K)[0]

    space.stands_out = None
    share = measured()
    while not _enough(space, share, asked) and getattr(space, field) < most:
        setattr(space, field, min(most, math.ceil(getattr(space, field) * _RAISE)))
        share = measured()
    contrast = recall.contrast(space, asked, exact)
    for part in _STANDS_OUT if contrast else ():
        space.stands_out = round(part * contrast, 4)
        looked = measured()
        if looked >= share or _enough(space, looked, asked):
            return looked
    space.stands_out = None
    return share


def _enough(space: VectorIndex, share: float, asked: Vectors) -> bool:
    """Whether a recall meets the target less one standard error of the sample: at 1,000,000 vectors
    a sample found 0.99 where 0.986 was the truth."""
    error = math.sqrt(share * (1 - share) / (len(asked) * RECALL_K))
    return share - error >= space.recall_target


def measure_all() -> int:
    """Measure the recall of every index; returns how many there are."""
    spaces = list(VectorIndex.objects.exclude(index_name="").values_list("pk", flat=True))
    return sum(measure_recall(space_id) is not None for space_id in spaces)


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


@dataclass(frozen=True, slots=True)
class SpaceStatistics:
    """What there is to know of one search space. Sizes in bytes, recall None until measured."""

    space_id: int
    feature_model: str
    dimension: int
    current: bool
    vectors: int
    images: int
    products: int
    vector_bytes: int
    index_bytes: int
    metric: str
    index_type: str
    state: str
    parameters: dict[str, int]
    built_with: dict[str, object]
    build_error: str
    progress: Progress | None
    recall_target: float
    recall: float | None
    recall_measured_at: datetime | None
    indexed_ms: float | None
    exact_ms: float | None
    version: int


def statistics(catalogue: Catalogue) -> list[SpaceStatistics]:
    """The search spaces of a catalogue, the one that answers first. Counted now."""
    version = Catalogue.objects.values_list("version", flat=True).get(pk=catalogue.pk)
    found = [
        _statistics(space, version, current=space.pk == catalogue.index_id)
        for space in catalogue.spaces.select_related("feature_model").order_by("pk")
    ]
    return sorted(found, key=lambda one: not one.current)


def statistics_of(space: VectorIndex) -> SpaceStatistics:
    """One search space of a catalogue. Counted now."""
    version, current = Catalogue.objects.values_list("version", "index_id").get(
        pk=space.catalogue_id
    )
    return _statistics(space, version, current=space.pk == current)


def vector_of(space: VectorIndex, image: GalleryImage) -> Vectors:
    """The vectors (views, D) stored for an image in a space."""
    return stored(space, image.pk)


def explain(question: Question, *, exact: bool = False) -> list[str]:
    """PostgreSQL's account of how it answers a question: the plan it ran, with times."""
    return explain_many([question], exact=exact)


def set_type(
    space: VectorIndex,
    index_type: IndexType,
    *,
    m: int | None = None,
    ef_construction: int | None = None,
    lists: int | None = None,
    recall_target: float | None = None,
) -> None:
    """Choose type and parameters; the next round of `tend` builds what they ask for.

    What is None stays as it is. Raises BadInput for values pgvector does not take.
    """
    wanted = {
        "index_type": IndexType(index_type),
        "m": m,
        "ef_construction": ef_construction,
        "lists": lists,
        "recall_target": recall_target,
    }
    given = {name: value for name, value in wanted.items() if value is not None}
    for name, value in given.items():
        setattr(space, name, value)
    for name in ("m", "ef_construction", "lists", "recall_target"):
        column = VectorIndex._meta.get_field(name)
        value = getattr(space, name)
        if value is not None:
            _check(name, value, column)
    if space.ef_construction < 2 * space.m:
        raise BadInput(
            _(
                "ef_construction %(effort)s is too small for m %(m)s: pgvector needs at least "
                "twice m, %(least)s"
            )
            % {"effort": space.ef_construction, "m": space.m, "least": 2 * space.m},
            field="ef_construction",
        )
    space.save(update_fields=list(given))


@transaction.atomic
def set_metric(space: VectorIndex, metric: Metric) -> None:
    """Express scores in another metric; thresholds are translated, so the answers stay the same.

    No index changes: vectors have unit length, so every metric ranks them alike.
    """
    catalogue = Catalogue.objects.select_for_update(no_key=True).get(pk=space.catalogue_id)
    old, new = Metric(space.metric), Metric(metric)
    space.metric = new
    space.save(update_fields=["metric"])
    if catalogue.index_id == space.pk:
        if catalogue.rec_threshold is not None:
            cosine = ranking.similarity(catalogue.rec_threshold, old)
            catalogue.rec_threshold = ranking.score(cosine, new)
            catalogue.save(update_fields=["rec_threshold"])
        catalogue.touch()


def _check(name: str, value: float, column: object) -> None:
    from django.core.exceptions import ValidationError

    try:
        column.run_validators(value)  # type: ignore[attr-defined]
    except ValidationError as error:
        raise BadInput(f"{name} {value}: {' '.join(error.messages)}", field=name) from error


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


def _statistics(space: VectorIndex, version: int, *, current: bool) -> SpaceStatistics:
    vectors, images, products = physical.count(space.pk)
    last = space.samples.first()
    measured = None
    if last:
        measured = last.recall if last.recall_after is None else last.recall_after
    return SpaceStatistics(
        space_id=space.pk,
        feature_model=space.feature_model.name,
        dimension=space.feature_model.dimension,
        current=current,
        vectors=vectors,
        images=images,
        products=products,
        # Row header, keys and the vector, and an entry in each of the two key indexes.
        vector_bytes=vectors * (2 * space.feature_model.dimension + 108),
        index_bytes=physical.size(space.index_name) if space.index_name else 0,
        metric=space.metric,
        index_type=space.index_type,
        state=space.state,
        parameters={
            "m": space.m,
            "ef_construction": space.ef_construction,
            "ef_search": space.ef_search,
            "probes": space.probes,
        },
        built_with=space.built_with,
        build_error=space.build_error,
        progress=physical.progress(space.pk),
        recall_target=space.recall_target,
        recall=measured,
        recall_measured_at=last.measured_at if last else None,
        indexed_ms=last.indexed_ms if last else None,
        exact_ms=last.exact_ms if last else None,
        version=version,
    )
