"""A build or add over its time is answered with a job, which the workers end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from django.utils import translation

from recognition.errors import Conflict, EngineFailed, LimitReached
from recognition.models import AuditEntry, Catalogue, Embedding, Job, State, Worker
from recognition.services import (
    embed_jobs,
    exports,
    gallery,
    indexing,
    jobs,
    quotas,
    recovery,
    trash,
)
from tests.paddlex.test_build_add_remove import add, build, pair, remove


@pytest.fixture
def no_worker(monkeypatch, settings) -> None:
    from recognition import tasks

    settings.SHITU_PADDLEX_TIMEOUT = 0.1
    monkeypatch.setattr(tasks, "wake", lambda task, *args: None)


@pytest.fixture
def unfinished(local, no_worker) -> Callable[..., Job]:
    """`unfinished(*pairs)` is the job of a build of these that no worker has begun."""

    def start(*pairs: dict[str, str]) -> Job:
        return _job(build(local, *pairs))

    return start


def _job(response: httpx.Response) -> Job:
    assert response.status_code == 504, response.text
    return Job.objects.get(key=response.json()["result"]["jobId"])


def _embed(job: Job) -> None:
    """What a worker does when it has time."""
    while indexing.embed_waiting(job.catalogue_id):
        pass
    job.refresh_from_db()


def _lines(job: Job) -> list[tuple[int, str, str]]:
    return list(job.lines.values_list("number", "text", "result"))


def test_the_answer_names_the_job_and_where_to_look(local, no_worker):
    response = build(local, pair(0), pair(1, "cola"))
    answer = response.json()
    job = Job.objects.get()
    assert (response.status_code, answer["errorCode"]) == (504, 504)
    assert answer["result"] == {
        "indexKey": str(job.catalogue.key), "ids": [0, 1], "jobId": str(job.key),
    }  # fmt: skip
    assert str(job.key) in answer["errorMsg"] and "0 of 2" in answer["errorMsg"]
    address = answer["errorMsg"].rpartition("GET ")[2]
    shown = local.get(address).json()
    assert (shown["kind"], shown["state"]) == ("embed", "running")
    assert (shown["total"], shown["done"], shown["failed"]) == (2, 0, 0)
    assert shown["started_by"] == "paddlex client"
    lines = local.get(f"{address}/lines").json()["results"]
    assert [(one["text"], one["result"], one["image"]) for one in lines] == [
        ("tea", "waiting", 0), ("cola", "waiting", 1),
    ]  # fmt: skip


def test_nothing_is_made_for_what_is_in_time(local):
    key = build(local, pair(0)).json()["result"]["indexKey"]
    assert add(local, key, pair(1)).status_code == 200
    assert not Job.objects.exists()


def test_it_counts_what_is_embedded_and_ends_with_the_last(unfinished, settings):
    settings.SHITU_BATCH_SIZE = 2
    job = unfinished(*[pair(seed, f"p{seed}") for seed in range(3)])
    indexing.embed_waiting(job.catalogue_id)
    job.refresh_from_db()
    assert (job.state, job.done, job.failed) == (State.RUNNING, 2, 0)
    assert [result for _, _, result in _lines(job)] == ["ok", "ok", "waiting"]
    _embed(job)
    assert (job.state, job.total, job.done, job.failed) == (State.DONE, 3, 3, 0)
    assert job.finished_at is not None
    assert _lines(job) == [(1, "p0", "ok"), (2, "p1", "ok"), (3, "p2", "ok")]
    acts = AuditEntry.objects.filter(object_id=str(job.pk)).order_by("pk")
    assert list(acts.values_list("action", "source", "user_name")) == [
        ("job.start", "api", "paddlex client"), ("job.end", "worker", "paddlex client"),
    ]  # fmt: skip


def test_a_worker_that_died_before_it_could_look_is_made_up_for(unfinished, monkeypatch):
    job = unfinished(pair(0), pair(1))
    with monkeypatch.context() as died:
        died.setattr(embed_jobs, "look", lambda catalogue=None: None)
        _embed(job)
    assert job.state == State.RUNNING
    recovery.resume()
    job.refresh_from_db()
    assert (job.state, job.done) == (State.DONE, 2)


def test_what_was_embedded_at_the_last_moment_is_not_waited_for(local, no_worker, monkeypatch):
    """A worker ends between the last look and the making of the job: nobody would look again."""
    start = embed_jobs.start

    def late(catalogue: Catalogue, *args: Any, **options: Any) -> Job:
        indexing.embed_waiting(catalogue.pk)
        return start(catalogue, *args, **options)

    monkeypatch.setattr(embed_jobs, "start", late)
    job = _job(build(local, pair(0), pair(1)))
    assert (job.state, job.done) == (State.DONE, 2)


def test_a_picture_that_cannot_be_embedded_is_a_line_and_can_be_tried_again(
    unfinished, monkeypatch
):
    class Broken:
        def embed(self, *args: Any, **options: Any) -> None:
            raise EngineFailed("the network is on fire")

    job = unfinished(pair(0), pair(1))
    with monkeypatch.context() as broken:
        broken.setattr(indexing, "get_runtime", Broken)
        _embed(job)
    assert (job.state, job.done, job.failed) == (State.DONE, 0, 2)
    [reason] = set(job.lines.values_list("reason", flat=True))
    assert "on fire" in reason
    assert jobs.retry(job, by=job.started_by) == 2
    assert (job.state, job.failed) == (State.RUNNING, 0)
    _embed(job)
    assert (job.state, job.done, job.failed) == (State.DONE, 2, 0)
    with pytest.raises(Conflict, match="no line"):
        jobs.retry(job, by=job.started_by)


def test_what_goes_away_meanwhile_is_skipped(unfinished, local):
    job = unfinished(pair(0), pair(1, "cola"), pair(2, "water"))
    remove(local, str(job.catalogue.key), [0])
    trash.put(job.catalogue, [job.catalogue.products.get(label="cola")])
    _embed(job)
    assert (job.state, job.done) == (State.DONE, 3)
    assert [result for _, _, result in _lines(job)] == ["skipped", "skipped", "ok"]


def test_why_is_in_the_language_of_whoever_waited(local, no_worker):
    local.headers["Accept-Language"] = "zh-hans"
    job = _job(build(local, pair(0), pair(1, "cola")))
    local.headers["Accept-Language"] = "en"
    again = _job(add(local, str(job.catalogue.key), pair(0)))
    remove(local, str(job.catalogue.key), [0])
    trash.put(job.catalogue, [job.catalogue.products.get(label="cola")])
    with translation.override("en"):
        embed_jobs.look()
    assert list(job.lines.order_by("number").values_list("reason", flat=True)) == [
        "在提取特征之前已被移除",
        "在提取特征之前，其商品已移入回收站；恢复后会提取",
    ]
    assert again.lines.get().reason == "it was removed before it was embedded"


def test_the_same_call_again_waits_for_the_same_pictures(unfinished, local):
    job = unfinished(pair(0), pair(1))
    again = _job(add(local, str(job.catalogue.key), pair(0), pair(0), pair(2)))
    assert (again.state, again.done) == (State.RUNNING, 0)
    _embed(job)
    again.refresh_from_db()
    assert [job.state, again.state] == [State.DONE, State.DONE]
    assert [result for _, _, result in _lines(again)] == ["duplicate", "duplicate", "ok"]


def test_cancelled_it_keeps_what_is_done_and_removes_the_rest(unfinished, local, settings):
    settings.SHITU_BATCH_SIZE = 1
    job = unfinished(pair(0), pair(1), pair(2))
    other = _job(add(local, str(job.catalogue.key), pair(1), pair(9)))  # 1 is the first job's
    indexing.embed_waiting(job.catalogue_id)
    jobs.cancel(other, by=job.started_by)
    assert other.error == (
        "cancelled by paddlex client after 0 of 2 lines; what was done stays, the other pictures "
        "were removed"
    )
    numbers = job.catalogue.images.order_by("number").values_list("number", flat=True)
    assert list(numbers) == [0, 1, 2]
    jobs.cancel(job, by=job.started_by)
    assert (job.state, job.done) == (State.FAILED, 1)
    assert list(numbers.all()) == [0]
    assert _lines(job) == [(1, "tea", "ok")]
    assert Embedding.objects.count() == 1
    with pytest.raises(Conflict, match="send them again"):
        jobs.retry(job, by=job.started_by)


def test_it_counts_for_the_quota_and_is_never_refused_for_it(unfinished, local):
    job = unfinished(pair(0))
    quotas.change(job.catalogue, concurrent_jobs=1)
    with pytest.raises(LimitReached, match="unfinished jobs"):
        exports.start(job.catalogue, by=job.started_by)
    assert _job(add(local, str(job.catalogue.key), pair(1))).state == State.RUNNING
    _embed(job)
    exports.start(job.catalogue, by=job.started_by)


def test_no_worker_takes_it_for_work(unfinished):
    job = unfinished(pair(0))
    assert jobs.wake_waiting() == 0
    jobs.run(job.pk)
    job.refresh_from_db()
    assert (job.state, job.attempts) == (State.RUNNING, 0)


def test_images_removed_at_the_moment_it_is_made(local, no_worker, monkeypatch):
    start = embed_jobs.start

    def late(catalogue: Catalogue, added: Any, *args: Any, **options: Any) -> Job:
        gallery.remove_images(catalogue, [added[0].image])
        return start(catalogue, added, *args, **options)

    monkeypatch.setattr(embed_jobs, "start", late)
    job = _job(build(local, pair(0), pair(1)))
    assert [result for _, _, result in _lines(job)] == ["skipped", "waiting"]


def test_it_is_finished_though_the_worker_is_killed(serve, worker, monkeypatch):
    """A real worker is killed in the middle of it and another one started."""
    monkeypatch.setenv("SHITU_BATCH_SIZE", "1")  # so slow that it is surely caught in the middle
    site = serve(SHITU_PADDLEX_TIMEOUT="0.05")
    response = build(site, *[pair(seed, f"p{seed}") for seed in range(40)])
    job = _job(response)
    path = f"/api/v1/catalogues/{job.catalogue.key}/jobs/{job.key}"
    assert response.json()["errorMsg"].endswith(f"GET {site.base_url}{path}")
    os.kill(int(Worker.objects.get().name.rpartition(":")[2]), signal.SIGKILL)
    assert site.get(path).json()["state"] == "running"
    worker()
    deadline = time.monotonic() + 120
    while (shown := site.get(path).json())["state"] != "done":
        assert time.monotonic() < deadline, shown
        recovery.resume()  # as beat does, for what the dead worker had taken
        time.sleep(0.3)
    assert (shown["done"], shown["failed"], shown["total"]) == (40, 0, 40)
    report = site.get(f"{path}/report").text.splitlines()
    assert report[1:4] == ["1,ok,,0,p0", "2,ok,,1,p1", "3,ok,,2,p2"]
    assert Embedding.objects.count() == 40
