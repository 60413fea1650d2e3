"""Indexes come and go with the size of a catalogue, and nobody waits for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from django.db import OperationalError, connection, connections

from bench import spaces
from bench.vectors import random_unit
from recognition import search
from recognition.errors import BadInput
from recognition.models import (
    GalleryImage,
    IndexState,
    IndexType,
    Metric,
    Product,
    VectorIndex,
)
from recognition.search import physical, planner
from recognition.services import indexes
from recognition.services.indexes import Tended, tending

pytestmark = pytest.mark.django_db(transaction=True)


def names(space) -> list[str]:
    return [index.name for index in physical.existing(space.pk)]


def grow(made, count: int) -> None:
    product = made.space.catalogue.products.first()
    ids = spaces.add_images(made.space.catalogue, np.full(count, product.pk))
    search.store(made.space, ids.tolist(), [0] * count, random_unit(count, 32, seed=77))


def test_built_when_a_space_grows_and_dropped_when_it_shrinks(filled, low_thresholds):
    made = filled(590)
    assert indexes.tend(made.space.pk) is Tended.KEPT
    assert names(made.space) == []
    grow(made, 20)
    assert indexes.tend(made.space.pk) is Tended.BUILT
    made.space.refresh_from_db()
    assert (made.space.state, made.space.vectors, made.space.products) == (
        IndexState.INDEXED,
        610,
        59,
    )
    assert names(made.space) == [made.space.index_name]
    assert made.space.built_with["ef_construction"] == 200
    assert made.space.built_with["bytes"] > 0
    GalleryImage.objects.filter(pk__in=made.ids[:250].tolist()).delete()
    indexes.tend(made.space.pk)
    assert len(names(made.space)) == 1  # between the two thresholds it stays
    GalleryImage.objects.filter(pk__in=made.ids[250:350].tolist()).delete()
    assert indexes.tend(made.space.pk) is Tended.DROPPED
    made.space.refresh_from_db()
    assert (made.space.state, made.space.index_name) == (IndexState.EXACT, "")
    assert names(made.space) == []


def test_tending_again_changes_nothing(indexed):
    made = indexed(700)
    before = names(made.space)
    assert indexes.tend(made.space.pk) is Tended.KEPT
    assert indexes.tend_all() == {}
    assert names(made.space) == before


def test_flat_never_has_an_index(filled, low_thresholds):
    made = filled(700, index_type=IndexType.FLAT)
    assert indexes.tend(made.space.pk) is Tended.KEPT
    assert names(made.space) == []


def test_another_type_is_built_beside_and_switched_to(indexed):
    made = indexed(700)
    old = made.space.index_name
    indexes.set_type(made.space, IndexType.IVF, lists=20)
    assert indexes.tend_all() == {made.space.pk: Tended.BUILT}
    made.space.refresh_from_db()
    assert made.space.index_name != old
    assert names(made.space) == [made.space.index_name]
    assert (made.space.built_with["type"], made.space.built_with["lists"]) == ("IVF", 20)
    assert "IVF" in search.nearest([made.space], made.questions, limit=5).plan
    indexes.set_type(made.space, IndexType.FLAT)
    assert indexes.tend(made.space.pk) is Tended.DROPPED
    assert names(made.space) == []


def test_other_parameters_make_another_index(indexed):
    made = indexed(700)
    indexes.set_type(made.space, IndexType.HNSW32, m=8, ef_construction=32)
    assert indexes.tend(made.space.pk) is Tended.BUILT
    made.space.refresh_from_db()
    assert made.space.built_with["m"] == 8
    assert indexes.tend(made.space.pk) is Tended.KEPT
    assert indexes.tend(made.space.pk, rebuild=True) is Tended.BUILT


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"m": 1}, "m"),
        ({"m": 101}, "m"),
        ({"ef_construction": 3}, "ef_construction"),
        ({"m": 50, "ef_construction": 99}, "ef_construction"),
        ({"lists": 0}, "lists"),
        ({"recall_target": 1.5}, "recall_target"),
    ],
)
def test_parameters_pgvector_does_not_take_are_refused(filled, options, field):
    made = filled(3)
    with pytest.raises(BadInput) as refused:
        indexes.set_type(made.space, IndexType.HNSW32, **options)
    assert refused.value.field == field
    made.space.refresh_from_db()
    assert (made.space.m, made.space.ef_construction) == (16, 200)


def test_an_index_full_of_removed_vectors_is_built_anew(indexed):
    made = indexed(1400)
    before = physical.size(made.space.index_name)
    GalleryImage.objects.filter(pk__in=made.ids[::2].tolist()).delete()
    assert indexes.tend(made.space.pk) is Tended.BUILT
    made.space.refresh_from_db()
    assert physical.size(made.space.index_name) < 0.7 * before


def test_a_removed_catalogue_leaves_no_index(indexed):
    made = indexed(700)
    space_id = made.space.pk
    made.space.catalogue.delete()
    assert indexes.tend_all() == {space_id: Tended.GONE}
    assert physical.existing() == []


def test_an_index_dropped_by_hand_is_noticed(indexed):
    made = indexed(700)
    physical.drop(made.space.index_name)
    found = search.nearest([made.space], made.questions, limit=5)  # slow, but right
    assert {len(neighbours) for neighbours in found.neighbours} == {5}
    assert indexes.tend_all() == {made.space.pk: Tended.BUILT}


def test_before_a_big_load_the_index_goes(indexed):
    made = indexed(700)
    assert indexes.before_load(made.space.pk, 100) is False
    assert len(names(made.space)) == 1
    assert indexes.before_load(made.space.pk, 5000) is True
    assert names(made.space) == []
    made.space.refresh_from_db()
    assert search.nearest([made.space], made.questions, limit=5).plans[0].exact
    assert indexes.tend(made.space.pk) is Tended.BUILT


def test_a_large_index_is_worth_more_than_the_time_of_a_load(indexed, monkeypatch):
    monkeypatch.setattr(tending, "WORTH_KEEPING", 500)
    assert indexes.before_load(indexed(700).space.pk, 5000) is False


def test_a_build_that_fails_says_why_and_leaves_nothing(filled, low_thresholds, monkeypatch):
    made = filled(700)
    monkeypatch.setattr(physical, "partition", lambda space_id: "no_such_table")
    assert indexes.tend(made.space.pk) is Tended.FAILED
    made.space.refresh_from_db()
    assert made.space.state == IndexState.EXACT
    assert "no_such_table" in made.space.build_error
    monkeypatch.undo()
    monkeypatch.setattr(planner, "BUILD_FROM", 600)
    assert indexes.tend(made.space.pk) is Tended.BUILT
    made.space.refresh_from_db()
    assert made.space.build_error == ""


@pytest.fixture
def stalled(filled, low_thresholds) -> Iterator[Callable]:
    """A build that waits for a writer's open transaction, half done: (space, let it go on)."""
    threads: list[threading.Thread] = []
    release = threading.Event()

    def start():
        made = filled(900)
        wrote, outcome = threading.Event(), []

        def writer() -> None:
            from django.db import transaction

            with transaction.atomic():
                search.store(made.space, made.ids[:1].tolist(), [0], made.vectors[:1])
                wrote.set()
                release.wait(120)
            connections.close_all()

        def builder() -> None:
            try:
                outcome.append(indexes.tend(made.space.pk))
            except OperationalError as error:
                outcome.append(error)
            finally:
                connections.close_all()

        threads.extend([threading.Thread(target=writer), threading.Thread(target=builder)])
        threads[0].start()
        assert wrote.wait(60)
        threads[1].start()
        deadline = time.monotonic() + 60
        while not (found := physical.progress(made.space.pk)) or "wait" not in found.phase:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return made, outcome

    def go_on() -> None:
        release.set()
        for thread in threads:
            thread.join(120)

    start.go_on = go_on
    yield start
    go_on()


def test_nobody_waits_for_a_build(stalled):
    made, outcome = stalled()
    made.space.refresh_from_db()
    assert made.space.state == IndexState.BUILDING
    assert 0 <= physical.progress(made.space.pk).share <= 1
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '2s'")
    try:
        found = search.nearest([made.space], made.questions, limit=5)
        assert {len(neighbours) for neighbours in found.neighbours} == {5}
        grow(made, 10)
        GalleryImage.objects.filter(pk=made.ids[5]).delete()
        Product.objects.filter(label="product 1").update(label="renamed")
    finally:
        with connection.cursor() as cursor:
            cursor.execute("RESET lock_timeout")
    assert indexes.tend(made.space.pk) is Tended.BUSY
    assert indexes.tend_all() == {}
    stalled.go_on()
    assert outcome == [Tended.BUILT]
    assert physical.progress(made.space.pk) is None
    made.space.refresh_from_db()
    found = search.nearest([made.space], made.vectors[5:6], limit=1, per_product=False)
    assert found.neighbours[0][0].image_id != made.ids[5]


def test_what_a_killed_build_left_is_cleared_away(stalled):
    made, outcome = stalled()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_progress_create_index")
    deadline = time.monotonic() + 60
    while not outcome:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert isinstance(outcome[0], OperationalError)
    [left] = physical.existing(made.space.pk)
    assert not left.valid
    made.space.refresh_from_db()
    assert made.space.state == IndexState.BUILDING  # nobody was left to say otherwise
    found = search.nearest([made.space], made.questions, limit=5)
    assert {len(neighbours) for neighbours in found.neighbours} == {5}
    stalled.go_on()
    assert indexes.tend_all() == {made.space.pk: Tended.BUILT}
    made.space.refresh_from_db()
    assert [(i.name, i.valid) for i in physical.existing()] == [(made.space.index_name, True)]
    assert made.space.index_name != left.name or made.space.state == IndexState.INDEXED


def test_another_metric_says_the_same_in_other_numbers(filled):
    made = filled(50)
    catalogue = made.space.catalogue
    catalogue.rec_threshold = 0.8
    catalogue.save()
    version = catalogue.version
    indexes.set_metric(made.space, Metric.L2)
    catalogue.refresh_from_db()
    assert catalogue.rec_threshold == pytest.approx(0.4)
    assert catalogue.version == version + 1
    indexes.set_metric(made.space, Metric.COSINE)
    catalogue.refresh_from_db()
    assert catalogue.rec_threshold == pytest.approx(0.8)


def test_settings_of_a_search_do_not_outlive_it(indexed):
    made = indexed()
    search.nearest([made.space], made.questions, limit=5)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('hnsw.ef_search'), current_setting('hnsw.iterative_scan')"
        )
        assert cursor.fetchone() == ("40", "off")


def test_statistics_count_what_is_there(indexed):
    made = indexed(700)
    [found] = indexes.statistics(made.space.catalogue)
    assert (found.vectors, found.images, found.products) == (700, 700, 70)
    assert found.current
    assert found.index_bytes == physical.size(made.space.index_name)
    assert found.state == IndexState.INDEXED
    assert found.recall >= 0.9
    assert found.version == made.space.catalogue.version
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_total_relation_size(%s)", [physical.partition(made.space.pk)])
        whole = cursor.fetchone()[0]
    assert found.vector_bytes == pytest.approx(whole - found.index_bytes, rel=0.4)
    assert VectorIndex.objects.get(pk=made.space.pk).samples.count() == 1
