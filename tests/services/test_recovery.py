"""What was accepted is finished, whoever dies."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

import pytest
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.core.files.storage import default_storage
from django.utils import timezone

from recognition import tasks
from recognition.errors import ModelUnavailable
from recognition.models import GalleryImage, RecognitionQuery, State
from recognition.services import answering, indexing, queries, recovery
from tests import factories

pytestmark = pytest.mark.django_db


def test_the_same_row_is_never_claimed_twice(catalogue):
    for seed in range(5):
        factories.add(catalogue, "tea", seed)
    first = GalleryImage.objects.filter(catalogue=catalogue).claim(3)
    second = GalleryImage.objects.filter(catalogue=catalogue).claim(3)
    assert len(first) == 3 and len(second) == 2
    assert not {row.pk for row in first} & {row.pk for row in second}


def test_rows_of_a_worker_that_died_are_claimed_again_after_the_lease(catalogue):
    factories.add(catalogue, "tea")
    images = GalleryImage.objects.filter(catalogue=catalogue)
    images.claim(1)
    assert images.claim(1) == []
    images.update(lease_until=timezone.now() - timedelta(seconds=1))
    assert len(images.claim(1)) == 1


def test_a_picture_at_which_workers_keep_dying_is_failed(catalogue, settings):
    factories.add(catalogue, "tea")
    images = GalleryImage.objects.filter(catalogue=catalogue)
    for _ in range(settings.SHITU_MAX_ATTEMPTS):
        assert images.claim(1)
        images.update(lease_until=timezone.now() - timedelta(seconds=1))
    assert images.claim(1) == []
    assert images.get().state == State.FAILED and "stopped 3 times" in images.get().error


def leases_run_out() -> None:
    past = timezone.now() - timedelta(seconds=1)
    for rows in (GalleryImage.objects, RecognitionQuery.objects):
        rows.filter(state=State.RUNNING).update(lease_until=past)


@pytest.mark.parametrize("lane", ["images", "questions"])
def test_a_picture_at_which_workers_die_takes_no_other_along(
    catalogue, stub_engine, monkeypatch, settings, lane
):
    if lane == "images":
        rows = [factories.add(catalogue, "tea", seed) for seed in range(4)]
        place, work = indexing, lambda: indexing.embed_waiting(catalogue.pk)
        ids = lambda found: [image.pk for image, _ in found[1]]  # noqa: E731
        name = "_embed"
    else:
        rows = [queries.submit(catalogue, factories.picture(n), by=None) for n in range(4)]
        place, work = answering, answering.answer_waiting
        ids = lambda found: [one.query.pk for one in found[0]]  # noqa: E731
        name = "_answer"
    real = getattr(place, name)

    def die(*found) -> None:
        if rows[2].pk in ids(found):
            raise SystemExit
        real(*found)

    monkeypatch.setattr(place, name, die)
    for _ in range(settings.SHITU_MAX_ATTEMPTS + len(rows)):
        with suppress(SystemExit):
            work()
        leases_run_out()
    for row in rows:
        row.refresh_from_db()
    assert [row.state for row in rows] == [State.DONE, State.DONE, State.FAILED, State.DONE]
    assert "stopped 3 times" in rows[2].error


def test_what_was_attempted_before_is_claimed_alone_and_first(catalogue):
    for seed in range(2):
        factories.add(catalogue, "tea", seed)
    images = GalleryImage.objects.filter(catalogue=catalogue)
    before = {row.pk for row in images.claim(2)}
    leases_run_out()
    for seed in range(2, 4):
        factories.add(catalogue, "tea", seed)
    assert {images.claim(9)[0].pk, images.claim(9)[0].pk} == before
    assert len(images.claim(9)) == 2


def test_those_behind_what_is_taken_alone_are_not_forgotten(catalogue, stub_engine, run_tasks):
    for seed in range(3):
        factories.add(catalogue, "tea", seed)
        queries.submit(catalogue, factories.picture(seed), by=None)
    GalleryImage.objects.filter(catalogue=catalogue).claim(2)
    RecognitionQuery.objects.all().claim(2)
    leases_run_out()
    with run_tasks():
        recovery.resume()
    for rows in (GalleryImage.objects, RecognitionQuery.objects):
        assert set(rows.values_list("state", flat=True)) == {State.DONE}


def test_resume_wakes_every_catalogue_once_and_the_questions(catalogue, stub_engine, run_tasks):
    for seed in range(3):
        factories.add(catalogue, "tea", seed)
    query = queries.submit(catalogue, factories.picture(1), by=None)
    with run_tasks():
        assert recovery.resume() == 2
    assert set(GalleryImage.objects.values_list("state", flat=True)) == {State.DONE}
    query.refresh_from_db()
    assert query.state == State.DONE


def test_a_broker_that_is_gone_loses_nothing(
    catalogue, monkeypatch, django_capture_on_commit_callbacks
):
    from kombu.exceptions import OperationalError

    def unreachable(*args):
        raise OperationalError("no broker")

    monkeypatch.setattr(tasks.embed_images, "delay", unreachable)
    with django_capture_on_commit_callbacks(execute=True):
        image = factories.add(catalogue, "tea")
    assert GalleryImage.objects.waiting().get() == image


def test_old_questions_go_with_their_pictures_and_new_ones_stay(
    catalogue, settings, django_capture_on_commit_callbacks
):
    old, new = (queries.submit(catalogue, factories.picture(n), by=None) for n in (1, 2))
    RecognitionQuery.objects.update(state=State.DONE)
    days = settings.SHITU_KEEP_QUERIES_DAYS + 1
    RecognitionQuery.objects.filter(pk=old.pk).update(
        created_at=timezone.now() - timedelta(days=days)
    )
    with django_capture_on_commit_callbacks(execute=True):
        assert recovery.purge_queries() == 1
    assert RecognitionQuery.objects.get() == new
    assert not default_storage.exists(old.file.name)


def test_every_task_of_the_schedule_exists(settings):
    names = {entry["task"] for entry in settings.CELERY_BEAT_SCHEDULE.values()}
    assert names <= {task.name for task in vars(tasks).values() if hasattr(task, "name")}


def test_expired_sessions_are_forgotten():
    for days in (-1, 1):
        session = SessionStore()
        session.set_expiry(timezone.now() + timedelta(days=days))
        session.save()
    tasks.purge_sessions()
    assert Session.objects.get().expire_date > timezone.now()


@pytest.mark.parametrize("ends", ["answered", "failed"])
def test_who_was_too_slow_leaves_the_answer_of_another_worker_alone(
    catalogue, stub_engine, run_tasks, monkeypatch, ends
):
    factories.add(catalogue, "tea", 1)
    with run_tasks():
        recovery.resume()
    query = queries.submit(catalogue, factories.picture(1), by=None)
    real = answering._search
    first: list[tuple[int, ...]] = []

    def too_slow(asked):
        monkeypatch.setattr(answering, "_search", real)
        RecognitionQuery.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
        answering.answer_waiting()  # the other worker
        first.append(tuple(query.detections.values_list("pk", flat=True)))
        if ends == "failed":
            raise ModelUnavailable("the network went away")
        return real(asked)

    monkeypatch.setattr(answering, "_search", too_slow)
    answering.answer_waiting()
    query.refresh_from_db()
    assert (query.state, query.error) == (State.DONE, "")
    assert first == [tuple(query.detections.values_list("pk", flat=True))] and first[0]
