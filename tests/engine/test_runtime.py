from __future__ import annotations

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from recognition.engine import devices
from recognition.engine.devices import Device
from recognition.engine.runtime import Runtime, usable_cores
from recognition.engine.store import ModelStore
from recognition.engine.stub import StubDetector, StubEmbedder, StubStore, stub_runtime
from recognition.engine.types import Box
from recognition.errors import BadInput, DeviceUnavailable, ModelUnavailable

white = np.full((40, 60, 3), 255, np.uint8)
dotted = white.copy()
dotted[10:30, 20:50] = (200, 0, 0)


def test_it_detects_and_embeds_by_name():
    runtime = stub_runtime()
    assert runtime.detect("stub_det", [dotted, white], threshold=0.5) == [
        [Box(20, 10, 50, 30, 1.0)],
        [],
    ]
    vectors = runtime.embed("stub_rec", [dotted, white, dotted], batch_size=2)
    assert vectors.shape == (3, 64)
    assert vectors[0] @ vectors[2] == pytest.approx(1)
    assert vectors[0] @ vectors[1] < 0.9
    assert runtime.embed("stub_rec", []).shape == (0, 64)


def test_a_batch_is_never_larger_than_asked():
    sizes = []

    class Counting(StubEmbedder):
        def embed(self, pictures):
            sizes.append(len(pictures))
            return super().embed(pictures)

    runtime = Runtime(StubStore(), load_embedder=lambda *_, **__: Counting())
    runtime.embed("stub_rec", [white] * 7, batch_size=3)
    assert sizes == [3, 3, 1]
    with pytest.raises(BadInput):
        runtime.embed("stub_rec", [white], batch_size=0)


def test_nothing_is_loaded_before_it_is_asked_for_and_then_once():
    loads = []

    def load(installed, device, *, threads, engine, options):
        loads.append((installed.name, str(device), threads, engine))
        time.sleep(0.05)
        return StubDetector()

    runtime = Runtime(StubStore(), "npu:3", threads=2, engine="paddle", load_detector=load)
    runtime._probed = True
    assert loads == [] and runtime.describe() == []
    together = threading.Barrier(4)

    def ask(_):
        together.wait()
        return runtime.detect("stub_det", [dotted], threshold=0)

    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(ask, range(4)))) == 4
    assert loads == [("stub_det", "npu:3", 2, "paddle")]


def test_it_says_what_it_runs():
    runtime = stub_runtime()
    loaded = runtime.warm_up(["stub_det", "stub_rec"])
    assert [(one.name, one.role, one.dimension, one.engine) for one in loaded] == [
        ("stub_det", "detector", None, "stub"),
        ("stub_rec", "embedder", 64, "stub"),
    ]
    assert loaded[1].digest == StubStore().get("stub_rec").digest
    assert (loaded[0].device, loaded[0].threads) == ("cpu", 1)
    assert loaded[0].seconds >= 0


def test_other_weights_than_expected_are_refused_with_both_names():
    runtime = stub_runtime()
    digest = StubStore().get("stub_rec").digest
    runtime.embed("stub_rec", [white], expected_digest=digest)
    for one in (runtime, stub_runtime()):  # loaded already, and not yet
        with pytest.raises(ModelUnavailable, match=f"{digest[:12]}.*{'f' * 12}"):
            one.embed("stub_rec", [white], expected_digest="f" * 64)
        with pytest.raises(ModelUnavailable, match="other weights"):
            one.detect("stub_det", [white], threshold=0.5, expected_digest="f" * 64)


def test_a_model_has_one_role():
    with pytest.raises(BadInput, match="stub_rec is not a detector"):
        stub_runtime().detect("stub_rec", [white], threshold=0.5)
    with pytest.raises(ModelUnavailable):
        stub_runtime().embed("other", [white])


def test_a_process_works_on_one_device():
    with pytest.raises(BadInput, match="one worker for each of gpu:0, gpu:1"):
        Runtime(StubStore(), "gpu:0,1")


def test_an_absent_device_is_an_error_at_first_use(monkeypatch):
    monkeypatch.setattr(devices.child, "run", lambda *_: {"devices": ["cpu"]})
    runtime = Runtime(StubStore(), Device("gpu"), load_detector=lambda *_, **__: StubDetector())
    with pytest.raises(DeviceUnavailable, match="found: cpu"):
        runtime.detect("stub_det", [white], threshold=0.5)


def test_threads_default_to_the_cores_it_may_use():
    assert Runtime(StubStore()).threads == usable_cores() >= 1
    assert Runtime(StubStore(), threads=1).threads == 1


def test_damaged_weights_are_not_loaded(starter_store, tmp_path):
    shutil.copytree(starter_store.root / "starter_rec", tmp_path / "starter_rec")
    weights = tmp_path / "starter_rec" / "inference.pdiparams"
    content = bytearray(weights.read_bytes())
    content[5000] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ModelUnavailable, match="damaged: inference.pdiparams"):
        Runtime(ModelStore(tmp_path)).embed("starter_rec", [white])


def test_the_starter_models_run(runtime, starter_store):
    vectors = runtime.embed(
        "starter_rec", [dotted], expected_digest=starter_store.get("starter_rec").digest
    )
    assert vectors.shape == (1, 512)
    [loaded] = [one for one in runtime.describe() if one.name == "starter_rec"]
    assert (loaded.engine, loaded.dimension, loaded.device) == ("openvino", 512, "cpu")
