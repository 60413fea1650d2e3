"""Full queues answer "later" at once, and say how much later."""

from __future__ import annotations

import pytest
from django.db import connection
from django.utils import timezone

from recognition.errors import LimitReached
from recognition.models import RecognitionQuery, State, Worker
from recognition.services import backpressure, gallery_adding, queries
from tests import factories

pytestmark = pytest.mark.django_db


def ask(catalogue) -> RecognitionQuery:
    return queries.submit(catalogue, factories.picture(), by=None)


def worker(pictures: int, seconds: float, queues: str = "live,bulk") -> Worker:
    now = timezone.now()
    return Worker.objects.create(
        name=f"host:{Worker.objects.count()}",
        device="cpu",
        queues=queues,
        batch_size=16,
        pictures=pictures,
        busy_seconds=seconds,
        started_at=now,
        seen_at=now,
    )


def test_a_full_queue_takes_no_more_questions_until_one_is_answered(catalogue, settings):
    settings.SHITU_MAX_WAITING_QUERIES = 3
    asked = [ask(catalogue) for _ in range(3)]
    with pytest.raises(LimitReached, match="3 questions"):
        ask(catalogue)
    assert RecognitionQuery.objects.count() == 3
    factories.ended(asked[0], State.DONE)
    assert ask(catalogue).state == State.PENDING


def test_questions_under_way_count_and_failed_ones_do_not(catalogue, settings):
    settings.SHITU_MAX_WAITING_QUERIES = 2
    running, failed = ask(catalogue), ask(catalogue)
    RecognitionQuery.objects.filter(pk=running.pk).update(state=State.RUNNING)
    factories.ended(failed, State.FAILED, error="no")
    ask(catalogue)
    with pytest.raises(LimitReached):
        ask(catalogue)


def test_no_limit_is_no_limit(catalogue, settings):
    settings.SHITU_MAX_WAITING_QUERIES = 0
    for _ in range(3):
        ask(catalogue)


def test_how_much_later_comes_from_the_rate_of_the_workers_that_answer(catalogue, settings):
    settings.SHITU_MAX_WAITING_QUERIES = 1
    ask(catalogue)

    def retry_after() -> float:
        with pytest.raises(LimitReached) as caught:
            ask(catalogue)
        assert caught.value.retry_after is not None
        return caught.value.retry_after

    assert retry_after() == 30, "nobody has measured anything"
    worker(100, 1000.0)
    assert retry_after() == pytest.approx(10)
    worker(100, 1000.0)
    assert retry_after() == pytest.approx(5)
    worker(1000, 1.0, queues="bulk")
    assert retry_after() == pytest.approx(5), "one that answers no questions does not help"
    worker(1000, 1.0)
    assert retry_after() == 1


def test_looking_costs_one_statement_on_the_index_of_the_unfinished(
    catalogue, settings, django_assert_num_queries
):
    settings.SHITU_MAX_WAITING_QUERIES = 1000
    with django_assert_num_queries(1) as captured:
        backpressure.check_query()
    [query] = captured.captured_queries
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute("SET LOCAL enable_bitmapscan = off")
        cursor.execute(f"EXPLAIN {query['sql']}")
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert "query_unfinished" in plan


def test_images_have_a_limit_in_each_catalogue(catalogue, user, settings):
    settings.SHITU_MAX_WAITING_IMAGES = 2
    other = factories.catalogue(owner=user)
    for seed in range(2):
        factories.add(catalogue, "tea", seed)
    with pytest.raises(LimitReached, match="2 pictures of the catalogue"):
        backpressure.check_images(catalogue)
    backpressure.check_images(other)


def test_an_upload_is_refused_as_a_whole(catalogue, settings):
    settings.SHITU_MAX_WAITING_IMAGES = 1
    upload = gallery_adding.Upload("tea", lambda: factories.picture(1))
    gallery_adding.add_each(catalogue, [upload], by=catalogue.owner)
    with pytest.raises(LimitReached):
        gallery_adding.add_each(catalogue, [upload], by=catalogue.owner)
    assert catalogue.images.count() == 1
