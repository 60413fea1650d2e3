"""Live questions go before bulk work, and in the bulk lane the catalogues take turns."""

from __future__ import annotations

import threading
import time
from collections import deque

import pytest
import redis

from recognition import tasks
from recognition.errors import ModelUnavailable
from recognition.models import FeatureModel, GalleryImage, RecognitionQuery, State, VectorIndex
from recognition.services import (
    answering,
    background,
    bell,
    gallery_adding,
    indexes,
    indexing,
    queries,
)
from tests import factories
from tests.processes import until

BATCH = 16


def done(catalogue) -> int:
    return GalleryImage.objects.filter(catalogue=catalogue, state=State.DONE).count()


def fill(catalogue, count: int, *, at_once: int) -> None:
    """`count` pictures of the size of a photo, `at_once` with each wake-up."""
    pictures = [factories.picture(seed, (320, 240)) for seed in range(16)]
    for start in range(0, count, at_once):
        new = [
            gallery_adding.NewImage(f"product {start + n}", pictures[(start + n) % 16])
            for n in range(at_once)
        ]
        gallery_adding.add_images(catalogue, new, by=catalogue.owner)


def wait_for(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)


def test_a_question_does_not_wait_behind_the_backlog(worker, starter_catalogue):
    catalogue = starter_catalogue()
    fill(catalogue, 480, at_once=32)
    worker()
    wait_for(lambda: done(catalogue))
    for seed in range(3):
        query = queries.submit(catalogue, factories.picture(seed, (320, 240)), by=None)
        catalogue.refresh_from_db()
        queries.require_answer(query, 60)
        query.refresh_from_db()
        # Each batch moves the version: one may be under way when the question is stored, and one
        # may begin before its wake-up is there.
        assert query.catalogue_version - catalogue.version <= 2
    assert done(catalogue) < 480, "the backlog was too short to show anything"


def test_a_catalogue_with_a_thousand_wake_ups_does_not_keep_the_others_waiting(
    worker, starter_catalogue
):
    first, second = starter_catalogue("first"), starter_catalogue("second")
    fill(first, 320, at_once=1)
    fill(second, 2 * BATCH, at_once=2 * BATCH)
    worker()
    wait_for(lambda: done(second) == 2 * BATCH)
    # Turn by turn: a few batches for the one, as for the other; more while this process slept.
    assert 0 < done(first) <= 10 * BATCH


def test_nobody_waits_for_the_upkeep_of_the_indexes(monkeypatch):
    go_on, done = threading.Event(), []

    def slow(what: str):
        def work() -> None:
            go_on.wait(10)  # as for the snapshot of somebody who makes a backup
            done.append(what)

        return work

    monkeypatch.setattr(indexes, "tend_all", slow("tended"))
    monkeypatch.setattr(indexes, "measure_all", slow("measured"))
    tasks.tend_indexes()
    for _ in range(3):  # the beat goes on
        tasks.tend_indexes()
        tasks.measure_recall()
    assert done == []
    go_on.set()
    until(lambda: not background.upkeep.busy)
    assert done[0] == "tended" and sorted(done) in (
        ["measured", "tended"],  # the thread had not begun when it was asked again
        ["measured", "tended", "tended"],
    )


@pytest.mark.django_db
def test_catalogues_take_turns_however_many_wake_ups_each_has(
    catalogue, user, stub_engine, monkeypatch
):
    other = factories.catalogue(owner=user)
    for seed in range(BATCH + 4):
        factories.add(catalogue, "tea", seed)
        factories.add(other, "tea", seed)
    served = []
    wake_ups = deque([catalogue.pk] * 3 + [other.pk])
    monkeypatch.setattr(tasks, "wake", lambda task, token: wake_ups.append(token))
    while wake_ups:
        before = done(catalogue), done(other)
        indexing.embed_in_turn(wake_ups.popleft())
        served.append("first" if done(catalogue) > before[0] else "other")
        assert len(served) < 10
    assert served[:4] in (["first", "other"] * 2, ["other", "first"] * 2)
    assert done(catalogue) == done(other) == BATCH + 4


@pytest.mark.django_db
def test_the_next_batch_is_for_whoever_is_free_first(catalogue, stub_engine, monkeypatch):
    for seed in range(BATCH + 1):
        factories.add(catalogue, "tea", seed)
    done_when_woken = []
    monkeypatch.setattr(tasks, "wake", lambda task, token: done_when_woken.append(done(catalogue)))
    indexing.embed_in_turn(catalogue.pk)
    indexing.embed_in_turn(catalogue.pk)
    assert done_when_woken == [0]
    assert done(catalogue) == BATCH + 1


@pytest.mark.django_db
def test_a_catalogue_whose_network_is_missing_does_not_take_the_wake_up_of_another(
    catalogue, user, stub_engine, monkeypatch
):
    broken = factories.catalogue(owner=user)
    factories.add(broken, "tea", 1)
    factories.add(catalogue, "tea", 2)
    embed = indexing._embed

    def fails(of, pictures):
        if of.pk == broken.pk:
            raise ModelUnavailable("not installed")
        embed(of, pictures)

    monkeypatch.setattr(indexing, "_embed", fails)
    monkeypatch.setattr(indexing, "_last_served", catalogue.pk)  # it is the other one's turn
    woken = []
    monkeypatch.setattr(tasks, "wake", lambda task, token: woken.append(token))
    indexing.embed_in_turn(catalogue.pk)
    assert woken == [catalogue.pk]
    indexing.embed_in_turn(catalogue.pk)
    assert woken == [catalogue.pk]
    assert done(catalogue) == 1
    assert broken.images.get().error == "not installed"


@pytest.mark.django_db
def test_a_catalogue_whose_network_is_missing_fails_no_question_of_another(catalogue, stub_engine):
    broken = factories.catalogue()
    weights = FeatureModel.objects.create(name="stub_rec", digest="f" * 64, dimension=64)
    VectorIndex.objects.filter(pk=broken.index_id).update(feature_model=weights)
    of_broken, other = (
        queries.submit(of, factories.picture(1), by=None) for of in (broken, catalogue)
    )
    answering.answer_waiting()
    of_broken.refresh_from_db()
    other.refresh_from_db()
    assert (other.state, other.error) == (State.DONE, "")
    assert of_broken.state == State.FAILED and "other weights" in of_broken.error


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("live_batch", "device", "together"), [(0, "cpu", 4), (0, "gpu", 16), (7, "cpu", 7)]
)
def test_questions_are_answered_a_few_at_a_time_on_a_cpu(
    catalogue, stub_engine, settings, monkeypatch, live_batch, device, together
):
    from recognition.engine.devices import Device

    settings.SHITU_LIVE_BATCH = live_batch
    monkeypatch.setattr(answering.get_runtime(), "device", Device(device))
    monkeypatch.setattr(answering.get_runtime(), "_probed", True)
    for seed in range(together + 1):
        queries.submit(catalogue, factories.picture(seed), by=None)
    assert answering.answer_waiting() is True
    assert RecognitionQuery.objects.filter(state=State.DONE).count() == together
    assert answering.answer_waiting() is False


@pytest.mark.django_db
def test_questions_that_wait_together_share_one_wake_up(
    catalogue, stub_engine, monkeypatch, django_capture_on_commit_callbacks
):
    woken: list[str] = []
    monkeypatch.setattr(tasks, "wake", lambda task, *args: woken.append(task.name))

    def ask() -> None:
        with django_capture_on_commit_callbacks(execute=True):
            queries.submit(catalogue, factories.picture(1), by=None)

    for _ in range(3):
        ask()
    assert woken == ["recognition.tasks.answer_queries"]
    tasks.answer_queries()
    assert not RecognitionQuery.objects.exclude(state=State.DONE).exists()
    ask()
    assert len(woken) == 2, "a question stored after a worker looked was left waiting"


@pytest.mark.django_db
def test_a_worker_with_its_hands_full_wakes_the_next_one_first(
    catalogue, stub_engine, settings, monkeypatch
):
    settings.SHITU_LIVE_BATCH = 2
    for _ in range(3):
        queries.submit(catalogue, factories.picture(1), by=None)
    states: list[list[str]] = []
    rows = RecognitionQuery.objects.order_by("pk").values_list("state", flat=True)
    monkeypatch.setattr(tasks, "wake_to_answer", lambda: states.append(list(rows.all())))
    answering.answer_waiting()
    assert states == [[State.RUNNING, State.RUNNING, State.PENDING]]


def test_a_broken_broker_wakes_all_the_same(monkeypatch):
    def fails(*args, **options):
        raise redis.ConnectionError("gone")

    monkeypatch.setattr(bell._redis(), "set", fails)
    assert bell.knock() is True
