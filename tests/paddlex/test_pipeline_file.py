"""PaddleX's pipeline configuration: what is read, what is refused, what is reported."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
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
        engine="hpi",
        engine_options={"backend": "onnxruntime", "backend_config": {"cpu_num_threads": 3}},
        visualize=False,
    )
    assert isinstance(config.det_threshold, float)
    assert config.settings() == {
        "SHITU_DEVICE": "gpu:0,1",
        "SHITU_ENGINE": "hpi",
        "SHITU_ENGINE_OPTIONS": config.engine_options,
        "SHITU_BATCH_SIZE": 8,
    }


@pytest.mark.parametrize(
    ("text", "engine", "threads", "options"),
    [
        ("use_hpip: true", "hpi", None, {}),
        ("engine: hpi\nengine_config: {backend: openvino}", "hpi", None, {"backend": "openvino"}),
        ("engine: paddle", "auto", None, {}),
        ("engine: paddle\nengine_config: {cpu_threads: 4}", "auto", 4, {}),
        (
            "engine: paddle_static\n"
            "engine_config: {run_mode: trt_fp16, trt_use_dynamic_shapes: true}",
            "paddle_trt_fp16",
            None,
            {"trt_use_dynamic_shapes": True},
        ),
        ("engine: paddle\nengine_config: {enable_cinn: true}", "paddle_mkldnn", None,
         {"enable_cinn": True}),
        ("device: gpu:0\nengine: paddle\nengine_config: {enable_cinn: true}", "paddle", None,
         {"enable_cinn": True}),
        (
            "engine: onnxruntime\n"
            "engine_config: {intra_op_num_threads: 2, graph_optimization_level: 1}",
            "onnxruntime",
            2,
            {"graph_optimization_level": 1},
        ),
        (
            "engine: onnxruntime\nengine_config:\n  onnxruntime: {execution_mode: parallel}\n"
            "  paddle_static: {enable_cinn: true}",
            "onnxruntime",
            None,
            {"execution_mode": "parallel"},
        ),
    ],
)  # fmt: skip
def test_engines_and_their_options(text, engine, threads, options):
    config = parse(text)
    assert (config.engine, config.threads, config.engine_options) == (engine, threads, options)
    assert config.remarks == ()


def test_what_of_an_engine_changes_nothing_is_named():
    config = parse("engine: paddle\nengine_config: {run_mode: trt_int8, device_id: 1}")
    assert (config.engine, config.engine_options) == ("auto", {})
    assert "run_mode 'trt_int8': not offered" in "\n".join(config.remarks)
    assert "engine_config.device_id: the device of a worker" in "\n".join(config.remarks)


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
        "rec_treshold: 0.9\nhamming_radius: 4\nSubModules: {Extra: {}, "
        "Detection: {thresh: 1, batch_size: 4}}\n"
        "Serving: {extra: {index_storage: {type: memory}}, return_urls: true, port: 1}"
    )
    assert config.rec_threshold == 0.5
    text = "\n".join(config.remarks)
    for name in (
        "rec_treshold: unknown, changes nothing; is rec_threshold meant?",
        "hamming_radius:",
        "SubModules.Detection.thresh: unknown",
        "SubModules.Extra: unknown",
        "Serving.extra:",
        "Serving.return_urls:",
        "SubModules.Detection.batch_size:",
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
        visualize=st.booleans(),
    ),
    st.sampled_from(
        [
            {},
            {"engine": "paddle"},
            {"engine": "paddle_mkldnn", "threads": 3},
            {"engine": "paddle_trt_fp16", "engine_options": {"trt_use_dynamic_shapes": False}},
            {"engine": "onnxruntime", "engine_options": {"graph_optimization_level": 1}},
            {"engine": "hpi"},
            {"engine": "hpi", "engine_options": {"backend": "tensorrt", "auto_config": False}},
        ]
    ),
)
def test_what_is_written_is_read_again(config, engine):
    config = replace(config, **engine)
    content = yaml.safe_load(pipeline_file.write(config))
    assert pipeline_file.parse(content, folder=Path("/")) == config
