"""Exact or by index, and how far: the rules, without a database."""

from __future__ import annotations

from recognition.models import IndexType, VectorIndex
from recognition.search import planner
from recognition.search.planner import choose


def space(vectors: int, *, products: int | None = None, index: str = "HNSW32") -> VectorIndex:
    return VectorIndex(
        vectors=vectors,
        images=vectors,
        products=vectors // 10 if products is None else products,
        index_name="some_index" if index else "",
        built_with={"type": index} | ({"lists": 100} if index == "IVF" else {}) if index else {},
    )


def test_without_an_index_it_is_exact():
    assert choose(space(4_000, index=""), limit=5, per_product=True).exact
    assert choose(space(1_000_000, index=""), limit=5, per_product=True).exact


def test_with_an_index_it_is_not():
    plan = choose(space(100_000), limit=5, per_product=True)
    assert (plan.index_type, plan.effort, plan.go_on) == (IndexType.HNSW32, 64, False)
    assert str(plan) == "HNSW32, 64 candidates, ef_search 64"


def test_unless_exact_is_asked_for():
    assert choose(space(100_000), limit=5, per_product=True, exact=True).exact


def test_no_more_images_are_fetched_than_asked_for():
    assert choose(space(100_000), limit=5, per_product=False).candidates == 5


def test_two_views_of_an_image_are_allowed_for():
    both = space(100_000)
    both.images = 50_000
    assert choose(both, limit=5, per_product=False).candidates == 10


def test_the_effort_is_never_less_than_the_results():
    assert choose(space(100_000), limit=200, per_product=False).effort == 200


def test_a_filter_that_leaves_little_is_exact():
    few = planner.EXACT_PASSING / 100_000
    assert choose(space(100_000), limit=5, per_product=True, share=few).exact
    plan = choose(space(100_000), limit=5, per_product=True, share=2 * few)
    assert not plan.exact
    assert plan.go_on
    assert plan.effort > 64


def test_few_products_with_very_many_images_are_read_exactly():
    assert choose(space(100_000, products=10), limit=5, per_product=True).exact
    assert not choose(space(100_000, products=10), limit=5, per_product=False).exact


def test_each_attempt_looks_further_and_the_last_at_everything():
    first, second, third = (
        choose(space(100_000), limit=5, per_product=True, attempt=attempt) for attempt in range(3)
    )
    assert first.candidates < second.candidates
    assert second.go_on
    assert second.effort <= planner.MOST_EFFORT
    assert third.exact
    assert third.candidates is None
    small = choose(space(1_000, index=""), limit=5, per_product=True, attempt=1)
    assert small.candidates is None


def test_ivf_has_probes():
    plan = choose(space(100_000, index="IVF"), limit=5, per_product=True, share=0.5)
    assert plan.settings == (
        ("ivfflat.probes", "32"),
        ("ivfflat.iterative_scan", "relaxed_order"),
    )


def test_no_more_lists_are_searched_than_there_are():
    made = space(100_000, index="IVF")
    assert choose(made, limit=5, per_product=True, share=0.5, attempt=1).effort == 100
