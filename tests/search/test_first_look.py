"""A short look into the graph first; all of the effort only where nothing stands out."""

from __future__ import annotations

import numpy as np
import pytest

from bench import spaces
from bench.vectors import random_unit
from recognition import search
from recognition.models import VectorIndex
from recognition.search import Comparison, Filter, Question, planner, recall
from recognition.search.nearest import explain_many
from recognition.services import indexes
from tests.search.test_planner import space

pytestmark = pytest.mark.django_db

NEVER, ALWAYS = 2.0, 0.0
"""Differences of similarity: what nothing and what everything stands out by."""


def looking(stands_out: float | None, *, ef_search: int = 64, products: int = 50_000):
    made = space(100_000, products=products)
    made.stands_out, made.ef_search = stands_out, ef_search
    return made


def answers(made, stands_out: float | None, *, ef_search: int = 64, asked=None, **options):
    """Of the shelf's questions or those `asked`, with the space set so."""
    made.space.stands_out, made.space.ef_search = stands_out, ef_search
    asked = made.questions if asked is None else asked
    return search.nearest([made.space], asked, **{"limit": 5, **options})


def test_a_measured_space_is_looked_into_first():
    plan = planner.choose(looking(0.15), limit=5, per_product=True)
    assert (plan.look, plan.effort, plan.stands_out) == (20, 128, 0.15)
    assert str(plan) == "HNSW32, 64 candidates, ef_search 20 if the best stands out, else 128"
    assert plan.first_settings == (("hnsw.ef_search", "20"),)
    assert plan.settings == (("hnsw.ef_search", "128"),)
    assert not planner.choose(looking(None), limit=5, per_product=True).look


@pytest.mark.parametrize(
    ("options", "look"),
    [
        ({"ef_search": 19}, 0),
        ({"ef_search": 20}, 20),
        ({"products": 5_000}, 64),  # as deep as all of it: what is hard gets more all the same
        ({"products": 2_000, "ef_search": 200}, 64),  # the candidates there must be, at most
        ({"products": 1_000, "ef_search": 110}, 0),  # 100 pictures each: beyond those is too far
        ({"products": 1_000, "ef_search": 111}, 111),
    ],
)
def test_a_first_look_reaches_past_one_product_within_the_effort(options, look):
    assert planner.choose(looking(0.15, **options), limit=5, per_product=True).look == look


def test_a_small_graph_is_searched_at_once():
    small = looking(0.15)
    small.vectors = planner.LOOK_FROM - 1
    assert not planner.choose(small, limit=5, per_product=True).look


@pytest.mark.parametrize("options", [{"share": 0.5}, {"attempt": 1}, {"exact": True}])
def test_whoever_must_look_further_does_so_at_once(options):
    assert not planner.choose(looking(0.15), limit=5, per_product=True, **options).look


@pytest.mark.parametrize("per_product", [True, False])
def test_where_nothing_stands_out_the_answer_is_that_of_the_whole_effort(shelf, per_product):
    whole = answers(shelf, None, ef_search=2 * 64, per_product=per_product)
    looked = answers(shelf, NEVER, per_product=per_product)
    assert looked.plans[0].look
    assert looked.neighbours == whole.neighbours


@pytest.mark.parametrize("per_product", [True, False])
def test_where_everything_stands_out_it_is_that_of_the_look(shelf, per_product):
    short = answers(shelf, None, ef_search=planner.FIRST_LOOK, per_product=per_product)
    looked = answers(shelf, ALWAYS, per_product=per_product)
    assert looked.neighbours == short.neighbours


def test_each_vector_is_judged_by_itself(shelf, monkeypatch):
    """Some questions are pictures of products, the others of nothing in particular."""
    monkeypatch.setattr(planner, "FIRST_LOOK", 8)
    asked = np.concatenate([shelf.questions, random_unit(40, 32, seed=9)])
    short, whole, looked = (
        answers(shelf, stands_out, per_product=False, ef_search=effort, asked=asked).neighbours
        for stands_out, effort in ((None, 8), (None, 400), (0.1, 200))
    )
    spread = [
        found[0].similarity - found[-1].similarity
        for found in answers(
            shelf, None, ef_search=8, limit=8, per_product=False, asked=asked
        ).neighbours
    ]
    assert 20 < sum(one >= 0.1 for one in spread) < 80
    assert looked == [
        (quick if one >= 0.1 else thorough)
        for quick, thorough, one in zip(short, whole, spread, strict=True)
    ]
    assert looked != short
    assert looked != whole


def test_too_few_products_are_not_enough_even_if_one_stands_out(shelf):
    """The look sees one product's many pictures only; the whole effort follows at once."""
    # Far from what other tests ask: its traces stay in the graph when the rows are rolled back.
    asked = random_unit(1, 32, seed=77)
    crowd = asked + 0.05 * random_unit(40, 32, seed=5)
    crowd = (crowd / np.linalg.norm(crowd, axis=1, keepdims=True)).astype(np.float32)
    first = shelf.space.catalogue.products.get(label="product 0")
    ids = spaces.add_images(shelf.space.catalogue, np.full(40, first.pk))
    search.store(shelf.space, ids.tolist(), [0] * 40, crowd)
    found = answers(shelf, ALWAYS, asked=asked)
    assert found.plans[0].look < 40 < found.plans[0].candidates
    assert len(found.neighbours[0]) == 5
    assert found.plans[0].attempt == 0


def test_both_looks_are_one_statement_by_the_index(shelf):
    assert answers(shelf, NEVER).plans[0].attempt == 0

    def plan(stands_out: float) -> list[str]:
        shelf.space.stands_out = stands_out
        lines = explain_many([Question([shelf.space], shelf.questions[:3], 5)])
        return [line for line in lines if "recognition_embedding" in line]

    scans = plan(NEVER)
    assert len(scans) == 2
    assert all(f"Index Scan using {shelf.space.index_name}" in line for line in scans)
    assert not any("never executed" in line for line in scans)
    assert sum("never executed" in line for line in plan(ALWAYS)) == 1


def test_a_filter_that_everything_passes_may_be_looked_at_first(shelf):
    among = Filter(attributes=(Comparison("number", ">=", 0),))
    looked, plain = answers(shelf, NEVER, among=among), answers(shelf, NEVER)
    assert looked.plans[0].look
    assert looked.neighbours == plain.neighbours


def test_several_catalogues_with_a_look_of_their_own(shelf, filled):
    small = filled(50, seed=7)
    shelf.space.stands_out = NEVER
    both = search.nearest([shelf.space, small.space], shelf.questions, limit=5)
    shelf.space.stands_out, shelf.space.ef_search = None, 2 * 64
    assert (
        both.neighbours
        == search.nearest([shelf.space, small.space], shelf.questions, limit=5).neighbours
    )


def test_measuring_finds_out_what_stands_out(shelf):
    VectorIndex.objects.filter(pk=shelf.space.pk).update(stands_out=None)
    indexes.measure_recall(shelf.space.pk)
    shelf.space.refresh_from_db()
    assert 0 < shelf.space.stands_out < 1
    sample = indexes.measure_recall(shelf.space.pk)
    assert sample.recall >= shelf.space.recall_target
    before = shelf.space.stands_out
    shelf.space.refresh_from_db()
    assert shelf.space.stands_out == before  # all is well: nothing is set anew


def test_a_look_that_misleads_is_not_taken(shelf, monkeypatch):
    """Whatever the first look brings, it is the recall of the answers that counts."""
    VectorIndex.objects.filter(pk=shelf.space.pk).update(stands_out=ALWAYS)
    sample = recall.sample

    def misled(of, *given, **options):
        share, took = sample(of, *given, **options)
        return (share if of.stands_out is None else 0.5), took

    monkeypatch.setattr(recall, "sample", misled)
    found = indexes.measure_recall(shelf.space.pk)
    shelf.space.refresh_from_db()
    assert (found.recall, shelf.space.stands_out) == (0.5, None)
    assert found.recall_after >= shelf.space.recall_target
    assert found.raised_to is None
