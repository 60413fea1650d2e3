"""High-performance inference, TensorRT and the options of an engine: what reaches PaddleX.

No such device and no plug-in is here, so PaddleX's `create_model` is a stub that remembers.
"""

from __future__ import annotations

import os
from types import SimpleNamespace

import numpy as np
import pytest

from recognition.engine import loading, ppshitu
from recognition.engine.devices import Device, parse_device
from recognition.engine.engines import candidates
from recognition.engine.installed import InstalledModel
from recognition.engine.networks import PaddleXEmbedder
from recognition.engine.runtime import Runtime
from recognition.engine.store import ModelStore
from recognition.errors import BadInput, DeviceUnavailable, EngineFailed
from tests.engine.conftest import CPU

GPU = Device("gpu", (0,))


@pytest.fixture
def rec(starter_store: ModelStore) -> InstalledModel:
    return starter_store.get("starter_rec")


class Predictor:
    """What PaddleX would return for an embedder, on the device and in the mode it was asked for."""

    def __init__(self, how: dict, runs_on: str | None) -> None:
        kind = runs_on or how["device"].partition(":")[0]
        config = {"device_type": kind, **how.get("engine_config", {})}
        self.runner = SimpleNamespace(
            config=SimpleNamespace(device_type=kind),
            _config=config,
            session=SimpleNamespace(get_providers=lambda: ["CUDAExecutionProvider"]),
        )
        self.batch_sampler = lambda pictures: [pictures]

    def process(self, pictures) -> dict:
        features = np.stack([np.resize(picture.mean(axis=0), 512) for picture in pictures])
        return {"feature": features / np.linalg.norm(features, axis=1, keepdims=True)}


@pytest.fixture
def paddlex(monkeypatch):
    """`paddlex.asked` is what `create_model` got; `paddlex.runs_on` and `.plugin` can be set."""
    state = SimpleNamespace(asked=None, runs_on=None, plugin=True)

    def create_model(name, **how):
        state.asked = {"name": name, **how}
        return SimpleNamespace(_predictor=Predictor(how, state.runs_on))

    monkeypatch.setattr(ppshitu, "_paddlex", lambda *_: create_model)
    monkeypatch.setattr(ppshitu, "has_plugin", lambda: state.plugin)
    monkeypatch.setattr(PaddleXEmbedder, "self_test", lambda self: None)
    return state


def test_hpi_gets_the_documented_arguments(paddlex, rec):
    options = {"backend": "tensorrt", "backend_config": {"precision": "fp16"}}
    loaded = loading.load_embedder(rec, GPU, threads=3, engine="hpi", options=options)
    assert loaded.engine == "hpi"
    assert paddlex.asked == {
        "name": "PP-ShiTuV2_rec",
        "model_dir": str(rec.directory),
        "device": "gpu:0",
        "use_hpip": True,
        "hpi_config": options,
    }
    assert os.environ["PADDLE_PDX_CPU_NUM_THREADS"] == "3"


def test_hpi_without_a_configuration_leaves_the_choice_to_paddlex(paddlex, rec):
    loading.load_embedder(rec, CPU, engine="hpi")
    assert (paddlex.asked["use_hpip"], paddlex.asked["hpi_config"]) == (True, None)


@pytest.mark.parametrize("device", ["cpu", "gpu:0", "npu:0"])
def test_without_the_plug_in_it_says_what_to_install(paddlex, rec, device):
    paddlex.plugin = False
    with pytest.raises(EngineFailed, match="ultra-infer is not installed") as error:
        loading.load_embedder(rec, parse_device(device), engine="hpi")
    assert f"`paddlex --install hpi-{device.partition(':')[0]}`" in error.value.message
    assert paddlex.asked is None


def test_it_really_is_not_installed_here_and_paddlex_says_so_too(rec):
    """No stub: what a site without the plug-in sees at start."""
    with pytest.raises(EngineFailed, match="ultra-infer is not installed"):
        loading.load_embedder(rec, CPU, engine="hpi")


def test_auto_never_takes_it(paddlex, rec):
    assert {engine.name for engine in candidates(rec, CPU, "auto")} == {
        "openvino", "onnxruntime", "paddle_mkldnn", "paddle",
    }  # fmt: skip
    assert [engine.name for engine in candidates(rec, GPU, "auto")] == ["paddle"]


@pytest.mark.parametrize(
    ("engine", "mode"),
    [
        ("paddle_fp16", "paddle_fp16"),
        ("paddle_trt_fp32", "trt_fp32"),
        ("paddle_trt_fp16", "trt_fp16"),
    ],
)
def test_the_run_modes_of_a_gpu(paddlex, rec, engine, mode):
    options = {
        "trt_dynamic_shapes": {"x": [[1, 3, 224, 224], [8, 3, 224, 224], [16, 3, 224, 224]]},
        "trt_use_dynamic_shapes": True,
    }
    loaded = loading.load_embedder(rec, GPU, threads=2, engine=engine, options=options)
    assert loaded.engine == engine
    assert (paddlex.asked["engine"], paddlex.asked["device"]) == ("paddle_static", "gpu:0")
    assert paddlex.asked["engine_config"] == {"run_mode": mode, "cpu_threads": 2, **options}


def test_they_are_refused_on_a_cpu(rec):
    with pytest.raises(BadInput, match="paddle_trt_fp16 cannot run starter_rec on cpu"):
        loading.load_embedder(rec, CPU, engine="paddle_trt_fp16")


def test_where_paddlex_takes_another_device_it_is_an_error(paddlex, rec):
    paddlex.runs_on = "cpu"
    for engine in ("hpi", "paddle_trt_fp16"):
        with pytest.raises(DeviceUnavailable, match="runs on cpu although gpu:0"):
            loading.load_embedder(rec, GPU, engine=engine)


def test_onnxruntime_gets_its_options(paddlex, rec):
    loading.load_embedder(
        rec, GPU, threads=1, engine="onnxruntime",
        options={"providers": ["CUDAExecutionProvider"], "provider_options": [{"device_id": 0}]},
    )  # fmt: skip
    assert paddlex.asked["engine"] == "onnxruntime"
    assert paddlex.asked["engine_config"]["providers"] == ["CUDAExecutionProvider"]
    assert paddlex.asked["engine_config"]["intra_op_num_threads"] == 1


@pytest.mark.parametrize(
    ("engine", "options", "says"),
    [
        ("auto", {"enable_cinn": True}, "name it with SHITU_ENGINE"),
        ("paddle", {"enable_cin": True}, "'enable_cin' is no option .* Is enable_cinn meant"),
        ("paddle", {"backend": "openvino"}, "'backend' is no option of the engine paddle"),
        ("paddle", {"cpu_threads": 4}, "SHITU_THREADS say that"),
        ("hpi", {"backnd": "openvino"}, "Is backend meant"),
        ("hpi", {"device_id": 1}, "SHITU_DEVICE"),
        ("openvino", {"NUM_STREAMS": 2}, "it has none"),
    ],
)
def test_what_paddlex_would_drop_is_named(paddlex, rec, engine, options, says):
    with pytest.raises(BadInput, match=says):
        loading.load_embedder(rec, CPU, engine=engine, options=options)
    assert paddlex.asked is None


def test_a_value_that_paddlex_refuses_is_an_error(rec):
    with pytest.raises(EngineFailed, match="delete_pass"):
        loading.load_embedder(rec, CPU, engine="paddle", options={"delete_pass": 7})


def test_the_runtime_hands_them_on(starter_store):
    got = {}

    def load(installed, device, **how):
        got.update(how)
        return SimpleNamespace(engine="hpi", dimension=512)

    runtime = Runtime(
        starter_store, threads=1, engine="hpi", options={"auto_config": True}, load_embedder=load
    )
    runtime.warm_up(["starter_rec"])
    assert got == {"threads": 1, "engine": "hpi", "options": {"auto_config": True}}


def test_a_real_option_reaches_a_real_engine(rec):
    loaded = loading.load_embedder(rec, CPU, engine="paddle", options={"delete_pass": []})
    assert loaded._predictor.runner._config["delete_pass"] == []
