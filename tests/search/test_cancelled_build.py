"""Cancelling a rebuild stops PostgreSQL, and the index that was there goes on answering."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from django.db import connections, transaction

from recognition import search
from recognition.models import IndexState, Job, State, VectorIndex
from recognition.search import physical
from recognition.services import index_jobs, indexes, jobs
from recognition.services.indexes import Tended

pytestmark = pytest.mark.django_db(transaction=True)


def names(space) -> list[tuple[str, bool]]:
    return [(index.name, index.valid) for index in physical.existing(space.pk)]


def until(happened: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def worker() -> Iterator[Callable[[Job], threading.Thread]]:
    """`worker(job)` works on a job beside us."""
    threads: list[threading.Thread] = []

    def work(job_id: int) -> None:
        try:
            jobs.run(job_id)
        finally:
            connections.close_all()

    def start(job: Job) -> threading.Thread:
        threads.append(threading.Thread(target=work, args=(job.pk,)))
        threads[-1].start()
        return threads[-1]

    yield start
    for thread in threads:
        thread.join(120)


def ended_as_cancelled(made, job: Job, before: list[tuple[str, bool]]) -> None:
    job.refresh_from_db()
    assert job.state == State.FAILED
    assert job.error == "cancelled by bench; the index that was there goes on answering"
    assert names(made.space) == before
    made.space.refresh_from_db()
    assert (made.space.state, made.space.build_error) == (IndexState.INDEXED, "")
    found = search.nearest([made.space], made.questions, limit=5)
    assert not found.plans[0].exact
    assert {len(neighbours) for neighbours in found.neighbours} == {5}
    assert indexes.tend_all() == {}  # nothing is left to clear away


def test_a_build_at_work_is_stopped_at_once(indexed, worker):
    made = indexed(3000)
    before = names(made.space)
    # So careful that it would take far longer than this test may.
    VectorIndex.objects.filter(pk=made.space.pk).update(m=100, ef_construction=1000)
    job = index_jobs.start_rebuild(made.space.catalogue, by=made.space.catalogue.owner)
    thread = worker(job)

    def building() -> bool:
        found = physical.progress(made.space.pk)
        return found is not None and found.phase.startswith("building index")

    until(building)
    jobs.cancel(job, by=made.space.catalogue.owner)
    cancelled_at = time.monotonic()
    thread.join(120)
    assert not thread.is_alive()
    assert time.monotonic() - cancelled_at < 30
    assert physical.progress(made.space.pk) is None
    VectorIndex.objects.filter(pk=made.space.pk).update(m=16, ef_construction=64)
    ended_as_cancelled(made, job, before)


def test_a_build_that_waits_for_a_writer_is_stopped_too(indexed, worker):
    made = indexed(700)
    before = names(made.space)
    with transaction.atomic():
        search.store(made.space, made.ids[:1].tolist(), [0], made.vectors[:1])
        # Started by another connection: ours is busy with the transaction it waits for.
        outcome: list[Job] = []

        def steer() -> None:
            try:
                catalogue = made.space.catalogue
                job = index_jobs.start_rebuild(catalogue, by=catalogue.owner)
                outcome.append(job)
                worker(job)
                until(lambda: physical.progress(made.space.pk))
                jobs.cancel(job, by=catalogue.owner)
                until(lambda: physical.progress(made.space.pk) is None)
            finally:
                connections.close_all()

        other = threading.Thread(target=steer)
        other.start()
        other.join(120)
        assert not other.is_alive()
    [job] = outcome
    until(lambda: names(made.space) == before)
    until(lambda: VectorIndex.objects.get(pk=made.space.pk).state == IndexState.INDEXED)
    ended_as_cancelled(made, job, before)


def test_one_that_is_cancelled_before_it_begins_builds_nothing(indexed, monkeypatch):
    made = indexed(700)
    before = names(made.space)
    job = index_jobs.start_rebuild(made.space.catalogue, by=made.space.catalogue.owner)
    jobs.cancel(job, by=made.space.catalogue.owner)
    jobs.run(job.pk)
    ended_as_cancelled(made, job, before)


def test_stopped_by_hand_in_postgresql_the_job_says_so(indexed, worker):
    made = indexed(3000)
    before = names(made.space)
    VectorIndex.objects.filter(pk=made.space.pk).update(m=100, ef_construction=1000)
    job = index_jobs.start_rebuild(made.space.catalogue, by=None)
    thread = worker(job)
    until(lambda: physical.stop_build(made.space.pk))
    thread.join(120)
    job.refresh_from_db()
    assert (job.state, names(made.space)) == (State.FAILED, before)
    assert "stopped in PostgreSQL" in job.error


@pytest.fixture
def building(filled, low_thresholds) -> Iterator[Callable]:
    """`building()` builds the first index of a space beside us, and takes its time: (the space,
    what came of it, wait for that)."""
    threads: list[threading.Thread] = []

    def start():
        made = filled(3000)
        VectorIndex.objects.filter(pk=made.space.pk).update(m=100, ef_construction=1000)
        outcome: list[Tended] = []

        def build() -> None:
            try:
                outcome.append(indexes.tend(made.space.pk))
            finally:
                connections.close_all()

        threads.append(threading.Thread(target=build))
        threads[-1].start()
        until(lambda: physical.progress(made.space.pk))
        return made, outcome, threads[-1].join

    yield start
    for thread in threads:
        thread.join(120)


def test_a_first_index_that_is_stopped_leaves_an_exact_space(building):
    made, outcome, wait = building()
    until(lambda: physical.stop_build(made.space.pk))
    wait(120)
    assert outcome == [Tended.STOPPED]
    assert names(made.space) == []
    made.space.refresh_from_db()
    assert (made.space.state, made.space.build_error) == (IndexState.EXACT, "")


def test_the_builds_of_other_spaces_are_left_alone(building, filled):
    other = filled(10)
    made, outcome, wait = building()
    assert physical.stop_build(other.space.pk) is False
    time.sleep(0.2)
    assert physical.progress(made.space.pk) and not outcome
    until(lambda: physical.stop_build(made.space.pk))
    wait(120)
    assert physical.stop_build(made.space.pk) is False
