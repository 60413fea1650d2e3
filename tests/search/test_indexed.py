"""With an index: the same answers as without, never fewer."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from bench import spaces
from bench.vectors import random_unit
from recognition import search
from recognition.models import GalleryImage, IndexType, Product, View
from recognition.search import Comparison, Filter

pytestmark = pytest.mark.django_db


def agreement(space, questions, *, limit=10, among=None, per_product=False) -> float:
    """The share of the exact answer that the planner's own way finds; both must be as long."""
    options = {"limit": limit, "per_product": per_product, "among": among}
    found = search.nearest([space], questions, **options)
    exact = search.nearest([space], questions, exact=True, **options)
    hits = total = 0
    for got, wanted in zip(found.neighbours, exact.neighbours, strict=True):
        assert len(got) == len(wanted)
        hits += len({n.image_id for n in got} & {n.image_id for n in wanted})
        total += len(wanted)
    return hits / total


@pytest.mark.parametrize("index_type", [IndexType.HNSW32, IndexType.IVF])
def test_it_finds_what_an_exact_search_finds(shelf, ivf_shelf, index_type):
    made = shelf if index_type is IndexType.HNSW32 else ivf_shelf
    found = search.nearest([made.space], made.questions, limit=10, per_product=False)
    assert index_type.value in found.plan
    assert agreement(made.space, made.questions) >= 0.99
    assert agreement(made.space, made.questions, limit=5, per_product=True) >= 0.99


def test_filters_of_every_selectivity(shelf):
    plans = set()
    for share in (1.0, 0.5, 0.2, 0.1, 0.01, 0.001):
        among = Filter(attributes=(Comparison("number", "<", round(1000 * share)),))
        assert agreement(shelf.space, shelf.questions, among=among) >= 0.99
        keep = shelf.products < 1000 * share
        found = search.nearest(
            [shelf.space], shelf.questions, limit=10, per_product=False, among=among
        )
        for neighbours in found.neighbours:
            assert len(neighbours) == min(10, keep.sum())
        plans.add(found.plans[0].exact)
    assert plans == {True, False}  # both ways were put to the test


def test_a_filter_that_names_thousands_of_products_is_not_kept(shelf):
    for n in range(3):
        among = Filter(product_ids=tuple(range(n, 20_000 + n)))
        search.nearest([shelf.space], shelf.questions[:1], limit=3, among=among)
    del among
    gc.collect()
    # Not `isinstance`, which asks a dead weak reference for its class.
    kept = [one for one in gc.get_objects() if type(one) is Filter and one.product_ids]
    assert max((len(one.product_ids) for one in kept), default=0) < 20_000


def test_a_filter_that_lets_only_distant_pictures_pass(shelf):
    near = shelf.space.catalogue.products.filter(
        pk__in=[
            n.product_id
            for neighbours in search.nearest(
                [shelf.space], shelf.questions[:1], limit=100
            ).neighbours
            for n in neighbours
        ]
    ).values_list("pk", flat=True)
    others = shelf.space.catalogue.products.exclude(pk__in=near).values_list("pk", flat=True)
    among = Filter(product_ids=tuple(others))
    assert agreement(shelf.space, shelf.questions[:1], among=among) >= 0.99


def test_inactive_products_do_not_make_an_answer_short(shelf):
    Product.objects.filter(catalogue=shelf.space.catalogue).exclude(label="product 7").update(
        is_active=False
    )
    found = search.nearest([shelf.space], shelf.questions, limit=5)
    assert [[n.label for n in neighbours] for neighbours in found.neighbours] == [
        ["product 7"]
    ] * len(shelf.questions)


def test_a_crowd_does_not_make_an_answer_short(shelf):
    crowd = shelf.questions[:1] + 0.05 * random_unit(700, 32, seed=5)
    crowd = (crowd / np.linalg.norm(crowd, axis=1, keepdims=True)).astype(np.float32)
    first = shelf.space.catalogue.products.get(label="product 0")
    ids = spaces.add_images(shelf.space.catalogue, np.full(700, first.pk))
    search.store(shelf.space, ids.tolist(), [0] * 700, crowd)
    found = search.nearest([shelf.space], shelf.questions[:3], limit=10)
    assert [len(neighbours) for neighbours in found.neighbours] == [10] * 3
    assert agreement(shelf.space, shelf.questions[:1], per_product=True) >= 0.9


def test_more_than_there_is(shelf):
    found = search.nearest([shelf.space], shelf.questions[:2], limit=1500)
    assert [len(neighbours) for neighbours in found.neighbours] == [1000, 1000]


def test_most_of_a_catalogue_removed(shelf):
    GalleryImage.objects.filter(pk__in=shelf.ids[200:].tolist()).delete()
    left = np.arange(len(shelf.ids)) < 200
    found = search.nearest([shelf.space], shelf.questions, limit=10, per_product=False)
    for question, neighbours in zip(shelf.questions, found.neighbours, strict=True):
        wanted = shelf.nearest(question, 10, left)
        assert len(set(wanted) & {n.image_id for n in neighbours}) >= 9
        assert len(neighbours) == 10


def test_a_new_picture_is_found_at_once(shelf):
    vectors = random_unit(20, 32, seed=8)
    product = shelf.space.catalogue.products.first()
    ids = spaces.add_images(shelf.space.catalogue, np.full(20, product.pk))
    search.store(shelf.space, ids.tolist(), [0] * 20, vectors)
    found = search.nearest([shelf.space], vectors, limit=1, per_product=False)
    assert [n.image_id for [n] in found.neighbours] == ids.tolist()


def test_two_views_of_a_picture_are_one_picture(shelf):
    nearly = shelf.vectors[:700] + 0.01 * random_unit(700, 32, seed=4)
    nearly /= np.linalg.norm(nearly, axis=1, keepdims=True)
    search.store(shelf.space, shelf.ids[:700].tolist(), [View.MAIN_BODY] * 700, nearly)
    assert agreement(shelf.space, shelf.questions, limit=20) >= 0.99


def test_big_and_small_catalogues_in_one_question(shelf, filled):
    small, other = filled(50, seed=7), filled(30, seed=8)
    found = search.nearest(
        [small.space, shelf.space, other.space], small.questions, limit=10, per_product=False
    )
    assert "HNSW32" in found.plan
    assert "exact" in found.plan
    ids = np.concatenate([shelf.ids, small.ids, other.ids])
    vectors = np.concatenate([shelf.vectors, small.vectors, other.vectors])
    hits = 0
    for question, neighbours in zip(small.questions, found.neighbours, strict=True):
        wanted = ids[np.argsort(-(vectors @ question))[:10]]
        hits += len(set(wanted.tolist()) & {n.image_id for n in neighbours})
    assert hits >= 0.99 * 10 * len(small.questions)
