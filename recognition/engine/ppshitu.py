"""PaddleX itself, the only file that touches it: predictors made with the options and on the device
that were asked for, or not at all.

Nothing heavy is imported until a network is loaded.
"""

from __future__ import annotations

import difflib
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from recognition.engine.devices import Device
from recognition.engine.engines import HPI, ONNXRUNTIME, OPENVINO, PADDLE, Engine
from recognition.engine.installed import ONNX, OPENVINO_IR, InstalledModel
from recognition.engine.registry import Role
from recognition.errors import BadInput, DeviceUnavailable, EngineFailed


def predictor(
    installed: InstalledModel,
    role: Role,
    engine: Engine,
    device: Device,
    threads: int,
    options: Mapping[str, Any],
) -> Any:
    """PaddleX's predictor, on the device that was asked for.

    Raises DeviceUnavailable, EngineFailed for another run mode, and whatever PaddleX raises.
    """
    create_model = _paddlex(installed.directory.parent, installed.paddlex_name, role)
    if engine.paddlex == HPI:
        os.environ["PADDLE_PDX_CPU_NUM_THREADS"] = str(threads)  # all its backends on a CPU read it
        how: dict[str, Any] = {"use_hpip": True, "hpi_config": dict(options) or None}
    else:
        own: dict[str, dict[str, Any]] = {
            OPENVINO: {"threads": threads},
            ONNXRUNTIME: {
                "intra_op_num_threads": threads,
                "inter_op_num_threads": 1,
                "log_severity_level": 3,
            },
            PADDLE: {"run_mode": engine.run_mode, "cpu_threads": threads},
        }
        config = own[engine.paddlex] | dict(options)
        how = {"engine": engine.paddlex, "engine_config": config}
    model = create_model(
        installed.paddlex_name, model_dir=str(installed.directory), device=str(device), **how
    )
    made = model._predictor
    _check_where_it_runs(made.runner, engine, device)
    return made


def check(
    installed: InstalledModel,
    role: Role,
    engine: Engine,
    device: Device,
    options: Mapping[str, Any],
) -> None:
    """Raise BadInput for an option that the engine does not have, EngineFailed without its plug-in.

    Says in a moment what loading would say late, or never.
    """
    if options or engine.paddlex == HPI:
        _paddlex(installed.directory.parent, installed.paddlex_name, role)
        _check_options(engine, options)
        _check_plugin(engine, device)


# Set from SHITU_DEVICE, SHITU_ENGINE and SHITU_THREADS, or by PaddleX itself.
_NO_OPTIONS = {
    "device_type", "device_id", "run_mode", "cpu_threads", "intra_op_num_threads",
    "model_name", "pdx_model_name",
}  # fmt: skip


def _check_options(engine: Engine, options: Mapping[str, Any]) -> None:
    """Raise BadInput for an option that PaddleX does not have: it drops some without a word."""
    from paddlex.inference.models.runners.hpi import HPIConfig
    from paddlex.inference.models.runners.onnxruntime_runner import ONNXRuntimeRunnerConfig
    from paddlex.inference.models.runners.paddle_static import PaddleStaticRunnerConfig

    declared = {
        HPI: HPIConfig, ONNXRUNTIME: ONNXRuntimeRunnerConfig, PADDLE: PaddleStaticRunnerConfig,
    }.get(engine.paddlex)  # fmt: skip
    known = sorted(set(declared.model_fields) - _NO_OPTIONS if declared else ())
    for name in options:
        if name in _NO_OPTIONS:
            raise BadInput(
                f"{name!r} is no option of an engine here: SHITU_DEVICE, SHITU_ENGINE and "
                "SHITU_THREADS say that.",
                field="options",
            )
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Is {close[0]} meant?" if close else ""
            raise BadInput(
                f"{name!r} is no option of the engine {engine.name}; it has "
                f"{', '.join(known) or 'none'}.{hint}",
                field="options",
            )


def has_plugin() -> bool:
    """Whether PaddleX's high-performance inference plug-in is installed."""
    from paddlex.utils.deps import is_dep_available

    return bool(is_dep_available("ultra-infer"))


def _check_plugin(engine: Engine, device: Device) -> None:
    if engine.paddlex == HPI and not has_plugin():
        kind = device.kind if device.kind in ("cpu", "gpu", "npu") else "cpu"
        raise EngineFailed(
            "The engine hpi is PaddleX's high-performance inference, and its plug-in ultra-infer "
            f"is not installed. Install it with `paddlex --install hpi-{kind}`, which downloads it "
            "from PaddleX's own site as no package index has it, or choose another engine with "
            "SHITU_ENGINE; on a CPU openvino is the backend it would mostly take."
        )


@cache
def _register_openvino() -> None:
    """Make OpenVINO an engine of PaddleX, which knows it only through its plug-in."""
    from paddlex.inference.models.engines import RunnerEngine

    from recognition.engine.openvino_runner import OpenVinoRunner

    class OpenVinoEngine(RunnerEngine):
        entities = OPENVINO  # PaddleX registers classes by this attribute
        name = OPENVINO

        def get_default_runner_builder(self) -> Callable[..., OpenVinoRunner]:
            def build(
                *, model_dir: Path, engine_config: Mapping[str, Any], **_: Any
            ) -> OpenVinoRunner:
                network = model_dir / OPENVINO_IR[0]
                file = network if network.is_file() else model_dir / ONNX
                return OpenVinoRunner(file, threads=engine_config["threads"])

            return build

        def validate_runner(self, runner: Any) -> None:
            """Nobody else builds runners for this engine."""


def _check_where_it_runs(runner: Any, engine: Engine, device: Device) -> None:
    """Raise where PaddleX or onnxruntime quietly took another device or run mode."""
    if engine.paddlex == OPENVINO:
        return
    if engine.paddlex == ONNXRUNTIME:
        provider = runner.session.get_providers()[0]
        expected = {"cpu": "CPUExecutionProvider", "gpu": "CUDAExecutionProvider"}[device.kind]
        if provider != expected:
            raise DeviceUnavailable(
                f"onnxruntime runs on {provider} although {device} was asked for. Install "
                "onnxruntime-gpu and CUDA, or use cpu."
            )
        return
    if engine.paddlex == HPI:
        kind, mode = runner.config.device_type, engine.run_mode
    else:
        kind, mode = runner._config["device_type"], runner._config["run_mode"]
    if kind != device.kind:
        raise DeviceUnavailable(
            f"PaddleX runs on {kind} although {device} was asked for. Install the Paddle build "
            f"for {device.kind}, or use {kind}."
        )
    if mode != engine.run_mode:
        raise EngineFailed(f"PaddleX runs in mode {mode} instead of {engine.run_mode}")


_registered: set[tuple[str, Role]] = set()


def _paddlex(cache: Path, paddlex_name: str, role: Role) -> Callable[..., Any]:
    """`paddlex.create_model`, with paddlex set up not to surprise anybody."""
    # Read by paddlex once, at import. It makes directories in its cache home; it would look for
    # model hosts on the network; and it would run on the CPU when a GPU is missing.
    if not os.access(cache, os.W_OK):  # a models directory shared read-only
        cache = Path(tempfile.gettempdir(), f"shitu-{os.getuid()}")
    os.environ.setdefault("PADDLE_PDX_CACHE_HOME", str(cache / ".paddlex"))
    os.environ["PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK"] = "True"
    os.environ["PADDLE_PDX_DISABLE_DEVICE_FALLBACK"] = "True"
    warnings.filterwarnings("ignore", "No ccache found")  # paddle's, about compiling
    from paddlex import create_model
    from paddlex.inference.models.bindings import (
        register_predictor_binding_map,
        try_get_supported_engines,
    )
    from paddlex.inference.models.image_feature.predictor import ImageFeatureRunnerPredictor
    from paddlex.inference.models.object_detection.predictor import DetRunnerPredictor

    log = logging.getLogger("paddlex")  # it writes coloured lines of its own to stderr
    log.handlers.clear()
    log.propagate = True
    log.setLevel(logging.WARNING)
    if (paddlex_name, role) not in _registered:
        # PaddleX runs features on Paddle only, though its onnxruntime runner does as well, and
        # knows only its own names.
        _register_openvino()
        known = try_get_supported_engines(paddlex_name) or ()
        missing = [name for name in (OPENVINO, ONNXRUNTIME, PADDLE, HPI) if name not in known]
        predictor = DetRunnerPredictor if role == "detector" else ImageFeatureRunnerPredictor
        register_predictor_binding_map(predictor, {name: [paddlex_name] for name in missing})
        _registered.add((paddlex_name, role))
    return create_model
