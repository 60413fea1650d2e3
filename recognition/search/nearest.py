# ruff: noqa: S608  (only our own whole numbers and conditions go into the text of a statement)
"""The nearest gallery images of a vector, in one round trip for however many vectors.

One statement answers every question put to it. All of it is read in one snapshot: the neighbours,
their labels as they are now, and the catalogue's version they belong to.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from recognition.errors import EngineFailed
from recognition.models import VectorIndex
from recognition.search import filters, planner, wire
from recognition.search.filters import Filter
from recognition.search.planner import MOST_VIEWS, Plan
from recognition.search.wire import Vectors

_ABOUT = (
    "SELECT g.number, p.id AS product_id, p.label, p.catalogue_id"
    " FROM recognition_galleryimage g JOIN recognition_product p ON p.id = g.product_id"
)
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


class _Branch(NamedTuple):
    """The part of one question that one scan answers: in one space, or in several exactly."""

    question: int
    vectors: int
    spaces: tuple[int, ...]
    catalogues: tuple[int, ...]
    dimension: int
    plan: Plan
    limit: int
    per_product: bool
    condition: str
    """What makes the product `p` a possible answer. Without its values: texts are remembered."""
    filtered: bool

    @property
    def key(self) -> str:
        """What may appear only once among the results."""
        return "product_id" if self.per_product else "image_id"

    @property
    def brings_few(self) -> bool:
        """Whether all candidates may come back as they are, because hardly any is one too many."""
        candidates = self.plan.candidates
        return (
            not self.per_product
            and not self.plan.exact
            and candidates is not None
            and candidates <= MOST_VIEWS * self.limit
        )


def _branches(question: Question, position: int, *, attempt: int, exact: bool) -> list[_Branch]:
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
        _Branch(
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
    questions: Sequence[Question], branches: Sequence[_Branch]
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
    return _text(tuple(catalogues), tuple(branches)), params


@lru_cache(maxsize=512)
def _text(catalogues: tuple[int, ...], branches: tuple[_Branch, ...]) -> str:
    """Parameters first by branch (vectors, then the filter of an exact scan or a first look), then
    the filters of indexed scans.

    Rows are (vector, branch, image, number, product, label, distance, view, catalogue, candidates);
    rows without a vector carry the version of a catalogue in `number`.
    """
    parts = [
        "SELECT NULL::int AS vector, NULL::int AS branch, NULL::bigint AS image_id,"
        " version AS number, NULL::bigint AS product_id, NULL::text AS label, NULL::float8 AS d,"
        " NULL::smallint AS view, id AS catalogue_id, NULL::bigint AS candidates"
        f" FROM recognition_catalogue WHERE id IN ({_literals(catalogues)})"
    ]
    ctes: list[str] = []
    for at, branch in enumerate(branches):
        ctes.append(f"q{at} AS MATERIALIZED ({_asked(branch)})")
        counted = "0::bigint"
        if branch.plan.exact:
            ctes.append(f"k{at} AS MATERIALIZED ({_listed(branch)})")
            candidates = _each(f"q{at}", _exact(branch, f"k{at}"))
            # From the number of candidates an exact scan can tell whether it has seen everything.
            counted = "count(*) OVER (PARTITION BY vector)"
        elif branch.plan.look:
            looked = _each(f"q{at}", _looked(branch))
            ctes.append(f"l{at} AS MATERIALIZED ({looked})")
            ctes.append(f"h{at} AS MATERIALIZED ({_hard(branch, at)})")
            candidates = f"{_easy(branch, at)} UNION ALL " + _each(
                f"h{at}", _indexed(branch, branch.plan.candidates)
            )
        else:
            candidates = _each(f"q{at}", _indexed(branch, branch.plan.candidates))
        if branch.brings_few:  # sorting them out is the client's, which is sooner done
            parts.append(
                f"SELECT vector, {at}, image_id, number, product_id, label, d, view, catalogue_id,"
                f" {counted} FROM ({candidates}) c"
            )
            continue
        parts.append(
            f"SELECT vector, {at}, image_id, number, product_id, label, d, view, catalogue_id,"
            " candidates FROM (SELECT *, row_number() OVER (PARTITION BY vector ORDER BY d, number)"
            f" AS place FROM (SELECT DISTINCT ON (vector, {branch.key}) c.*, {counted}"
            f" AS candidates FROM ({candidates}) c ORDER BY vector, {branch.key}, d, number, view)"
            f" t) r WHERE place <= {branch.limit:d}"
        )
    with_clause = f"WITH {', '.join(ctes)} " if ctes else ""
    return with_clause + " UNION ALL ".join(parts)


def _each(vectors: str, candidates: str) -> str:
    """The candidates of each vector `q` of a list."""
    return f"SELECT q.vector, c.* FROM {vectors} q CROSS JOIN LATERAL ({candidates}) c"


def _asked(branch: _Branch) -> str:
    """The vectors of a branch; reading one from here sets how far the index is searched.

    The settings are local to the transaction, and a scan that needs the vector cannot start before
    they are made: so no second round trip, and nothing is left behind in the session.
    """
    cast = "halfvec" if branch.plan.exact else f"halfvec({branch.dimension})"
    values = ", ".join(f"({i}, %b::{cast})" for i in range(branch.vectors))
    return (
        f"SELECT vector, v{_set(branch.plan.first_settings)} FROM (VALUES {values}) t (vector, v)"
    )


def _set(settings: Sequence[tuple[str, str]]) -> str:
    return "".join(f", set_config('{name}', '{value}', true)" for name, value in settings)


def _listed(branch: _Branch) -> str:
    """The images an exact scan keeps (filter) or leaves out (no filter: of inactive products)."""
    condition = branch.condition if branch.filtered else "NOT p.is_active"
    return (
        "SELECT g.id FROM recognition_product p JOIN recognition_galleryimage g"
        f" ON g.product_id = p.id WHERE p.catalogue_id IN ({_literals(branch.catalogues)})"
        f" AND {condition}"
    )


def _exact(branch: _Branch, listed: str) -> str:
    """Candidates by reading every vector of the branch's spaces.

    Without a cast on `emb` no index of ours matches the expression: the scan is exact for sure.
    """
    vectors = (
        "SELECT e.image_id, e.view, e.emb <#> q.v AS d FROM recognition_embedding e"
        f" WHERE e.space_id IN ({_literals(branch.spaces)})"
        f" AND e.image_id {'IN' if branch.filtered else 'NOT IN'} (SELECT id FROM {listed})"
    )
    about = f"{_ABOUT} WHERE g.id = c.image_id"
    if branch.plan.candidates is not None:
        # OFFSET 0: looked up one by one, also by a plan made when the tables were still small.
        vectors += f" ORDER BY d LIMIT {branch.plan.candidates}"
        about += " OFFSET 0"
    return (
        "SELECT c.image_id, x.number, x.product_id, x.label, c.d, c.view, x.catalogue_id"
        f" FROM ({vectors}) c CROSS JOIN LATERAL ({about}) x"
    )


def _indexed(branch: _Branch, most: int | None) -> str:
    """Candidates in the order in which the space's own index brings them.

    The expression under ORDER BY repeats the index's own, or PostgreSQL would not use it. OFFSET 0
    keeps the look-up of product and filter behind the index scan, which then goes on until enough
    have passed.
    """
    distance = f"e.emb::halfvec({branch.dimension}) <#> q.v"
    return (
        f"SELECT e.image_id, x.number, x.product_id, x.label, {distance} AS d, e.view,"
        f" x.catalogue_id FROM recognition_embedding e CROSS JOIN LATERAL ({_about(branch, 'e')}) x"
        f" WHERE e.space_id = {_literals(branch.spaces)}"
        f" ORDER BY {distance} LIMIT {most}"
    )


def _about(branch: _Branch, candidate: str) -> str:
    """What is known of one candidate of an index, if it may be an answer."""
    return f"{_ABOUT} WHERE g.id = {candidate}.image_id AND {branch.condition} OFFSET 0"


def _looked(branch: _Branch) -> str:
    """The candidates of a first look, each with its place among them and what the best stands out
    by: with their products where those are counted."""
    if branch.per_product:
        candidates = _indexed(branch, branch.plan.look)
    else:
        distance = f"e.emb::halfvec({branch.dimension}) <#> q.v"
        candidates = (
            f"SELECT e.image_id, {distance} AS d, e.view FROM recognition_embedding e"
            f" WHERE e.space_id = {_literals(branch.spaces)}"
            f" ORDER BY {distance} LIMIT {branch.plan.look}"
        )
    return (
        "SELECT *, row_number() OVER () AS place, max(d) OVER () - min(d) OVER () AS spread"
        f" FROM ({candidates}) s"
    )


def _hard(branch: _Branch, at: int) -> str:
    """The vectors for which the first look was not enough; reading one sets the whole effort.

    All first looks have ended by then, because NOT IN reads them all.
    """
    enough = f"SELECT vector FROM l{at} WHERE {_stands_out(branch)}"
    if branch.per_product:
        enough += f" GROUP BY vector HAVING count(DISTINCT product_id) >= {branch.limit:d}"
    return f"SELECT vector, v{_set(branch.plan.settings)} FROM q{at} WHERE vector NOT IN ({enough})"


def _easy(branch: _Branch, at: int) -> str:
    """The candidates of the other vectors."""
    columns = "vector, image_id, number, product_id, label, d, view, catalogue_id"
    if branch.per_product:
        return f"SELECT {columns} FROM l{at} WHERE vector NOT IN (SELECT vector FROM h{at})"
    return (
        f"SELECT {columns} FROM l{at} l CROSS JOIN LATERAL ({_about(branch, 'l')}) x"
        f" WHERE {_stands_out(branch)} AND place <= {branch.plan.candidates}"
    )


def _stands_out(branch: _Branch) -> str:
    return f"spread >= {branch.plan.stands_out:.4f}"


def _literals(numbers: Sequence[int]) -> str:
    return ", ".join(str(int(number)) for number in numbers)


def _ask(
    questions: Sequence[Question], branches: Sequence[_Branch]
) -> tuple[list[Found], set[int]]:
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


def _complete(branch: _Branch, results: int, candidates: int) -> bool:
    """Whether a scan found as many as were asked for, or has certainly seen everything."""
    if results >= branch.limit:
        return True
    if not branch.plan.exact:  # it may have ended early
        return False
    return branch.plan.candidates is None or candidates < branch.plan.candidates
