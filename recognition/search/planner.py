"""Exact scan or index, and how far to look: every decision of that kind, in one place.

An exact scan reads every vector of the space: never wrong, any filter, ~0.5 us per vector. An index
answers in about a millisecond however large the space is, but is approximate. The figures behind
the constants are in docs/search.md.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from recognition.models import IndexType, VectorIndex, View

BUILD_FROM = 5_000  # vectors in a space from which an index is built ...
DROP_BELOW = 2_500  # ... and below which it is dropped again
EXACT_PASSING = 20_000  # a filter that leaves no more than this many vectors is answered exactly
EXACT_SHARE = 0.25  # so is a question that would have to look at this share of the space
WIDEN = 8  # how many times more candidates the second attempt looks at
MOST_EFFORT = 1_000  # pgvector's limit for ef_search
FEWEST_CANDIDATES = 64  # when products are asked for
LOOK_FROM = 50_000  # vectors: in smaller graphs the search is the lesser part of a question
FIRST_LOOK = 20  # least ef_search of a first look ...
BEYOND_PRODUCT = 1.1  # ... which must reach past the images of one product
HARDER = 2  # so many times the space's effort for what a first look found hard
MOST_VIEWS = len(View)

# Plain strings: a plan is made and compared for every question.
_HNSW, _IVF = IndexType.HNSW32.value, IndexType.IVF.value


class Plan(NamedTuple):
    """How one question is answered in one space: exactly if `index_type` is empty.

    `candidates` is how many images are looked at before duplicates of a product are dropped, None
    means all. `effort` is `ef_search` (HNSW) or `probes` (IVF). `go_on`: the index scan continues
    past its effort until enough rows have passed the filter. `attempt` counts from 0.

    With a `look` the graph is first searched with that `ef_search` alone. That is enough for a
    vector whose best candidate is more similar than its last by `stands_out`; any other gets the
    whole effort.
    """

    candidates: int | None
    index_type: str = ""
    effort: int = 0
    go_on: bool = False
    attempt: int = 0
    look: int = 0
    stands_out: float = 0.0

    @property
    def exact(self) -> bool:
        return not self.index_type

    @property
    def settings(self) -> tuple[tuple[str, str], ...]:
        """What pgvector must be told for the whole effort."""
        if self.exact:
            return ()
        if self.index_type == _IVF:
            effort, order = ("ivfflat.probes", str(self.effort)), "relaxed_order"
        else:
            effort, order = ("hnsw.ef_search", str(self.effort)), "strict_order"
        if not self.go_on:
            return (effort,)
        return effort, (f"{effort[0].partition('.')[0]}.iterative_scan", order)

    @property
    def first_settings(self) -> tuple[tuple[str, str], ...]:
        """What pgvector must be told to begin with."""
        return self._replace(effort=self.look).settings if self.look else self.settings

    def __str__(self) -> str:
        depth = "all" if self.candidates is None else str(self.candidates)
        if self.exact:
            return f"exact, {depth} candidates"
        word = "probes" if self.index_type == _IVF else "ef_search"
        first = f"{self.look} if the best stands out, else " if self.look else ""
        return f"{self.index_type}, {depth} candidates, {word} {first}{self.effort}"


def choose(
    space: VectorIndex,
    *,
    limit: int,
    per_product: bool,
    share: float = 1.0,
    attempt: int = 0,
    exact: bool = False,
) -> Plan:
    """The plan for `limit` results of which a filter lets `share` (0..1) of the space through.

    Attempts 0, 1, 2 look at ever more candidates: a question that came back with fewer results
    than asked for is asked again with the next one; the last reads everything there is.
    """
    # Several views of one image may all be near.
    views = 1 if space.images == space.vectors else MOST_VIEWS
    candidates = max(views * limit, FEWEST_CANDIDATES if per_product else 0) * WIDEN**attempt
    images = space.vectors / max(1, space.products) if per_product else 1.0
    use_index = (
        not exact
        and attempt < 2
        and space.index_name != ""
        and share * space.vectors > EXACT_PASSING * (share < 1.0)
        and limit * images < EXACT_SHARE * share * space.vectors
    )
    if not use_index:
        return Plan(candidates if attempt == 0 else None, attempt=attempt)
    widen = WIDEN**attempt / max(share, 0.01)
    # Being ready to go on costs a tenth of the time, and what was not filtered is rarely too few.
    go_on = attempt > 0 or share < 1.0
    if space.built_with.get("type") == _IVF:
        effort = min(round(space.probes * widen), int(space.built_with["lists"]))
        return Plan(candidates, _IVF, effort, go_on, attempt)
    if not go_on:
        # What the graph search has found anyway costs nothing more.
        candidates = max(views * limit, min(space.ef_search, candidates))
    effort = min(MOST_EFFORT, max(round(space.ef_search * widen), candidates))
    plan = Plan(candidates, _HNSW, effort, go_on, attempt)
    if go_on or space.stands_out is None:
        return plan
    look = first_look(space, least=min(math.ceil(limit * images), candidates))
    if not look:
        return plan
    effort = min(MOST_EFFORT, HARDER * effort)
    return plan._replace(effort=effort, look=look, stands_out=space.stands_out)


def first_look(space: VectorIndex, *, least: int = 0) -> int:
    """`ef_search` of a first look into a space's graph, 0 where none fits into the space's effort.

    `least` is how many candidates the answer needs. A descent into the wrong part of the graph
    misses everything, and then all it finds is about equally far away; where it was the right one,
    a product stands out. To tell, the look must reach further than one product's own images. Even
    one as deep as the space's effort is worth while: only what is hard gets more.
    """
    images = space.vectors / max(1, space.products)
    look = max(FIRST_LOOK, math.ceil(BEYOND_PRODUCT * images), least)
    return look if space.vectors >= LOOK_FROM and look <= space.ef_search else 0
