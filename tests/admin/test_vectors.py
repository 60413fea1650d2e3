"""Search spaces are shown as they are, also those that nobody has looked after yet."""

from __future__ import annotations

import pytest
from django.urls import reverse
from django.utils import timezone

from recognition.models import RecallSample
from tests import factories


@pytest.fixture
def listed(staff):
    """The search spaces of the list, by catalogue."""

    def rows():
        response = staff.get(reverse("admin:recognition_vectorindex_changelist"))
        return {row.catalogue: row for row in response.context["cl"].result_list}

    return rows


def test_a_small_space_is_counted_now(listed, catalogue, stub_engine, run_tasks):
    with run_tasks():
        for label, seeds in (("tea", (1, 2)), ("coffee", (3,))):
            for seed in seeds:
                factories.add(catalogue, label, seed)
    other = factories.catalogue()
    rows = listed()
    assert (rows[catalogue].vectors_n, rows[catalogue].products_n) == (3, 2)
    assert (rows[other].vectors_n, rows[other].products_n) == (0, 0)


def test_one_that_was_looked_after_shows_what_was_counted_then(listed, catalogue):
    space = catalogue.require_index()
    space.vectors, space.products, space.tended_at = 1_000_000, 50_000, timezone.now()
    space.save()
    row = listed()[catalogue]
    assert (row.vectors_n, row.products_n) == (1_000_000, 50_000)


def test_the_recall_is_that_after_the_effort_was_raised(listed, catalogue):
    space = catalogue.require_index()
    for number, (before, after) in enumerate([(0.5, None), (0.9, 0.995)]):
        sample = RecallSample.objects.create(
            space=space, k=10, questions=50, recall=before, recall_after=after,
            indexed_ms=1, exact_ms=9, vectors=9, effort=64 + number,
        )  # fmt: skip
    assert sample.recall == 0.9
    assert listed()[catalogue].last_recall == 0.995
