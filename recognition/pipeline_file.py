"""A pipeline file of PaddleX (`paddlex --get_pipeline_config PP-ShiTuV2`), read and written.

PaddleX evaluates texts as Python literals ("0.5" is a number, "None" is null) and ignores what it
does not know, so that `rec_treshold: 0.9` changes nothing and nobody is told. Here every unknown
key is named in `remarks`, and values that cannot be meant are errors.
"""

from __future__ import annotations

import ast
import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from recognition.engine.devices import parse_device
from recognition.errors import BadInput

PIPELINE: Final = "PP-ShiTuV2"
_MOST_BYTES: Final = 2**20
_ENGINE_KEYS: Final = ("engine", "engine_config", "use_hpip", "hpi_config")
_TOP: Final = (
    "pipeline_name", "index", "det_threshold", "rec_threshold", "rec_topk", "hamming_radius",
    "device", *_ENGINE_KEYS, "SubModules", "Serving",
)  # fmt: skip
_PART: Final = ("module_name", "model_name", "model_dir", "batch_size", *_ENGINE_KEYS)
_SERVING: Final = ("visualize", "return_urls", "extra")
_NO_VALUE: Final = object()

# PaddleX's engines, and the run modes of its engine paddle_static, as values of SHITU_ENGINE.
_ENGINES: Final = {
    "paddle": "auto", "paddle_static": "auto", "hpi": "hpi", "onnxruntime": "onnxruntime",
}  # fmt: skip
_RUN_MODES: Final = {
    "mkldnn": "paddle_mkldnn", "paddle": "paddle", "paddle_fp32": "paddle",
    "paddle_fp16": "paddle_fp16", "trt_fp32": "paddle_trt_fp32", "trt_fp16": "paddle_trt_fp16",
}  # fmt: skip
_WRITTEN_RUN_MODES: Final = {
    ours: mode for mode, ours in _RUN_MODES.items() if mode != "paddle_fp32"
}
_THREADS: Final = ("cpu_threads", "intra_op_num_threads")
_DEVICE_KEYS: Final = ("device_type", "device_id")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One network: PaddleX's name for it, where its files are (None: an installed model)."""

    model_name: str
    model_dir: Path | None = None
    batch_size: int = 1


@dataclass(frozen=True, slots=True)
class PipelineConfig:
    """What a pipeline file says, with PaddleX's defaults for what it does not say.

    `engine` is a value of SHITU_ENGINE, `device` one of SHITU_DEVICE, `threads` CPU threads; None
    where the file leaves it open. `engine_options` are PaddleX's `hpi_config` for the engine hpi,
    else the rest of its `engine_config`; PaddleX gets them as they are. `remarks` are keys that
    change nothing, each with the reason.
    """

    detection: ModelConfig
    recognition: ModelConfig
    index: Path | None = None
    det_threshold: float = 0.5
    rec_threshold: float = 0.5
    rec_topk: int = 5
    device: str | None = None
    engine: str | None = None
    threads: int | None = None
    engine_options: Mapping[str, Any] = field(default_factory=dict)
    visualize: bool = True
    remarks: tuple[str, ...] = field(default=(), compare=False)

    def settings(self) -> dict[str, Any]:
        """The settings of the site that the file decides.

        PaddleX's batch size of 1 is its default and no wish, so only a larger one counts.
        """
        found: dict[str, Any] = {
            "SHITU_DEVICE": self.device,
            "SHITU_ENGINE": self.engine,
            "SHITU_ENGINE_OPTIONS": dict(self.engine_options) or None,
            "SHITU_THREADS": self.threads,
            "SHITU_BATCH_SIZE": self.recognition.batch_size
            if self.recognition.batch_size > 1
            else None,
        }
        return {name: value for name, value in found.items() if value is not None}


def read(path: Path) -> PipelineConfig:
    """The configuration in a YAML file. Relative paths in it start at its own folder.

    Raises BadInput that names every key whose value cannot be used.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise BadInput(f"{path.name} is larger than a pipeline configuration can be")
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise BadInput(
            f"the pipeline configuration {path.name} cannot be read: {reason}"
        ) from error
    return parse(content, folder=path.parent, name=path.name)


def parse(
    content: Any, *, folder: Path, name: str = "the pipeline configuration"
) -> PipelineConfig:
    """The configuration in what YAML made of a file; see `read`."""
    if not isinstance(content, dict):
        raise BadInput(f"{name} holds no keys; it must be a YAML mapping as PaddleX writes it")
    reader = _Reader(_evaluated(content), folder)
    config = reader.config()
    if reader.problems:
        raise BadInput(f"{name} cannot be used: {'; '.join(reader.problems)}")
    return config


def write(config: PipelineConfig) -> str:
    """The configuration as YAML that PaddleX reads; reading it gives the same one again."""
    content: dict[str, Any] = {
        "pipeline_name": PIPELINE,
        "index": str(config.index) if config.index else None,
        "det_threshold": config.det_threshold,
        "rec_threshold": config.rec_threshold,
        "rec_topk": config.rec_topk,
    }
    if config.device:
        content["device"] = config.device
    if config.engine == "hpi":
        content["use_hpip"] = True
        if config.engine_options:
            content["hpi_config"] = dict(config.engine_options)
    elif config.engine == "onnxruntime" or config.engine in _WRITTEN_RUN_MODES:
        options = dict(config.engine_options)
        if config.engine == "onnxruntime":
            content["engine"], threads = "onnxruntime", "intra_op_num_threads"
        else:
            content["engine"], threads = "paddle_static", "cpu_threads"
            options["run_mode"] = _WRITTEN_RUN_MODES[config.engine]
        if config.threads:
            options[threads] = config.threads
        if options:
            content["engine_config"] = options
    content["SubModules"] = {
        "Detection": _written(config.detection, "object_detection"),
        "Recognition": _written(config.recognition, "image_feature"),
    }
    content["Serving"] = {"visualize": config.visualize}
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _written(part: ModelConfig, module: str) -> dict[str, Any]:
    return {
        "module_name": module,
        "model_name": part.model_name,
        "model_dir": str(part.model_dir) if part.model_dir else None,
        "batch_size": part.batch_size,
    }


def _evaluated(content: dict[Any, Any]) -> dict[str, Any]:
    """Texts as Python literals where they are one, at every depth of mappings, as PaddleX does."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            value = _evaluated(value)
        elif isinstance(value, str):
            with suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
                value = ast.literal_eval(value)  # otherwise it is a text
        found[str(key)] = value
    return found


class _Reader:
    """Takes the keys out one by one and collects what is wrong with them."""

    def __init__(self, content: dict[str, Any], folder: Path) -> None:
        self._content, self._folder = content, folder
        self.problems: list[str] = []
        self.remarks: list[str] = []

    def config(self) -> PipelineConfig:
        content = self._content
        self._unknown(content, _TOP)
        if (name := content.get("pipeline_name", PIPELINE)) != PIPELINE:
            self.problems.append(
                f"pipeline_name is {name!r}, and this is a platform for {PIPELINE}"
            )
        parts = self._mapping(content, "SubModules")
        self._unknown(parts, ("Detection", "Recognition"), "SubModules.")
        serving = self._mapping(content, "Serving")
        self._unknown(serving, _SERVING, "Serving.")
        if serving.get("extra"):
            self.remarks.append("Serving.extra: indexes are kept in PostgreSQL")
        if serving.get("return_urls"):
            self.remarks.append("Serving.return_urls: the picture of an answer comes in base64")
        if content.get("hamming_radius") is not None:
            self.remarks.append("hamming_radius: no index here has the metric hamming")
        device = self._device(content)
        engine, threads, options = self._engine(content, device)
        for part in ("Detection", "Recognition"):
            if any(parts.get(part, {}).get(key) for key in _ENGINE_KEYS):
                self.remarks.append(
                    f"SubModules.{part}: engine keys of one network; all networks of a worker run "
                    "on the engine named above"
                )
        detection = self._part(parts, "Detection", "PP-ShiTuV2_det")
        recognition = self._part(parts, "Recognition", "PP-ShiTuV2_rec")
        if detection.batch_size not in (1, recognition.batch_size):
            self.remarks.append("SubModules.Detection.batch_size: that of Recognition is for both")
        return PipelineConfig(
            detection=detection,
            recognition=recognition,
            index=self._path(content, "index"),
            det_threshold=self._number(content, "det_threshold", 0.5, 0, 1),
            rec_threshold=self._number(content, "rec_threshold", 0.5, -1, 4),
            rec_topk=self._whole(content, "rec_topk", 5, 100),
            device=device,
            engine=engine,
            threads=threads,
            engine_options=options,
            visualize=self._switch(serving, "visualize", True, "Serving."),
            remarks=tuple(self.remarks),
        )

    def _unknown(self, content: Mapping[str, Any], known: Iterable[str], where: str = "") -> None:
        for key in content:
            if key not in known:
                close = difflib.get_close_matches(key, list(known), n=1)
                hint = f"; is {where}{close[0]} meant?" if close else ""
                self.remarks.append(f"{where}{key}: unknown, changes nothing{hint}")

    def _mapping(self, content: Mapping[str, Any], key: str, where: str = "") -> dict[str, Any]:
        value = content.get(key)
        if value is not None and not isinstance(value, dict):
            self.problems.append(f"{where}{key} must hold keys of its own")
        return value if isinstance(value, dict) else {}

    def _value(
        self,
        content: Mapping[str, Any],
        key: str,
        default: Any,
        fits: Callable[[Any], bool],
        must: str,
        where: str = "",
    ) -> Any:
        value = content.get(key, _NO_VALUE)
        if value is _NO_VALUE or (value is None and default is None):
            return default
        if fits(value):
            return value
        self.problems.append(f"{where}{key} is {value!r} and must be {must}")
        return default

    def _number(
        self, content: Mapping[str, Any], key: str, default: float, low: float, high: float
    ) -> float:
        # An int is a number too: PaddleX takes `det_threshold: 1` for no threshold at all.
        return float(
            self._value(
                content,
                key,
                default,
                lambda value: (
                    isinstance(value, (int, float))
                    and not isinstance(value, bool)
                    and math.isfinite(value)
                    and low <= value <= high
                ),
                f"a number from {low:g} to {high:g}",
            )
        )

    def _whole(
        self, content: Mapping[str, Any], key: str, default: int, most: int, where: str = ""
    ) -> int:
        return int(
            self._value(
                content,
                key,
                default,
                lambda value: type(value) is int and 1 <= value <= most,
                f"a whole number from 1 to {most}",
                where,
            )
        )

    def _switch(self, content: Mapping[str, Any], key: str, default: bool, where: str = "") -> bool:
        return bool(
            self._value(
                content, key, default, lambda value: isinstance(value, bool), "yes or no", where
            )
        )

    def _path(self, content: Mapping[str, Any], key: str, where: str = "") -> Path | None:
        text = self._value(
            content,
            key,
            None,
            lambda value: isinstance(value, str) and bool(value),
            "a path",
            where,
        )
        return None if text is None else self._folder / Path(text).expanduser()

    def _part(self, parts: Mapping[str, Any], name: str, default: str) -> ModelConfig:
        where = f"SubModules.{name}."
        part = self._mapping(parts, name, "SubModules.")
        self._unknown(part, _PART, where)
        model = self._value(
            part,
            "model_name",
            default,
            lambda value: isinstance(value, str) and bool(value),
            "the name of a model",
            where,
        )
        return ModelConfig(
            model,
            self._path(part, "model_dir", where),
            self._whole(part, "batch_size", 1, 1024, where),
        )

    def _device(self, content: Mapping[str, Any]) -> str | None:
        text = self._value(
            content, "device", None, lambda value: isinstance(value, str), "a device"
        )
        if text is None:
            return None
        try:
            return str(parse_device(text))
        except BadInput as error:
            self.problems.append(f"device: {error.message}")
            return None

    def _engine(
        self, content: Mapping[str, Any], device: str | None
    ) -> tuple[str | None, int | None, dict[str, Any]]:
        """SHITU_ENGINE, threads and options, from the engine or the high-performance keys."""
        hpi = self._switch({"use_hpip": content.get("use_hpip") or False}, "use_hpip", False)
        engine = content.get("engine")
        config = self._mapping(content, "engine_config")
        hpi_config = self._mapping(content, "hpi_config")
        if hpi and engine not in (None, "hpi"):
            self.problems.append(
                f"use_hpip and engine: {engine!r} contradict each other; leave one of them out"
            )
            return None, None, {}
        if hpi_config and not hpi and engine != "hpi":
            self.problems.append("hpi_config without use_hpip: true; add it, or leave both out")
        if config and engine is None:
            self.problems.append("engine_config without engine; name the engine it is for")
        if engine is None and not hpi:
            return None, None, {}
        if not hpi and engine not in _ENGINES:
            self.problems.append(f"engine is {engine!r} and must be one of {', '.join(_ENGINES)}")
            return None, None, {}
        if config and set(config) <= set(_ENGINES):  # PaddleX also takes one config per engine
            config = self._mapping(config, str(engine), "engine_config.")
        if hpi or engine == "hpi":  # its engine_config goes before its hpi_config, as in PaddleX
            return "hpi", None, self._options(config or hpi_config, "hpi_config")
        options = self._options(config, "engine_config")
        counts = [options.pop(key) for key in _THREADS if key in options]
        threads = next((n for n in counts if type(n) is int and n > 0), None)
        return self._run_mode(str(engine), options, device), threads, options

    def _options(self, config: Mapping[str, Any], where: str) -> dict[str, Any]:
        for key in _DEVICE_KEYS:
            if key in config:
                self.remarks.append(f"{where}.{key}: the device of a worker decides")
        return {key: value for key, value in config.items() if key not in _DEVICE_KEYS}

    def _run_mode(self, engine: str, options: dict[str, Any], device: str | None) -> str:
        """The engine with its run mode, which is taken out of the options."""
        mode = options.pop("run_mode", None)
        if _ENGINES[engine] != "auto":
            return _ENGINES[engine]
        if mode in _RUN_MODES:
            return _RUN_MODES[mode]
        if mode is not None:
            self.remarks.append(
                f"engine_config.run_mode {mode!r}: not offered, as its vectors would differ too "
                "much from those of other workers"
            )
        if not options:
            return "auto"
        # They are Paddle's, in the run mode that PaddleX would take.
        return "paddle_mkldnn" if device in (None, "cpu") else "paddle"
