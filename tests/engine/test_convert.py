"""Models as they come from Paddle get an ONNX file for the faster engines, and OpenVINO's own."""

from __future__ import annotations

import logging
import shutil

import numpy as np
import pytest
import yaml

from recognition.engine import child, loading
from recognition.engine.installed import FLOAT32, ONNX, OPENVINO_IR
from recognition.engine.store import ModelStore
from recognition.engine.trial import disagreement
from recognition.errors import BadInput
from tests.engine.conftest import CPU, EMBEDDER_SETTINGS


@pytest.fixture(scope="module")
def paddle_only(tmp_path_factory):
    """A small embedder as Paddle exports it."""
    import paddle

    class Network(paddle.nn.Layer):
        def __init__(self):
            super().__init__()
            paddle.seed(3)
            self.conv = paddle.nn.Conv2D(3, 8, 7, stride=8)
            self.project = paddle.nn.Linear(8 * 16, 16)

        def forward(self, x):
            seen = paddle.nn.functional.adaptive_avg_pool2d(self.conv(x), 4)
            return self.project(seen.flatten(1))

    directory = tmp_path_factory.mktemp("paddle")
    spec = paddle.static.InputSpec([None, 3, 224, 224], "float32", name="x")
    paddle.jit.save(Network(), str(directory / "inference"), input_spec=[spec])
    (directory / "inference.yml").write_text(yaml.safe_dump(EMBEDDER_SETTINGS))
    return directory


def test_a_paddle_model_is_converted_and_runs_on_openvino(paddle_only, tmp_path):
    model = ModelStore(tmp_path / "models").add_directory("own", "embedder", paddle_only)
    assert model.has(ONNX)
    model.verify()
    fast, plain = (
        loading.load_embedder(model, CPU, engine=engine) for engine in ("auto", "paddle")
    )
    assert fast.engine == "openvino"
    assert disagreement(plain, fast) == ""


def test_the_conversion_is_no_part_of_its_identity(paddle_only, tmp_path, monkeypatch):
    converted = ModelStore(tmp_path / "a").add_directory("own", "embedder", paddle_only)
    run = child.run

    def fails(name, arguments, **options):
        if name == "convert_to_onnx":
            raise child.ChildFailed("an operation that ONNX lacks")
        return run(name, arguments, **options)

    monkeypatch.setattr(child, "run", fails)
    without = ModelStore(tmp_path / "b").add_directory("own", "embedder", paddle_only)
    assert not without.has(ONNX)
    assert without.digest == converted.digest


def test_where_it_cannot_be_converted_the_log_says_so(paddle_only, tmp_path, caplog):
    directory = tmp_path / "broken"
    shutil.copytree(paddle_only, directory)
    (directory / "inference.json").rename(directory / "inference.pdmodel")  # neither, really
    with caplog.at_level(logging.WARNING), pytest.raises(BadInput, match="cannot be used"):
        ModelStore(tmp_path / "models").add_directory("broken", "embedder", directory)
    assert any("is not converted to ONNX" in record.getMessage() for record in caplog.records)


@pytest.fixture(scope="module")
def openvino_files(starter_store, tmp_path_factory):
    """The starter embedder in OpenVINO's own files."""
    import openvino

    directory = tmp_path_factory.mktemp("openvino")
    starter = starter_store.get("starter_rec")
    network = openvino.Core().read_model(str(starter.directory / ONNX))
    openvino.save_model(network, str(directory / OPENVINO_IR[0]), compress_to_fp16=False)
    shutil.copyfile(starter.directory / "inference.yml", directory / "inference.yml")
    return directory


def test_openvino_s_own_files_are_a_model_too(openvino_files, starter_store, tmp_path):
    model = ModelStore(tmp_path / "models").add_directory("ir", "embedder", openvino_files)
    starter = starter_store.get("starter_rec")
    assert (model.precision, model.dimension) == (FLOAT32, 512)
    assert model.digest != starter.digest, "other files, another identity"
    ours, theirs = (loading.load_embedder(one, CPU) for one in (model, starter))
    assert ours.engine == theirs.engine == "openvino"
    assert disagreement(theirs, ours) == ""
    with pytest.raises(BadInput, match="onnxruntime cannot run ir"):
        loading.load_embedder(model, CPU, engine="onnxruntime")


def test_half_of_them_is_no_model(openvino_files, tmp_path):
    directory = tmp_path / "half"
    shutil.copytree(openvino_files, directory)
    (directory / OPENVINO_IR[1]).unlink()
    with pytest.raises(BadInput, match="no model as PaddleX exports it"):
        ModelStore(tmp_path / "models").add_directory("ir", "embedder", directory)


def test_networks_that_answer_otherwise_are_told_apart(starter_store):
    class Turned:
        dimension = 512

        def __init__(self, network):
            self.network = network

        def embed(self, pictures):
            return np.roll(self.network.embed(pictures), 1, axis=1)

    network = loading.load_embedder(starter_store.get("starter_rec"), CPU)
    assert "like the one expected" in disagreement(network, Turned(network))
    detector = loading.load_detector(starter_store.get("starter_det"), CPU)
    assert disagreement(detector, detector) == ""
