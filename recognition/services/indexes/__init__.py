"""The vector indexes of the search spaces: looked after, measured, chosen, described.

Nothing here changes an answer's meaning, only its speed: a space without an index is read exactly.

- `tending`    builds, drops and repairs, whatever its space should have by now
- `effort`     measures what an index finds, and has it searched deeper where that is too little
- `choosing`   metric, type and parameters
- `figures`    what there is to know of a space
"""

from recognition.services.indexes.choosing import set_metric, set_type
from recognition.services.indexes.effort import measure_all, measure_recall
from recognition.services.indexes.figures import SpaceStatistics, statistics, statistics_of
from recognition.services.indexes.tending import Tended, before_load, tend, tend_all

__all__ = [
    "SpaceStatistics",
    "Tended",
    "before_load",
    "measure_all",
    "measure_recall",
    "set_metric",
    "set_type",
    "statistics",
    "statistics_of",
    "tend",
    "tend_all",
]
