"""The nearest gallery images of a vector, in one round trip for however many vectors.

One statement answers every question put to it. All of it is read in one snapshot: the neighbours,
their labels as they are now, and the catalogue's version they belong to.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from recognition.errors import EngineFailed
from recognition.models import VectorIndex
from recognition.search import filters, planner, wire
from recognition.search.filters import Filter
from recognition.search.planner import Plan
from recognition.search.sql import Branch, text
from recognition.search.wire import Vectors

_COUNTS = re.compile(r" rows=[\d.]+ loops=\d+")
_COUNTING = re.compile(r"\s*(Rows Removed|Heap|Buckets:|Batches:|Index Searches:|Buffers:)")


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A gallery image near a question. `similarity` is the cosine, in [-1, 1]."""

    image_id: int
    number: int
    product_id: int
    label: str
    similarity: float
    view: int
    catalogue_id: int


@dataclass(frozen=True, slots=True)
class Question:
    """Vectors (m, D), float32 of unit length, and where to look for their neighbours.

    All `spaces` belong to the same feature model. `limit` results per vector, each another product,
    or with `per_product` off each another image.
    """

    spaces: Sequence[VectorIndex]
    vectors: Vectors
    limit: int
    per_product: bool = True
    among: Filter | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """Neighbours of each vector, best first, and the catalogue versions they were read at."""

    neighbours: list[list[Neighbour]]
    versions: dict[int, int]
    plans: tuple[Plan, ...]

    @property
    def plan(self) -> str:
        """In words, for whoever wants to know."""
        return "; ".join(sorted({str(plan) for plan in self.plans}))


def nearest(
    spaces: Sequence[VectorIndex],
    vectors: Vectors,
    *,
    limit: int,
    per_product: bool = True,
    among: Filter | None = None,
    exact: bool = False,
) -> Found:
    """Up to `limit` neighbours of each row of `vectors` (m, D) in all of `spaces` together.

    As many as exist come back, up to `limit`: a search that finds too few goes on until it has
    them or has read everything. `exact` forbids the approximate index.

    Raises EngineFailed when the vectors' dimension is not the spaces'.
    """
    return nearest_many([Question(spaces, vectors, limit, per_product, among)], exact=exact)[0]


def nearest_many(questions: Sequence[Question], *, exact: bool = False) -> list[Found]:
    """The answer to each question, all in one round trip (see `nearest`).

    A second and at most a third round trip happen only when an index found too few products.
    """
    attempts = [0] * len(questions)
    while True:
        branches = [
            branch
            for i, question in enumerate(questions)
            for branch in _branches(question, i, attempt=attempts[i], exact=exact)
        ]
        found, short = _ask(questions, branches)
        if not short:
            return found
        # The others are asked again with them: one statement is one moment in time.
        for i in short:
            attempts[i] += 1


def explain_many(questions: Sequence[Question], *, exact: bool = False) -> list[str]:
    """The lines of EXPLAIN ANALYZE for the very statement that answers these questions first.

    Without numbers of rows and pages, estimated or passed by: other catalogues have theirs in the
    same tables.
    """
    branches = [
        branch
        for i, question in enumerate(questions)
        for branch in _branches(question, i, attempt=0, exact=exact)
    ]
    sql, params = statement(questions, branches)
    with wire.cursor() as cur:
        cur.execute(f"EXPLAIN (ANALYZE, COSTS OFF, BUFFERS OFF) {sql}", params)
        lines = [row[0] for row in cur.fetchall()]
    return [_COUNTS.sub("", line) for line in lines if not _COUNTING.match(line)]


def _branches(question: Question, position: int, *, attempt: int, exact: bool) -> list[Branch]:
    """One branch for each space with an index to use, and one for all the others together."""
    among = question.among or Filter()
    condition, _ = among.sql()
    count, dimension = question.vectors.shape
    together: dict[tuple[Plan, int], list[VectorIndex]] = {}
    for space in question.spaces:
        if space.feature_model.dimension != dimension:
            raise EngineFailed(
                f"the question has {dimension} dimensions and the vectors of "
                f"{space.feature_model.name} have {space.feature_model.dimension}: a question must "
                "be embedded by the model of the space it is asked in"
            )
        share = filters.share(space.catalogue_id, among) if among and space.index_name else 1.0
        plan = planner.choose(
            space,
            limit=question.limit,
            per_product=question.per_product,
            share=share,
            attempt=attempt,
            exact=exact,
        )
        # An index belongs to one space; spaces that are read exactly are read together.
        alone = 0 if plan.exact else space.id
        together.setdefault((plan, alone), []).append(space)
    return [
        Branch(
            position,
            count,
            tuple(sorted([space.id for space in spaces])),
            tuple(sorted({space.catalogue_id for space in spaces})),
            dimension,
            plan,
            question.limit,
            question.per_product,
            condition,
            bool(among),
        )
        for (plan, _), spaces in together.items()
        if count
    ]


def statement(
    questions: Sequence[Question], branches: Sequence[Branch]
) -> tuple[str, list[object]]:
    """The SQL that answers the questions by way of the branches, and its parameters."""
    catalogues = sorted({space.catalogue_id for q in questions for space in q.spaces})
    params: list[object] = []
    values = [(question.among or Filter()).sql()[1] for question in questions]
    for branch in branches:
        params += wire.halves(questions[branch.question].vectors)
        if branch.plan.exact or (branch.plan.look and branch.per_product):
            params += values[branch.question]
    for branch in branches:
        if not branch.plan.exact:
            looks = 1 + (branch.plan.look > 0 and not branch.per_product)
            params += looks * values[branch.question]
    return text(tuple(catalogues), tuple(branches)), params


def _ask(questions: Sequence[Question], branches: Sequence[Branch]) -> tuple[list[Found], set[int]]:
    """Answers, and the questions for which not enough was looked at."""
    with wire.cursor() as cur:
        cur.execute(*statement(questions, branches), binary=True)
        rows = cur.fetchall()
    versions = {space.catalogue_id: 0 for q in questions for space in q.spaces}  # 0: just removed
    # By branch and vector: the best of what may appear once, and how many candidates there were.
    kept: dict[tuple[int, int], dict[int, Neighbour]] = {}
    counted: dict[tuple[int, int], int] = {}
    for vector, at, image, number, product, label, distance, view, catalogue, candidates in rows:
        if vector is None:
            versions[catalogue] = number
            continue
        similarity = min(1.0, max(-1.0, -distance))  # half precision may overstep by 3e-5
        one = Neighbour(image, number, product, label, similarity, view, catalogue)
        best = kept.setdefault((at, vector), {})
        key = product if branches[at].per_product else image
        if key not in best or _best_first(one) < _best_first(best[key]):
            best[key] = one
        counted[at, vector] = candidates
    results: list[list[list[Neighbour]]] = [[[] for _ in q.vectors] for q in questions]
    short = set()
    for at, branch in enumerate(branches):
        for vector in range(branch.vectors):
            best = kept.get((at, vector), {})
            results[branch.question][vector] += best.values()
            if not _complete(branch, len(best), counted.get((at, vector), 0)):
                short.add(branch.question)
    return [
        Found(
            [sorted(found, key=_best_first)[: question.limit] for found in results[i]],
            {space.catalogue_id: versions[space.catalogue_id] for space in question.spaces},
            tuple(branch.plan for branch in branches if branch.question == i),
        )
        for i, question in enumerate(questions)
    ], short


def _best_first(neighbour: Neighbour) -> tuple[float, int, int, int]:
    return -neighbour.similarity, neighbour.catalogue_id, neighbour.number, neighbour.view


def _complete(branch: Branch, results: int, candidates: int) -> bool:
    """Whether a scan found as many as were asked for, or has certainly seen everything."""
    if results >= branch.limit:
        return True
    if not branch.plan.exact:  # it may have ended early
        return False
    return branch.plan.candidates is None or candidates < branch.plan.candidates
