"""PaddleX's pipeline configuration: what is read, what is refused, what is reported."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from recognition import pipeline_file
from recognition.errors import BadInput
from recognition.pipeline_file import ModelConfig, PipelineConfig

THEIRS = (
    Path(importlib.util.find_spec("paddlex").origin).parent / "configs/pipelines/PP-ShiTuV2.yaml"
)


def parse(text: str, folder: Path = Path("/site")) -> PipelineConfig:
    return pipeline_file.parse(yaml.safe_load(text), folder=folder)


def test_paddlex_s_own_file():
    config = pipeline_file.read(THEIRS)
    assert config == PipelineConfig(ModelConfig("PP-ShiTuV2_det"), ModelConfig("PP-ShiTuV2_rec"))
    assert (config.remarks, config.settings()) == ((), {})


def test_everything_that_can_be_said():
    config = parse(
        """
        pipeline_name: PP-ShiTuV2
        index: drink_index
        det_threshold: 1            # an int is a threshold too
        rec_threshold: "0.25"
        rec_topk: '7'
        device: GPU:0,1
        use_hpip: True
        hpi_config: {backend: onnxruntime, backend_config: {cpu_num_threads: 3}}
        SubModules:
          Detection: {module_name: x, model_name: PP-ShiTuV2_det, model_dir: None, batch_size: 2}
          Recognition: {model_name: PP-ShiTuV2_rec, model_dir: tuned/best, batch_size: 8}
        Serving: {visualize: False}
        """
    )
    assert config == PipelineConfig(
        detection=ModelConfig("PP-ShiTuV2_det", None, 2),
        recognition=ModelConfig("PP-ShiTuV2_rec", Path("/site/tuned/best"), 8),
        index=Path("/site/drink_index"),
        det_threshold=1.0,
        rec_threshold=0.25,
        rec_topk=7,
        device="gpu:0,1",
        engine="onnxruntime",
        threads=3,
        use_hpip=True,
        visualize=False,
    )
    assert isinstance(config.det_threshold, float)
    assert config.settings() == {
        "SHITU_DEVICE": "gpu:0,1",
        "SHITU_ENGINE": "onnxruntime",
        "SHITU_THREADS": 3,
        "SHITU_BATCH_SIZE": 8,
    }


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("pipeline_name: OCR", "pipeline_name"),
        ("det_threshold: high", "det_threshold"),
        ("det_threshold: 1.5", "det_threshold"),
        ("det_threshold: null", "det_threshold"),
        ("det_threshold: true", "det_threshold"),
        ("rec_threshold: .nan", "rec_threshold"),
        ("rec_topk: 2.5", "rec_topk"),
        ("rec_topk: 0", "rec_topk"),
        ("index: 5", "index"),
        ("device: cuda:0", "device"),
        ("engine: tensorrt", "engine"),
        ("use_hpip: 3", "use_hpip"),
        ("SubModules: [1]", "SubModules"),
        ("SubModules: {Detection: {batch_size: many}}", "SubModules.Detection.batch_size"),
        ("SubModules: {Recognition: {model_name: 7}}", "SubModules.Recognition.model_name"),
        ("Serving: {visualize: perhaps}", "Serving.visualize"),
        # Contradictions.
        ("use_hpip: true\nengine: onnxruntime", "use_hpip and engine"),
        ("hpi_config: {backend: paddle}", "hpi_config without use_hpip"),
        ("engine_config: {cpu_threads: 2}", "engine_config without engine"),
    ],
)
def test_what_cannot_be_meant_is_named(text, name):
    with pytest.raises(BadInput, match=name):
        parse(text)


def test_all_problems_are_named_at_once():
    with pytest.raises(BadInput, match=r"SubModules\.Detection\.batch_size.*rec_topk"):
        parse("rec_topk: x\nSubModules: {Detection: {batch_size: x}}")


def test_unknown_keys_are_named_and_change_nothing():
    config = parse(
        "rec_treshold: 0.9\nhamming_radius: 4\nSubModules: {Detection: {thresh: 1}, Extra: {}}\n"
        "Serving: {extra: {index_storage: {type: memory}}, port: 1}"
    )
    assert config.rec_threshold == 0.5
    text = "\n".join(config.remarks)
    for name in (
        "rec_treshold: unknown, changes nothing; is rec_threshold meant?",
        "hamming_radius:",
        "SubModules.Detection.thresh: unknown",
        "SubModules.Extra: unknown",
        "Serving.extra:",
        "Serving.port: unknown",
    ):
        assert name in text


@pytest.mark.parametrize("text", ["", "- 1", "a: [", "a: !!python/object:os.system {}"])
def test_what_is_no_configuration(tmp_path, text):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(BadInput, match="x.yaml"):
        pipeline_file.read(path)
    with pytest.raises(BadInput, match="cannot be read"):
        pipeline_file.read(tmp_path / "missing.yaml")


texts = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")),
    min_size=1,
    max_size=20,
).filter(
    lambda text: not text.startswith("~") and pipeline_file._evaluated({"x": text})["x"] == text
)
models = st.builds(
    ModelConfig,
    texts,
    st.none() | st.sampled_from([Path("/models/a"), Path("/样本/b c")]),
    st.integers(1, 1024),
)


@given(
    st.builds(
        PipelineConfig,
        models,
        models,
        index=st.none() | st.just(Path("/drink index")),
        det_threshold=st.floats(0, 1),
        rec_threshold=st.floats(-1, 4),
        rec_topk=st.integers(1, 100),
        device=st.sampled_from([None, "cpu", "gpu:0,1"]),
        engine=st.sampled_from([None, "paddle", "paddle_mkldnn", "onnxruntime"]),
        visualize=st.booleans(),
    )
)
def test_what_is_written_is_read_again(config):
    content = yaml.safe_load(pipeline_file.write(config))
    assert pipeline_file.parse(content, folder=Path("/")) == config
