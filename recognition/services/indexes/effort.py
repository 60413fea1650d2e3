"""How much of the exact answer an index finds, and how deep it is searched for that."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import structlog

from recognition.models import IndexType, RecallSample, VectorIndex
from recognition.search import planner, recall
from recognition.search.nearest import Neighbour
from recognition.search.wire import Vectors

log = structlog.get_logger(__name__)

RECALL_K = 10
RECALL_QUESTIONS = 50
RECALL_DOUBT = 5  # times as many questions decide where those found too little
_RAISE = 1.25
_STANDS_OUT = (1 / 3, 1 / 2, 1)
"""Shares of what a question that was answered rightly stands out by."""


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


def measure_all() -> int:
    """Measure the recall of every index; returns how many there are."""
    spaces = list(VectorIndex.objects.exclude(index_name="").values_list("pk", flat=True))
    return sum(measure_recall(space_id) is not None for space_id in spaces)


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
