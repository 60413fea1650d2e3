from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from recognition.engine import loading, ppshitu
from recognition.engine.devices import Device
from recognition.engine.installed import InstalledModel
from recognition.engine.store import ModelStore
from recognition.engine.trial import trial_pictures
from recognition.errors import BadInput, DeviceUnavailable, EngineFailed
from tests.engine.conftest import CPU


@pytest.fixture
def rec(starter_store: ModelStore) -> InstalledModel:
    return starter_store.get("starter_rec")


@pytest.fixture
def broken(monkeypatch):
    """`broken("paddle")`: these engines cannot load anything."""
    real = ppshitu.predictor

    def breaks(*names):
        def predictor(installed, role, engine, device, threads, options):
            if engine.name in names:
                raise RuntimeError(f"no kernel in {installed.directory}\nand more")
            return real(installed, role, engine, device, threads, options)

        monkeypatch.setattr(ppshitu, "predictor", predictor)

    return breaks


def test_the_fastest_comes_first(rec):
    assert loading.load_embedder(rec, CPU).engine == "openvino"


def test_the_next_one_is_taken_and_the_reason_is_logged(rec, broken, caplog):
    broken("openvino", "onnxruntime", "paddle_mkldnn")
    with caplog.at_level(logging.WARNING):
        assert loading.load_embedder(rec, CPU).engine == "paddle"
    first, second, third = (record.getMessage() for record in caplog.records[:3])
    assert "starter_rec does not run on openvino" in first and "no kernel" in first
    assert "onnxruntime" in second and "paddle_mkldnn" in third


def test_an_engine_that_was_asked_for_is_never_replaced(rec, broken):
    broken("onnxruntime")
    with pytest.raises(
        EngineFailed, match="onnxruntime: RuntimeError: no kernel in starter_rec."
    ) as error:
        loading.load_embedder(rec, CPU, engine="onnxruntime")
    assert str(rec.directory) not in error.value.message


def test_when_none_works_all_reasons_are_told(rec, broken):
    broken("openvino", "onnxruntime", "paddle_mkldnn", "paddle")
    with pytest.raises(EngineFailed) as error:
        loading.load_embedder(rec, CPU)
    for name in ("openvino", "onnxruntime", "paddle_mkldnn", "paddle"):
        assert f"{name}: RuntimeError" in error.value.message


def test_an_unknown_engine_is_refused(rec):
    with pytest.raises(
        BadInput, match="use one of auto, openvino, onnxruntime, paddle_mkldnn, paddle, "
    ):
        loading.load_embedder(rec, CPU, engine="tensorrt")


def test_an_engine_without_its_files_is_refused(starter_store, rec):
    files = {name: stored for name, stored in rec.files.items() if name != "inference.onnx"}
    with pytest.raises(BadInput, match="lacks the files"):
        loading.load_embedder(replace(rec, files=files), CPU, engine="onnxruntime")


def test_a_model_has_one_role(starter_store, rec):
    with pytest.raises(BadInput, match="starter_rec is not a detector but an embedder"):
        loading.load_detector(rec, CPU)


def test_an_absent_gpu_is_never_the_cpu(rec):
    gpu = Device("gpu", (0,))
    for engine in ("auto", "onnxruntime", "paddle"):
        with pytest.raises((EngineFailed, DeviceUnavailable), match="gpu|CUDA|GPU"):
            loading.load_embedder(rec, gpu, engine=engine)


def test_threads_are_the_ones_asked_for(rec):
    loaded = loading.load_embedder(rec, CPU, threads=2, engine="onnxruntime")
    session = loaded._predictor.runner.session
    assert session.get_session_options().intra_op_num_threads == 2
    loaded = loading.load_embedder(rec, CPU, threads=1, engine="openvino")
    assert loaded._predictor.runner.threads == 1
    loaded = loading.load_embedder(rec, CPU, threads=1, engine="paddle_mkldnn")
    assert loaded._predictor.runner._config["cpu_threads"] == 1
    with pytest.raises(BadInput, match="at least 1"):
        loading.load_embedder(rec, CPU, threads=0)


@pytest.fixture(scope="module")
def upsampling(tmp_path_factory):
    """A directory as Paddle 3.3 exports it, with an up-sampling inside."""
    import paddle
    import yaml

    from tests.engine.conftest import EMBEDDER_SETTINGS

    class Network(paddle.nn.Layer):
        def __init__(self):
            super().__init__()
            paddle.seed(1)
            self.conv = paddle.nn.Conv2D(3, 8, 7, stride=8)
            self.up = paddle.nn.Upsample(scale_factor=2.0)
            self.project = paddle.nn.Linear(8 * 16, 16)

        def forward(self, x):
            seen = paddle.nn.functional.adaptive_avg_pool2d(self.up(self.conv(x)), 4)
            return self.project(seen.flatten(1))

    directory = tmp_path_factory.mktemp("upsampling")
    spec = paddle.static.InputSpec([None, 3, 224, 224], "float32", name="x")
    paddle.jit.save(Network(), str(directory / "inference"), input_spec=[spec])
    (directory / "inference.yml").write_text(yaml.safe_dump(EMBEDDER_SETTINGS))
    return directory


def test_an_export_that_onednn_cannot_run_falls_to_plain_paddle(upsampling, tmp_path, caplog):
    """Really: the whole way from `models add` with its trial in a child process to a vector."""
    model = ModelStore(tmp_path / "models").add_directory("up", "embedder", upsampling)
    assert model.dimension == 16
    with caplog.at_level(logging.WARNING):
        loaded = loading.load_embedder(model, CPU)
    assert loaded.engine == "paddle"
    assert any("paddle_mkldnn" in record.getMessage() for record in caplog.records)
    assert loaded.embed(trial_pictures()).shape == (2, 16)
