"""From neighbours to an answer: scores, thresholds, "unknown". Plain functions, no database."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recognition.models import Metric, Status

if TYPE_CHECKING:
    from recognition.search.nearest import Neighbour


@dataclass(frozen=True, slots=True)
class RankedMatch:
    """One line of an answer. `score` is in the catalogue's metric, `similarity` is the cosine."""

    product_id: int
    label: str
    image_id: int
    number: int
    score: float
    similarity: float
    catalogue_id: int


@dataclass(frozen=True, slots=True)
class Ranked:
    """What a detected region is: `matches` best first, empty when unknown."""

    status: Status
    matches: list[RankedMatch]


def score(similarity: float, metric: Metric) -> float:
    """A cosine in [-1, 1] in the words of `metric`: L2 is FAISS's squared distance, 0 to 4."""
    return 2.0 - 2.0 * similarity if metric is Metric.L2 else similarity


def similarity(score: float, metric: Metric) -> float:
    """The cosine behind a score or a threshold; the inverse of `score`."""
    return 1.0 - score / 2.0 if metric is Metric.L2 else score


def passes(score: float, metric: Metric, threshold: float) -> bool:
    """Whether a score is good enough; equal is.

    PaddleX 3.7.2 asks `score >= threshold` for L2 as well, which throws the good matches away and
    keeps the bad ones; here a lower distance is a better one.
    """
    return score >= threshold if metric.higher_is_better else score <= threshold


def rank(
    neighbours: Iterable[Neighbour],
    *,
    metric: Metric,
    threshold: float,
    top_k: int,
    margin: float,
    best_decides: bool = False,
) -> Ranked:
    """The answer for one region from its neighbours, in any order.

    Every neighbour is held against `threshold` (in `metric`); with `best_decides` only the best one
    is, and the others come along, as PaddleX has it. Ambiguous: another product that passed lies
    within `margin` of the best, in cosine. Several images of one product stay as they are: who
    wants one entry per product asks the search for that.
    """
    matches = [
        RankedMatch(
            neighbour.product_id,
            neighbour.label,
            neighbour.image_id,
            neighbour.number,
            value,
            neighbour.similarity,
            neighbour.catalogue_id,
        )
        for neighbour in sorted(neighbours, key=_best_first)[:top_k]
        for value in [score(neighbour.similarity, metric)]
    ]
    passed = [match for match in matches if passes(match.score, metric, threshold)]
    if not passed:
        return Ranked(Status.UNKNOWN, [])
    if not best_decides:
        matches = passed
    best = passed[0]
    rival = next((match for match in passed if match.product_id != best.product_id), None)
    if rival is not None and best.similarity - rival.similarity < margin:
        return Ranked(Status.AMBIGUOUS, matches)
    return Ranked(Status.MATCH, matches)


def _best_first(neighbour: Neighbour) -> tuple[float, int]:
    return -neighbour.similarity, neighbour.number
