"""Scores, thresholds and "unknown"."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recognition.models import Metric, Status
from recognition.search import Neighbour, rank
from recognition.search.ranking import passes, score, similarity


def near(product: int, value: float, image: int = 0) -> Neighbour:
    return Neighbour(image or product, image or product, product, f"p{product}", value, 0, 1)


def labels(neighbours, **options) -> tuple[Status, list[str]]:
    options = {"metric": Metric.IP, "threshold": 0.5, "top_k": 5, "margin": 0.02} | options
    ranked = rank(neighbours, **options)
    return ranked.status, [match.label for match in ranked.matches]


def test_best_first():
    assert labels([near(1, 0.6), near(2, 0.9)]) == (Status.MATCH, ["p2", "p1"])


def test_nothing_good_enough_is_unknown():
    assert labels([near(1, 0.4)]) == (Status.UNKNOWN, [])
    assert labels([]) == (Status.UNKNOWN, [])


def test_each_candidate_is_held_against_the_threshold():
    assert labels([near(1, 0.9), near(2, 0.4)]) == (Status.MATCH, ["p1"])


def test_equal_to_the_threshold_passes():
    assert labels([near(1, 0.5)]) == (Status.MATCH, ["p1"])


def test_a_close_rival_makes_it_ambiguous():
    assert labels([near(1, 0.9), near(2, 0.89)])[0] is Status.AMBIGUOUS
    assert labels([near(1, 0.9), near(2, 0.87)])[0] is Status.MATCH


def test_the_same_product_is_no_rival():
    assert labels([near(1, 0.9), near(1, 0.899, image=7)])[0] is Status.MATCH


def test_a_rival_under_the_threshold_is_none():
    assert labels([near(1, 0.505), near(2, 0.495)], margin=0.1)[0] is Status.MATCH


def test_l2_is_smaller_when_better():
    options = {"metric": Metric.L2, "threshold": 0.4}
    ranked = rank([near(1, 1.0), near(2, 0.85), near(3, 0.5)], top_k=5, margin=0.02, **options)
    assert [(match.label, match.score) for match in ranked.matches] == [
        ("p1", 0.0),
        ("p2", pytest.approx(0.3)),
    ]


def test_no_more_than_top_k():
    assert labels([near(n, 0.9 - n / 100) for n in range(9)], top_k=3)[1] == ["p0", "p1", "p2"]


cosines = st.floats(-1, 1)


@given(cosines, st.sampled_from(Metric))
def test_a_score_and_its_cosine_say_the_same(cosine, metric):
    assert similarity(score(cosine, metric), metric) == pytest.approx(cosine)


@given(cosines, cosines, cosines)
def test_every_metric_lets_the_same_through(one, other, threshold):
    """Of two neighbours the better one passes if the worse one does, in any metric."""
    for metric in Metric:
        limit = score(threshold, metric)
        if passes(score(min(one, other), metric), metric, limit):
            assert passes(score(max(one, other), metric), metric, limit)


@given(
    st.lists(st.tuples(st.integers(1, 5), cosines), max_size=20),
    cosines,
    st.integers(1, 8),
    st.floats(0, 0.5),
)
def test_an_answer_is_sorted_and_good_enough(pairs, threshold, top_k, margin):
    neighbours = [near(product, value, image=9 + at) for at, (product, value) in enumerate(pairs)]
    ranked = rank(neighbours, metric=Metric.COSINE, threshold=threshold, top_k=top_k, margin=margin)
    scores = [match.score for match in ranked.matches]
    assert scores == sorted((v for _, v in pairs if v >= threshold), reverse=True)[:top_k]
    assert (ranked.status is Status.UNKNOWN) == (not scores)
