"""Exact scan or index, and how far to look: every decision of that kind, in one place.

An exact scan reads every vector of the space: never wrong, any filter, ~0.5 us per vector. An index
answers in about a millisecond however large the space is, but is approximate. The figures behind
the constants are in docs/search.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from recognition.models import IndexType, VectorIndex, View

BUILD_FROM = 5_000  # vectors in a space from which an index is built ...
DROP_BELOW = 2_500  # ... and below which it is dropped again
EXACT_PASSING = 20_000  # a filter that leaves no more than this many vectors is answered exactly
EXACT_SHARE = 0.25  # so is a question that would have to look at this share of the space
WIDEN = 8  # how many times more candidates the second attempt looks at
MOST_EFFORT = 1_000  # pgvector's limit for ef_search
FEWEST_CANDIDATES = 64  # when products are asked for
MOST_VIEWS = len(View)


class Kind(StrEnum):
    EXACT = "exact"
    INDEXED = "indexed"


@dataclass(frozen=True, slots=True)
class Plan:
    """How one question is answered in one space.

    `candidates` is how many images are looked at before duplicates of a product are dropped, None
    means all. `effort` is `ef_search` (HNSW) or `probes` (IVF). `attempt` counts from 0.
    """

    kind: Kind
    candidates: int | None
    index_type: str = ""
    effort: int = 0
    attempt: int = 0

    @property
    def settings(self) -> tuple[tuple[str, str], ...]:
        """What pgvector must be told for this plan."""
        if self.kind is Kind.EXACT:
            return ()
        if self.index_type == IndexType.IVF:
            return (
                ("ivfflat.probes", str(self.effort)),
                ("ivfflat.iterative_scan", "relaxed_order"),
            )
        return ("hnsw.ef_search", str(self.effort)), ("hnsw.iterative_scan", "strict_order")

    def __str__(self) -> str:
        depth = "all" if self.candidates is None else str(self.candidates)
        if self.kind is Kind.EXACT:
            return f"exact, {depth} candidates"
        word = "probes" if self.index_type == IndexType.IVF else "ef_search"
        return f"{self.index_type}, {depth} candidates, {word} {self.effort}"


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
        return Plan(Kind.EXACT, candidates if attempt == 0 else None, attempt=attempt)
    widen = WIDEN**attempt / max(share, 0.01)
    if space.built_with.get("type") == IndexType.IVF:
        effort = round(space.probes * widen)
        return Plan(Kind.INDEXED, candidates, IndexType.IVF, effort, attempt)
    if attempt == 0 and share == 1.0:
        # What the graph search has found anyway costs nothing more; more would make it go on.
        candidates = max(views * limit, min(space.ef_search, candidates))
    effort = min(MOST_EFFORT, max(round(space.ef_search * widen), candidates))
    return Plan(Kind.INDEXED, candidates, IndexType.HNSW32, effort, attempt)
