"""Questions are answered: detect, crop, embed, search, rank, write. Runs in the workers."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import structlog
from django.conf import settings
from django.utils import timezone
from psycopg.types.json import Jsonb

from recognition import images, search, tasks
from recognition.engine.types import Box, Pixels, Vectors
from recognition.errors import Conflict, RecognitionError
from recognition.models import (
    Catalogue,
    Metric,
    RecognitionQuery,
    State,
    VectorIndex,
)
from recognition.models.work import may_leave_more
from recognition.search import wire
from recognition.search.ranking import Ranked, rank
from recognition.services import bell, files, filtering, workers
from recognition.services.portions import portions
from recognition.services.runtime import get_runtime

log = structlog.get_logger(__name__)

_CPU_LIVE_BATCH = 4


@dataclass(slots=True)
class _Asked:
    """One question on its way through the worker."""

    query: RecognitionQuery
    pixels: Pixels
    boxes: list[Box] = field(default_factory=list)
    vectors: Vectors = field(default_factory=lambda: np.empty((0, 0), np.float32))
    ranked: list[Ranked] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)

    @property
    def catalogue(self) -> Catalogue:
        return self.query.catalogue


def answer_waiting() -> bool:
    """Answer the waiting questions, several together; True when more may be waiting.

    Those are for the next worker that is free, which is woken before this one begins. A question
    that cannot be answered fails alone, with its reason.
    """
    size = _batch_size()
    claimed: list[RecognitionQuery] = RecognitionQuery.objects.select_related(
        "catalogue__index__feature_model"
    ).claim(size)
    if not claimed:
        return False
    more = may_leave_more(claimed, size)
    if more:
        tasks.wake_to_answer()
    for part in portions(claimed):
        _answer_part(part)
        bell.ring([query.key for query in part])
    return more


def _answer_part(queries: Sequence[RecognitionQuery]) -> None:
    asked = [one for one in map(_decode, queries) if one is not None]
    try:
        _answer(asked)
    except RecognitionError as error:
        if len(asked) == 1:
            _fail([asked[0].query], error.message)
            return
        # They are of several teams: not even a network that is missing concerns all of them.
        log.warning("batch_failed_so_one_by_one", reason=error.message)
        for one in asked:
            try:
                _answer([one])
            except RecognitionError as reason:
                _fail([one.query], reason.message)


def _batch_size() -> int:
    """How many questions are answered together.

    On a CPU a batch hardly saves anything (the claim and the writing are shared), and the first of
    it waits for the last: 4 had the throughput of 16 at half the waiting.
    """
    if settings.SHITU_LIVE_BATCH:
        return int(settings.SHITU_LIVE_BATCH)
    most = int(settings.SHITU_BATCH_SIZE)
    return min(_CPU_LIVE_BATCH, most) if get_runtime().device.kind == "cpu" else most


def _decode(query: RecognitionQuery) -> _Asked | None:
    started, waited = time.perf_counter(), timezone.now() - query.created_at
    try:
        asked = _Asked(query, images.decode(files.read(query.file.name)))
    except RecognitionError as error:
        _fail([query], error.message)
    except OSError:
        _fail([query], "its file is missing or unreadable; ask again")
    else:
        asked.timings["queue"] = max(0.0, waited.total_seconds() * 1e3)
        asked.timings["decode"] = (time.perf_counter() - started) * 1e3
        return asked
    return None


def _answer(asked: Sequence[_Asked]) -> None:
    """Detect, crop, embed, search, rank, write: each network and the database asked once."""
    if not asked:
        return
    clock = _Clock(asked)
    with workers.counting(len(asked)):
        _detect(asked)
        clock.lap("detect")
        _embed(asked)
        clock.lap("embed")
    found = _search(asked)
    clock.lap("search")
    for one, answer in zip(asked, found, strict=True):
        one.ranked = [_rank(one, neighbours) for neighbours in answer.neighbours]
    clock.lap("rank")
    _write(asked, found)


class _Clock:
    """Milliseconds of each stage, noted on every question of the batch."""

    def __init__(self, asked: Sequence[_Asked]) -> None:
        self._asked, self._last = asked, time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        for one in self._asked:
            one.timings[stage] = (now - self._last) * 1e3
        self._last = now


def _detect(asked: Sequence[_Asked]) -> None:
    """Boxes of every picture: the caller's, or detected, or the whole picture (score 0)."""
    by_detector: dict[str, list[_Asked]] = defaultdict(list)
    for one in asked:
        if one.query.boxes is not None:
            one.boxes = [Box.at(box) for box in one.query.boxes]
        elif one.catalogue.detector:
            by_detector[one.catalogue.detector].append(one)
    for detector, group in by_detector.items():
        thresholds = [_threshold(one) for one in group]
        found = get_runtime().detect(
            detector, [one.pixels for one in group], threshold=min(thresholds)
        )
        for one, boxes, threshold in zip(group, found, thresholds, strict=True):
            kept = [box for box in boxes if box.score > threshold]
            one.boxes = kept[: one.catalogue.max_detections]
    for one in asked:
        one.boxes = one.boxes or [Box.whole(one.pixels)]


def _threshold(one: _Asked) -> float:
    own = one.query.det_threshold
    return float(one.catalogue.det_threshold if own is None else own)


def _embed(asked: Sequence[_Asked]) -> None:
    """Vectors of every box, one call for each feature model."""
    by_model: dict[int, list[_Asked]] = defaultdict(list)
    for one in asked:
        by_model[one.catalogue.require_index().feature_model_id].append(one)
    for group in by_model.values():
        model = group[0].catalogue.require_index().feature_model
        crops = [box.crop(one.pixels) for one in group for box in one.boxes]
        vectors = get_runtime().embed(
            model.name,
            crops,
            batch_size=settings.SHITU_BATCH_SIZE,
            expected_digest=model.digest,
        )
        start = 0
        for one in group:
            one.vectors = vectors[start : start + len(one.boxes)]
            start += len(one.boxes)


def _search(asked: Sequence[_Asked]) -> list[search.Found]:
    """Neighbours of every vector of every question, in one round trip."""
    return search.nearest_many(
        [
            search.Question(
                spaces=_spaces(one),
                vectors=one.vectors,
                limit=_top_k(one),
                per_product=one.query.per_product,
                among=None if one.query.among is None else filtering.among(one.query.among),
            )
            for one in asked
        ]
    )


def _spaces(one: _Asked) -> list[VectorIndex]:
    """The search spaces of a question: its catalogue's, and those of others asked together."""
    spaces = [one.catalogue.require_index()]
    if one.query.among is not None:
        others = one.query.also.select_related("index__feature_model")
        spaces += [other.require_index() for other in others]
    if len({space.feature_model_id for space in spaces}) > 1:
        raise Conflict("one of its catalogues switched to another feature model; ask again")
    return spaces


def _top_k(one: _Asked) -> int:
    return one.query.top_k or one.catalogue.top_k


def _rank(one: _Asked, neighbours: Sequence[search.Neighbour]) -> Ranked:
    metric = Metric(one.catalogue.require_index().metric)
    own = one.query.rec_threshold
    threshold = one.catalogue.rec_threshold if own is None else own
    return rank(
        neighbours,
        metric=metric,
        threshold=metric.default_threshold if threshold is None else threshold,
        top_k=_top_k(one),
        margin=one.catalogue.margin,
        best_decides=not one.query.per_product,
    )


# One round trip. Django's ORM needs eight, and building `bulk_update`'s CASE for every column alone
# was half the cost. FOR KEY SHARE keeps a product or image from being removed, or moved to another
# catalogue, before the matches that point there are stored; of what was removed or moved since the
# search, only the label stays. The counts have them locked in the order of `locks`, behind the
# question.
_WRITE = """
WITH query AS (
    UPDATE recognition_recognitionquery AS query
    SET state = %(done)s, error = '', lease_until = NULL, answered_at = %(now)s,
        catalogue_version = answer.version, feature_model_id = answer.feature_model,
        timings = answer.timings, answered_with = answer.answered_with
    FROM unnest(
        %(queries)s::bigint[], %(versions)s::bigint[], %(feature_models)s::bigint[],
        %(timings)s::jsonb[], %(answered_with)s::jsonb[]
    ) AS answer (id, version, feature_model, timings, answered_with)
    WHERE query.id = answer.id AND query.lease_until = %(lease)s
    RETURNING query.id
), detection AS (
    INSERT INTO recognition_detection (query_id, position, x1, y1, x2, y2, det_score, status)
    SELECT found.* FROM unnest(
        %(of)s::bigint[], %(positions)s::smallint[], %(x1)s::float8[], %(y1)s::float8[],
        %(x2)s::float8[], %(y2)s::float8[], %(det_scores)s::float8[], %(statuses)s::text[]
    ) AS found (query_id, position, x1, y1, x2, y2, det_score, status)
    JOIN query ON query.id = found.query_id
    RETURNING id, query_id, position
), product AS (
    SELECT id, catalogue_id FROM recognition_product
    WHERE id = ANY(%(product_set)s::bigint[]) AND (SELECT count(*) FROM query) > 0
    ORDER BY id FOR KEY SHARE
), image AS (
    SELECT id, catalogue_id FROM recognition_galleryimage
    WHERE id = ANY(%(image_set)s::bigint[]) AND (SELECT count(*) FROM product) >= 0
    ORDER BY id FOR KEY SHARE
)
INSERT INTO recognition_match (detection_id, rank, product_id, image_id, label, score)
SELECT detection.id, match.rank, product.id, image.id, match.label, match.score
FROM unnest(
    %(match_of)s::bigint[], %(match_positions)s::smallint[], %(ranks)s::smallint[],
    %(products)s::bigint[], %(images)s::bigint[], %(catalogues)s::bigint[], %(labels)s::text[],
    %(scores)s::float8[]
) AS match (query_id, position, rank, product_id, image_id, catalogue_id, label, score)
JOIN detection ON (detection.query_id, detection.position) = (match.query_id, match.position)
LEFT JOIN product ON (product.id, product.catalogue_id) = (match.product_id, match.catalogue_id)
LEFT JOIN image ON (image.id, image.catalogue_id) = (match.image_id, match.catalogue_id)"""


def _write(asked: Sequence[_Asked], found: Sequence[search.Found]) -> None:
    """Detections, matches and the end of the work, all at once for questions of one claim.

    Of those that are no longer ours, because the lease ran out and another worker answers them,
    nothing is written.
    """
    loaded = {model.name: asdict(model) for model in get_runtime().describe()}
    queries = [
        _query_columns(one, answer, loaded) for one, answer in zip(asked, found, strict=True)
    ]
    detections = [
        (one.query.pk, position, box.x1, box.y1, box.x2, box.y2, box.score, str(ranked.status))
        for one in asked
        for position, (box, ranked) in enumerate(zip(one.boxes, one.ranked, strict=True))
    ]
    matches = [
        (
            one.query.pk,
            position,
            rank,
            match.product_id,
            match.image_id,
            match.catalogue_id,
            match.label,
            match.score,
        )
        for one in asked
        for position, ranked in enumerate(one.ranked)
        for rank, match in enumerate(ranked.matches)
    ]
    columns: dict[str, Any] = {"done": State.DONE.value, "now": timezone.now()}
    for names, rows in (
        (("queries", "versions", "feature_models", "timings", "answered_with"), queries),
        (("of", "positions", "x1", "y1", "x2", "y2", "det_scores", "statuses"), detections),
        (
            (
                "match_of",
                "match_positions",
                "ranks",
                "products",
                "images",
                "catalogues",
                "labels",
                "scores",
            ),
            matches,
        ),
    ):
        columns |= {name: [row[place] for row in rows] for place, name in enumerate(names)}
    columns["product_set"] = sorted({*columns["products"]})
    columns["image_set"] = sorted({*columns["images"]})
    columns["lease"] = asked[0].query.lease_until
    with wire.cursor() as cursor:
        cursor.execute(_WRITE, columns)


def _query_columns(
    one: _Asked, answer: search.Found, loaded: dict[str, dict[str, Any]]
) -> tuple[Any, ...]:
    """What a question was answered from, as columns of its row."""
    index = one.catalogue.require_index()
    answered_with = {
        "detector": loaded.get(one.catalogue.detector) if one.query.boxes is None else None,
        "feature_model": loaded.get(index.feature_model.name),
        "metric": index.metric,
        "plan": str(answer.plan),
    }
    return (
        one.query.pk,
        answer.versions[one.query.catalogue_id],
        index.feature_model_id,
        Jsonb({stage: round(value, 2) for stage, value in one.timings.items()}),
        Jsonb(answered_with),
    )


def _fail(rows: Sequence[RecognitionQuery], reason: str) -> None:
    """Of questions that were claimed together, those that are still ours (see `_write`)."""
    ours = RecognitionQuery.objects.filter(
        pk__in=[row.pk for row in rows], lease_until=rows[0].lease_until
    )
    ours.fail(reason)
