"""Readers among writers: every answer was true at the version it names."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from bench import drill
from recognition.search.nearest import Neighbour
from recognition.services import indexes

pytestmark = pytest.mark.django_db(transaction=True)


def within_a_minute(enough: Callable[[], bool]) -> Callable[[], bool]:
    """A busy machine gets the time it needs, and one that hangs is noticed."""
    deadline = time.monotonic() + 60
    return lambda: enough() or time.monotonic() > deadline


@pytest.mark.parametrize("by_index", [False, True], ids=["exact", "by index"])
def test_every_answer_was_true_at_its_version(low_thresholds, by_index):
    run = drill.prepare(800 if by_index else 300, dimension=32)
    if by_index:
        indexes.tend(run.space.pk)
        run.space.refresh_from_db()
        assert run.space.index_name
    enough = within_a_minute(lambda: len(run.done) == 5 and len(run.answers) > 20)
    run.run(writers=4, readers=4, seconds=3, enough=enough)
    outcome = run.check(least_recall=0.98 if by_index else 1.0)
    assert outcome.wrong == []
    assert outcome.answers > 20
    assert len(outcome.changes) == 5


@pytest.mark.parametrize(
    ("fault", "says"),
    [("removed", "was removed"), ("label", "was not called"), ("old", "was acknowledged")],
)
def test_the_drill_would_notice(fault, says):
    run = drill.prepare(50, dimension=32)
    enough = within_a_minute(lambda: any(answer.neighbours for answer in run.answers))
    run.run(writers=1, readers=1, seconds=0.5, enough=enough)
    answer = next(answer for answer in run.answers if answer.neighbours)
    first = answer.neighbours[0]
    if fault == "removed":
        answer.neighbours[0] = Neighbour(10**9, 1, first.product_id, first.label, 0.5, 0, 1)
    elif fault == "label":
        answer.neighbours[0] = Neighbour(
            first.image_id, first.number, first.product_id, "else", first.similarity, 0, 1
        )
    else:
        answer.least_version = answer.version + 1
    assert any(says in line for line in run.check().wrong)
