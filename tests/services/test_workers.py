"""Workers say that they are there, what they run and how fast; one that is silent is gone."""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta

import pytest
from django.utils import timezone

from recognition.models import Worker
from recognition.services import workers
from tests import factories


@pytest.fixture
def announced(db, stub_engine, monkeypatch):
    """This process as a worker, with the stub networks in memory."""
    from recognition.engine.stub import stub_runtime

    runtime = stub_runtime()
    runtime.warm_up(["stub_det", "stub_rec"])
    monkeypatch.setattr(workers, "get_runtime", lambda: runtime)
    monkeypatch.setattr(workers, "_tally", workers._Tally())
    monkeypatch.setattr(workers, "_keep_announcing", lambda: None)
    workers.announce("live,bulk")
    return Worker.objects.get()


def test_a_worker_says_what_it_is(announced):
    assert announced.name.endswith(f":{os.getpid()}")
    assert (announced.device, announced.queues, announced.batch_size) == ("cpu", "live,bulk", 16)
    assert [(n["name"], n["engine"], n["precision"], n["threads"]) for n in announced.networks] == [
        ("stub_det", "stub", "float32", 1),
        ("stub_rec", "stub", "float32", 1),
    ]
    assert all(network["seconds"] >= 0 for network in announced.networks)
    assert announced.memory_bytes > 1_000_000
    assert announced.is_alive and announced.pictures_per_second is None


def test_its_rate_is_of_the_time_it_worked(announced, monkeypatch):
    clock = iter([100.0, 100.02])
    with monkeypatch.context() as patch:
        patch.setattr(workers.time, "perf_counter", lambda: next(clock))
        with workers.counting(10):
            pass
    Worker.objects.filter(pk=announced.pk).update(**workers._now())
    announced.refresh_from_db()
    assert announced.pictures == 10
    assert announced.pictures_per_second == pytest.approx(500)


def test_one_that_stops_answering_is_gone_and_still_listed(announced, settings):
    silent = timedelta(seconds=settings.SHITU_WORKER_GONE_SECONDS + 1)
    Worker.objects.update(seen_at=timezone.now() - silent)
    [listed] = workers.listing()
    assert not listed.is_alive
    assert not Worker.objects.alive().exists()


def test_one_that_ends_in_order_is_not_listed(announced):
    workers.leave()
    assert not workers.listing().exists()


def test_after_days_of_silence_it_is_forgotten(announced):
    Worker.objects.update(name="other:1", seen_at=timezone.now() - timedelta(days=8))
    workers.announce("live")
    assert [one.queues for one in workers.listing()] == ["live"]


def test_models_in_use_are_those_of_the_site_and_of_its_catalogues(catalogue, settings):
    settings.SHITU_DETECTOR, settings.SHITU_FEATURE_MODEL = "", "starter_rec"
    assert workers.models_in_use() == ["starter_rec", "stub_rec"]
    factories.catalogue(owner=catalogue.owner, detector="stub_det")
    assert workers.models_in_use() == ["starter_rec", "stub_det", "stub_rec"]


def test_a_real_worker_is_listed_and_gone_after_it_was_killed(worker, starter_models, settings):
    process = worker()
    [row] = workers.listing()
    assert {n["engine"] for n in row.networks} <= {"openvino", "onnxruntime", "paddle_mkldnn"}
    assert {n["name"] for n in row.networks} == {"starter_det", "starter_rec"}
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    settings.SHITU_WORKER_GONE_SECONDS = 0.1
    time.sleep(0.2)
    [row] = workers.listing()
    assert not row.is_alive
