"""Questions: a picture is submitted, a worker answers, the answer is read from its row."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F, QuerySet, Value
from django.db.models.expressions import Combinable
from django.db.models.functions import Coalesce, NullIf
from django.utils.translation import gettext as _

from recognition import tasks
from recognition.errors import AnswerTimeout, BadInput, Conflict, RecognitionError
from recognition.images import Picture, check_box
from recognition.models import (
    Action,
    Catalogue,
    Detection,
    Metric,
    RecognitionQuery,
    ShownLabel,
    State,
    User,
)
from recognition.models.prepared import prepared
from recognition.models.query import query_path
from recognition.search import ranking
from recognition.services import audit, backpressure, bell, files, filtering, quotas

MOST_TOP_K = 100
_ANSWER = (
    "state",
    "error",
    "catalogue_version",
    "feature_model_id",
    "answered_with",
    "timings",
    "answered_at",
)


@dataclass(frozen=True, slots=True)
class Options:
    """What a question may override; None means the catalogue's own setting.

    `rec_threshold` is in the catalogue's metric. `boxes` (`[x1, y1, x2, y2]` in pixels) replace
    detection; an empty list asks about the whole picture. `among` says which products may be an
    answer (see `filtering.among`). `also` are other catalogues to search in, which the caller has
    seen to that the user may see; the settings are those of the one that is asked.
    """

    det_threshold: float | None = None
    rec_threshold: float | None = None
    top_k: int | None = None
    per_product: bool = True
    boxes: Sequence[Sequence[float]] | None = None
    among: Mapping[str, Any] | None = None
    also: Sequence[Catalogue] = ()

    def check(self, picture: Picture) -> None:
        """Raises BadInput naming the option that is out of range."""
        if self.det_threshold is not None and not 0 <= self.det_threshold <= 1:
            raise BadInput(_("det_threshold must lie in 0..1"), field="det_threshold")
        if self.rec_threshold is not None and not -1 <= self.rec_threshold <= 4:
            raise BadInput(
                _("rec_threshold must lie in -1..1 (IP, cosine) or 0..4 (L2)"),
                field="rec_threshold",
            )
        if self.top_k is not None and not 1 <= self.top_k <= MOST_TOP_K:
            raise BadInput(_("top_k must lie in 1..%(most)s") % {"most": MOST_TOP_K}, field="top_k")
        for box in self.boxes or []:
            check_box(box, picture.width, picture.height)
        filtering.among(self.among or {})


def submit(
    catalogue: Catalogue,
    picture: Picture,
    *,
    by: User | None,
    source_name: str = "",
    options: Options | None = None,
) -> RecognitionQuery:
    """Store a question and wake a worker.

    Raises BadInput for options out of range, LimitReached when too many were asked.
    """
    options = options or Options()
    options.check(picture)
    also = alike(catalogue, options.also)
    backpressure.check_query()
    quotas.check_query(catalogue, by=by)
    boxes = options.boxes
    if boxes is not None:
        boxes = [list(check_box(box, picture.width, picture.height)) for box in boxes]
    query = RecognitionQuery(
        catalogue=catalogue,
        asked_by=by,
        source_name=source_name[:255],
        width=picture.width,
        height=picture.height,
        det_threshold=options.det_threshold,
        rec_threshold=options.rec_threshold,
        top_k=options.top_k,
        per_product=options.per_product,
        boxes=boxes,
        among=dict(options.among or {}) if options.among or also else None,
    )
    with transaction.atomic(), files.storing() as stored:
        query.file.name = files.keep(query_path(query, f"x{picture.suffix}"), picture.data)
        stored.append(query.file.name)
        query.save(force_insert=True)
        if also:
            query.also.set(also)
        tasks.wake_to_answer()
    return query


def alike(catalogue: Catalogue, others: Iterable[Catalogue]) -> list[Catalogue]:
    """The others that can be searched together with a catalogue, itself left out.

    Raises BadInput for one that another network looks at: their vectors cannot be compared.
    """
    found = [other for other in others if other.pk != catalogue.pk]
    model = catalogue.require_index().feature_model_id
    for other in found:
        if other.require_index().feature_model_id != model:
            raise BadInput(
                _(
                    "“%(other)s” uses another feature model than “%(catalogue)s”; ask each "
                    "catalogue by itself"
                )
                % {"other": other.name, "catalogue": catalogue.name},
                field="catalogues",
            )
    return found


@transaction.atomic
def remove(query: RecognitionQuery) -> None:
    """Remove a question with its picture and answer. Raises Conflict while it is being answered."""
    row = RecognitionQuery.objects.select_for_update().filter(pk=query.pk).first()
    if row is None:
        return
    if row.state == State.RUNNING:
        raise Conflict(_("it is being answered right now; remove it in a moment"))
    files.remove_on_commit([row.file.name or ""])
    audit.record(Action.RECOGNITION_REMOVE, row, catalogue=row.catalogue)
    row.delete()


def wait(query: RecognitionQuery, seconds: float) -> bool:
    """Wait until the query is answered or failed, at most `seconds`; True when it is.

    What the answer writes into its row is up to date afterwards. Raises DoesNotExist when the query
    was removed meanwhile.
    """
    deadline = time.monotonic() + seconds
    while query.state not in State.ended():
        bell.listen(query.key, deadline)  # first: it can hardly be answered already
        rows = _answer(query.pk)
        if not rows:
            raise RecognitionQuery.DoesNotExist
        for name, value in zip(_ANSWER, rows[0], strict=True):
            setattr(query, name, value)
        if time.monotonic() >= deadline:
            break
    return query.state in State.ended()


@prepared
def _answer(query: int) -> QuerySet[RecognitionQuery, Any]:
    return RecognitionQuery.objects.filter(pk=query).values_list(*_ANSWER)


def require_answer(query: RecognitionQuery, seconds: float | None = None) -> None:
    """Wait for the answer; raises AnswerTimeout, or BadInput with the reason it failed for."""
    seconds = settings.SHITU_ANSWER_TIMEOUT if seconds is None else seconds
    if not wait(query, seconds):
        raise AnswerTimeout(
            _("no answer within %(seconds)s s; recognition %(key)s goes on and can be read later")
            % {"seconds": f"{seconds:g}", "key": query.key}
        )
    if query.state == State.FAILED:
        raise BadInput(query.error, field="image")


def best_labels(query: RecognitionQuery) -> list[str]:
    """Labels of a picture that shows one product: those of the detection recognised best.

    The detector's own score would take background for the product more often (measured: 0.546
    against 0.558 Recall@1 on the grocery photos).
    """
    answers = [list(one.matches.all()) for one in query.detections.prefetch_related("matches")]
    metric = Metric(query.answered_with.get("metric", Metric.IP))
    best = max(
        filter(None, answers),
        key=lambda matches: ranking.similarity(matches[0].score, metric),
        default=[],
    )
    return [match.label for match in best]


@dataclass(frozen=True, slots=True)
class Answered:
    """One input of `ask_all`: its answered query, or the reason why there is none."""

    name: str
    query: RecognitionQuery | None
    error: RecognitionError | None = None


def ask_all(
    catalogue: Catalogue,
    inputs: Iterable[tuple[str, Callable[[], Picture]]],
    *,
    by: User | None,
    options: Options | None = None,
    in_flight: int | None = None,
) -> Iterator[Answered]:
    """Answers of many pictures, in the order given, with a bounded number asked at a time.

    Each input is a name and a function that gives the checked picture; one that fails does not stop
    the others. `in_flight` defaults to two batches, which keeps a worker busy.
    """
    most = in_flight or 2 * settings.SHITU_BATCH_SIZE
    asked: deque[Answered] = deque()

    def next_answer() -> Answered:
        first = asked.popleft()
        if first.query is None:
            return first
        try:
            require_answer(first.query)
        except RecognitionError as error:
            return Answered(first.name, None, error)
        return first

    for name, load in inputs:
        try:
            query = submit(catalogue, load(), by=by, source_name=name, options=options)
        except RecognitionError as error:
            asked.append(Answered(name, None, error))
        else:
            asked.append(Answered(name, query))
        if len(asked) >= most:
            yield next_answer()
    while asked:
        yield next_answer()


def shown_label(kind: str, *, product: str, label: str) -> Combinable:
    """What a client that knows one name only is told of a product, for a queryset.

    `kind` is a ShownLabel, `product` the path to the product, `label` the path to the label, which
    stands in where the product has no such name, or is gone.
    """
    if kind == ShownLabel.LABEL:
        return F(label)
    return Coalesce(NullIf(F(f"{product}__{kind}"), Value("")), F(label))


@dataclass(frozen=True, slots=True)
class Region:
    """A detection of an answered question. `corners` are `[x1, y1, x2, y2]` in pixels, `matches`
    `(label, score)`, the best first."""

    corners: list[float]
    det_score: float
    status: str
    matches: list[tuple[str, float]]


def answer_of(query: RecognitionQuery, shown: str) -> list[Region]:
    """The answer of a question in one statement, with the labels that `shown` (a ShownLabel) asks
    for."""
    return [
        Region(corners, det_score, status, [row[7:] for row in rows if row[7] is not None])
        for (_, *corners, det_score, status), rows in groupby(
            _regions(query.pk, shown=shown), itemgetter(*range(7))
        )
    ]


@prepared
def _regions(query: int, *, shown: str) -> QuerySet[Detection, Any]:
    rows = Detection.objects.filter(query=query).order_by("position", "matches__rank")
    return rows.values_list(
        "position",
        "x1",
        "y1",
        "x2",
        "y2",
        "det_score",
        "status",
        shown_label(shown, product="matches__product", label="matches__label"),
        "matches__score",
    )


def paddlex_result(query: RecognitionQuery, *, input_path: str | None = None) -> dict[str, Any]:
    """PaddleX's `ShiTuResult.json` of an answered query.

    `{"res": {"input_path", "boxes": [{"labels", "rec_scores", "det_score", "coordinate"}]}}`; a box
    that matches nothing has `[None]` for labels and scores, as PaddleX writes it. Labels are what
    the catalogue's `shown_label` says.
    """
    boxes = [
        {
            "labels": [label for label, _ in region.matches] or [None],
            "rec_scores": [score for _, score in region.matches] or [None],
            "det_score": region.det_score,
            "coordinate": region.corners,
        }
        for region in answer_of(query, query.catalogue.shown_label)
    ]
    return {"res": {"input_path": input_path or query.source_name, "boxes": boxes}}
