"""The index of a catalogue: seen, chosen, built anew, explained; and the workers."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from django.utils import timezone

from recognition.models import AuditEntry, IndexType, Job, VectorIndex, Worker
from recognition.services import index_jobs, indexes, jobs
from tests import factories, processes


@pytest.fixture
def tea(catalogue, stub_engine, run_tasks):
    with run_tasks():
        return factories.add(catalogue, "tea", 1)


def test_seen(viewer, url, tea, catalogue, django_assert_max_num_queries):
    with django_assert_max_num_queries(8):
        body = viewer.get(url("index")).json()
    assert (body["feature_model"], body["metric"], body["type"]) == ("stub_rec", "IP", "HNSW32")
    assert (body["vectors"], body["images"], body["products"]) == (1, 1, 1)
    assert body["vector_bytes"] > 0 and body["index_bytes"] == 0
    assert (body["state"], body["recall"], body["progress"]) == ("exact", None, None)
    catalogue.refresh_from_db()
    assert body["version"] == catalogue.version


def test_chosen(manager, url, catalogue):
    wanted = {"type": "IVF", "lists": 50, "recall_target": 0.95}
    body = manager.patch(url("index"), wanted, format="json").json()
    assert (body["type"], body["recall_target"]) == ("IVF", 0.95)
    space = VectorIndex.objects.get()
    assert (space.index_type, space.lists) == (IndexType.IVF, 50)
    entry = AuditEntry.objects.filter(action="catalogue.change").first()
    assert entry.changes["index_type"] == ["HNSW32", "IVF"]


def test_what_nobody_chose_stays_as_another_chose_it(catalogue):
    seen_before = VectorIndex.objects.get()
    indexes.set_type(catalogue.require_index(), IndexType.HNSW32, m=32, recall_target=0.9)
    indexes.set_type(seen_before, IndexType.HNSW32, ef_construction=300)
    space = VectorIndex.objects.get()
    assert (space.m, space.ef_construction, space.recall_target) == (32, 300, 0.9)


def test_another_metric_says_the_same_in_other_words(manager, url, catalogue):
    manager.patch(url(), {"rec_threshold": 0.6}, format="json")
    assert manager.patch(url("index"), {"metric": "L2"}, format="json").json()["metric"] == "L2"
    assert manager.get(url()).json()["rec_threshold"] == pytest.approx(0.8)


@pytest.mark.parametrize(
    "wrong",
    [{"m": 1}, {"m": 90, "ef_construction": 100}, {"type": "Tree"}, {"recall_target": 2}, {"x": 1}],
)
def test_what_cannot_be_built(manager, url, catalogue, wrong):
    assert manager.patch(url("index"), wrong, format="json").status_code == 400
    assert VectorIndex.objects.get().m == 16


def test_nothing_changes_when_part_of_it_is_wrong(manager, url, catalogue):
    wanted = {"metric": "L2", "m": 90, "ef_construction": 100}
    assert manager.patch(url("index"), wanted, format="json").status_code == 400
    assert VectorIndex.objects.get().metric == "IP"


def test_built_anew_as_a_job(manager, url, tea, monkeypatch, run_tasks):
    told = []
    monkeypatch.setattr(
        indexes,
        "tend",
        lambda space, rebuild: told.append((space, rebuild)) or indexes.Tended.BUILT,
    )
    first = manager.post(url("index", "rebuild"))
    assert first.status_code == 201, first.content
    again = manager.post(url("index", "rebuild"))
    assert again.json()["key"] == first.json()["key"]
    jobs.run(Job.objects.get().pk)
    job = manager.get(first["Location"]).json()
    assert (job["kind"], job["state"], job["done"], job["total"]) == ("rebuild", "done", 1, 1)
    assert told == [(VectorIndex.objects.get().pk, True)]


@pytest.mark.parametrize(
    ("became", "reason"),
    [("FAILED", "no memory"), ("GONE", "dropped"), ("STOPPED", "stopped in PostgreSQL")],
)
def test_a_build_that_fails_says_why(catalogue, monkeypatch, became, reason):
    VectorIndex.objects.update(build_error="no memory")
    monkeypatch.setattr(indexes, "tend", lambda *_, **__: indexes.Tended[became])
    job = index_jobs.start_rebuild(catalogue, by=None)
    jobs.run(job.pk)
    job.refresh_from_db()
    assert job.state == "failed" and reason in job.error


def test_while_another_index_is_built_the_job_waits_and_says_so(catalogue, monkeypatch, settings):
    became = indexes.Tended.BUSY
    monkeypatch.setattr(indexes, "tend", lambda *_, **__: became)
    job = index_jobs.start_rebuild(catalogue, by=None)
    for _ in range(settings.SHITU_MAX_ATTEMPTS + 1):
        jobs.run(job.pk)
        job.refresh_from_db()
        assert (job.state, job.attempts, job.finished_at) == ("pending", 0, None)
        assert "another index is being built" in job.error
    became = indexes.Tended.BUILT
    jobs.run(job.pk)
    job.refresh_from_db()
    assert (job.state, job.error) == ("done", "")


@pytest.mark.django_db(transaction=True)
def test_a_long_build_keeps_its_job(catalogue, settings, monkeypatch):
    settings.SHITU_LEASE_SECONDS = 0.6
    seen = set()

    def slowly(*_, **__):
        def was_prolonged_again_and_again() -> bool:
            seen.add(Job.objects.get().lease_until)
            return len(seen) > 3

        processes.until(was_prolonged_again_and_again)
        return indexes.Tended.BUILT

    monkeypatch.setattr(indexes, "tend", slowly)
    job = index_jobs.start_rebuild(catalogue, by=None)
    jobs.run(job.pk)
    job.refresh_from_db()
    assert job.state == "done"


def test_explained(viewer, url, tea):
    lines = viewer.get(url("index", "explain"), {"image": tea.number}).json()["lines"]
    assert any("recognition_embedding" in line for line in lines)
    assert any("Execution Time" in line for line in lines)
    condition = json.dumps([{"name": "ml", "operator": "<", "value": 300}])
    narrowed = {"image": tea.number, "category": "drinks", "attributes": condition}
    assert viewer.get(url("index", "explain"), narrowed).status_code == 200


@pytest.mark.parametrize(
    ("query", "status"),
    [({}, 400), ({"image": 99}, 404), ({"image": 0, "limit": 0}, 400), ({"image": "x"}, 400)],
)
def test_nothing_to_explain(viewer, url, tea, query, status):
    assert viewer.get(url("index", "explain"), query).status_code == status


def test_the_workers_for_staff(api, catalogue, stub_engine):
    from recognition.services import indexing

    now, runtime = timezone.now(), indexing.get_runtime()
    runtime.embed("stub_rec", [np.zeros((8, 8, 3), np.uint8)])
    networks = [asdict(network) for network in runtime.describe()]
    Worker.objects.create(
        name="a:1",
        device="cpu",
        queues="live,bulk",
        batch_size=16,
        networks=networks,
        pictures=10,
        busy_seconds=2.0,
        started_at=now,
        seen_at=now,
    )
    catalogue.owner.is_staff = True
    [shown] = api(catalogue.owner).get("/api/v1/workers").json()["results"]
    assert (shown["name"], shown["is_alive"], shown["pictures_per_second"]) == ("a:1", True, 5.0)
    assert shown["networks"] == networks
    assert networks[0]["name"] == "stub_rec"


def test_an_explanation_counts_nothing_that_may_be_of_others(viewer, url, tea):
    for exact in ("true", "false"):
        query = {"image": tea.number, "exact": exact}
        text = "\n".join(viewer.get(url("index", "explain"), query).json()["lines"])
        assert "actual time=" in text
        for word in ("rows=", "loops=", "cost=", "Rows Removed", "Buffers", "Heap Blocks"):
            assert word not in text
