# ruff: noqa: S608  (only our own whole numbers and conditions go into the text of a statement)
"""The SQL that finds neighbours: one statement for any number of branches.

Without the values: texts are remembered, because PostgreSQL keeps a plan for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from recognition.search.planner import MOST_VIEWS, Plan

_ABOUT = (
    "SELECT g.number, p.id AS product_id, p.label, p.catalogue_id"
    " FROM recognition_galleryimage g JOIN recognition_product p ON p.id = g.product_id"
)


class Branch(NamedTuple):
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


@lru_cache(maxsize=512)
def text(catalogues: tuple[int, ...], branches: tuple[Branch, ...]) -> str:
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


def _asked(branch: Branch) -> str:
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


def _listed(branch: Branch) -> str:
    """The images an exact scan keeps (filter) or leaves out (no filter: of inactive products)."""
    condition = branch.condition if branch.filtered else "NOT p.is_active"
    return (
        "SELECT g.id FROM recognition_product p JOIN recognition_galleryimage g"
        f" ON g.product_id = p.id WHERE p.catalogue_id IN ({_literals(branch.catalogues)})"
        f" AND {condition}"
    )


def _exact(branch: Branch, listed: str) -> str:
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


def _indexed(branch: Branch, most: int | None) -> str:
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


def _about(branch: Branch, candidate: str) -> str:
    """What is known of one candidate of an index, if it may be an answer."""
    return f"{_ABOUT} WHERE g.id = {candidate}.image_id AND {branch.condition} OFFSET 0"


def _looked(branch: Branch) -> str:
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


def _hard(branch: Branch, at: int) -> str:
    """The vectors for which the first look was not enough; reading one sets the whole effort.

    All first looks have ended by then, because NOT IN reads them all.
    """
    enough = f"SELECT vector FROM l{at} WHERE {_stands_out(branch)}"
    if branch.per_product:
        enough += f" GROUP BY vector HAVING count(DISTINCT product_id) >= {branch.limit:d}"
    return f"SELECT vector, v{_set(branch.plan.settings)} FROM q{at} WHERE vector NOT IN ({enough})"


def _easy(branch: Branch, at: int) -> str:
    """The candidates of the other vectors."""
    columns = "vector, image_id, number, product_id, label, d, view, catalogue_id"
    if branch.per_product:
        return f"SELECT {columns} FROM l{at} WHERE vector NOT IN (SELECT vector FROM h{at})"
    return (
        f"SELECT {columns} FROM l{at} l CROSS JOIN LATERAL ({_about(branch, 'l')}) x"
        f" WHERE {_stands_out(branch)} AND place <= {branch.plan.candidates}"
    )


def _stands_out(branch: Branch) -> str:
    return f"spread >= {branch.plan.stands_out:.4f}"


def _literals(numbers: Sequence[int]) -> str:
    return ", ".join(str(int(number)) for number in numbers)
