"""Everything that knows pgvector. The rest of the project calls these and writes no SQL for it."""

from recognition.search.filters import Comparison, Filter
from recognition.search.nearest import Found, Neighbour, Question, nearest, nearest_many
from recognition.search.ranking import Ranked, RankedMatch, rank, score, similarity
from recognition.search.store import keep_views, remove_space, store

__all__ = [
    "Comparison",
    "Filter",
    "Found",
    "Neighbour",
    "Question",
    "Ranked",
    "RankedMatch",
    "keep_views",
    "nearest",
    "nearest_many",
    "rank",
    "remove_space",
    "score",
    "similarity",
    "store",
]
