"""PaddleX's predictors behind the engine's protocols: the only file that touches paddlex.

Nothing heavy is imported until a network is loaded. Pictures are RGB outside and turned round here.
"""

from __future__ import annotations

import difflib
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import numpy as np
from pydantic import ValidationError

from recognition.engine.devices import Device
from recognition.engine.registry import Role
from recognition.engine.store import (
    NETWORKS,
    ONNX,
    OPENVINO_IR,
    WEIGHTS,
    InstalledModel,
    not_a,
)
from recognition.engine.types import Box, Pixels, Vectors
from recognition.errors import BadInput, DeviceUnavailable, EngineFailed

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Engine:
    """One way to run a network: PaddleX's engine, its run mode, and on which devices it can.

    `auto` takes only those that are `exact`: float32 arithmetic, and nothing to install.
    """

    name: str
    paddlex: str
    run_mode: str | None = None
    device_kinds: tuple[str, ...] | None = None  # None: all that PaddleX knows
    exact: bool = True

    def suits(self, installed: InstalledModel, device: Device) -> bool:
        """Whether the model has the files for it and the device is one it runs on."""
        if self.device_kinds is not None and device.kind not in self.device_kinds:
            return False
        has_onnx = installed.has(ONNX)
        has_paddle = installed.has(WEIGHTS) and any(map(installed.has, NETWORKS))
        return {
            OPENVINO: has_onnx or installed.has(*OPENVINO_IR),
            ONNXRUNTIME: has_onnx,
            PADDLE: has_paddle,
            HPI: has_paddle or has_onnx,
        }[self.paddlex]


# PaddleX's names. It has no openvino but through its high-performance plug-in (hpi), so that one
# is registered there, see _openvino.
OPENVINO, ONNXRUNTIME, PADDLE, HPI = "openvino", "onnxruntime", "paddle_static", "hpi"

# In the order in which `auto` tries them. CPU milliseconds a picture with one thread: the starter
# embedder 6 / 10 / 16 / 63, PP-ShiTuV2_rec's architecture 9 / 17 / 20 / 80, starter detector
# 11 / 20 / 23 / 114. The first two need no paddle in memory; oneDNN fails on some exports of Paddle
# 3.3 (interpolate).
ENGINES = (
    Engine("openvino", OPENVINO, None, ("cpu",)),
    Engine("onnxruntime", ONNXRUNTIME, None, ("cpu", "gpu")),
    Engine("paddle_mkldnn", PADDLE, "mkldnn", ("cpu",)),
    Engine("paddle", PADDLE, "paddle"),
    Engine("paddle_fp16", PADDLE, "paddle_fp16", ("gpu",), exact=False),
    Engine("paddle_trt_fp32", PADDLE, "trt_fp32", ("gpu",), exact=False),
    Engine("paddle_trt_fp16", PADDLE, "trt_fp16", ("gpu",), exact=False),
    Engine("hpi", HPI, exact=False),
)
AUTO = "auto"


def load_detector(
    installed: InstalledModel,
    device: Device,
    *,
    threads: int = 1,
    engine: str = AUTO,
    options: Mapping[str, Any] | None = None,
) -> PaddleXDetector:
    """Load a detector onto `device` and let it pass the self-test.

    `threads` is the number of CPU threads of this network (PaddleX's own default is 10 on any
    machine). `engine` is a name of `ENGINES` or `auto`. `options` go to PaddleX as they are: its
    `hpi_config` for hpi, else its `engine_config`. Raises BadInput for an engine or option that
    does not exist or does not suit, EngineFailed when none works, DeviceUnavailable.
    """
    return _first_that_works(
        installed, "detector", device, threads, engine, options or {}, PaddleXDetector
    )


def load_embedder(
    installed: InstalledModel,
    device: Device,
    *,
    threads: int = 1,
    engine: str = AUTO,
    options: Mapping[str, Any] | None = None,
) -> PaddleXEmbedder:
    """Load an embedder; everything as `load_detector`."""
    return _first_that_works(
        installed, "embedder", device, threads, engine, options or {}, PaddleXEmbedder
    )


class _Network:
    """One PaddleX predictor. It is not thread-safe (4 threads sharing one got wrong vectors), so
    every call holds its lock.

    The predictor's `process` is called with one batch at a time instead of its public `predict`,
    which hands the feature matrix of the whole batch to each picture of it (PaddleX 3.5 to 3.7)
    and changes numpy's print options in the whole process with every result.
    """

    def __init__(
        self, predictor: Any, installed: InstalledModel, engine: Engine, device: Device
    ) -> None:
        self.engine = engine.name
        self.device = device
        self.installed = installed
        self._predictor = predictor
        self._lock = Lock()

    def _answers(self, pictures: Sequence[Pixels], batch: int, **options: Any) -> list[Any]:
        """What the predictor says about each batch, in order."""
        import cv2

        for number, picture in enumerate(pictures):
            if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
                raise BadInput(
                    f"Picture {number} has shape {picture.shape} and type {picture.dtype}; the "
                    "engine takes (height, width, 3) uint8, RGB."
                )
            if picture.size == 0:
                raise BadInput(f"Picture {number} is empty ({picture.shape}).")
        bgr = [cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) for picture in pictures]
        with self._lock:
            sampler = self._predictor.batch_sampler
            sampler.batch_size = batch
            return [self._predictor.process(batch, **options) for batch in sampler(bgr)]


class PaddleXDetector(_Network):
    """A main-body detector."""

    def detect(self, pictures: Sequence[Pixels], *, threshold: float) -> list[list[Box]]:
        """Boxes with score > `threshold` of each picture, best first.

        Corners lie inside the picture; boxes without area are dropped (both by PaddleX). Raises
        EngineFailed when the network answers with numbers that are not finite.
        """
        # PaddleX filters by a threshold only if it is a float: 0, 1 or a numpy number keep all.
        # One picture at a time: the NMS in an ONNX file is made for that, and CPUs do not mind.
        answers = self._answers(pictures, 1, threshold=float(threshold))
        return [self._boxes(answer["boxes"][0]) for answer in answers]

    def _boxes(self, found: Sequence[dict[str, Any]]) -> list[Box]:
        boxes = [
            Box(*map(float, (*box["coordinate"], box["score"])))  # numpy numbers and ints
            for box in found
        ]
        for box in boxes:
            if not np.isfinite((box.x1, box.y1, box.x2, box.y2, box.score)).all():
                raise EngineFailed(
                    f"The detector {self.installed.name} gave a box that is not finite ({box}) on "
                    f"{self.engine}. Try another engine with SHITU_ENGINE."
                )
        # Best first, as Paddle's and onnxruntime's NMS answer; OpenVINO's does not.
        return sorted((box for box in boxes if box.area > 0), key=lambda box: -box.score)

    def self_test(self) -> None:
        """Raise EngineFailed unless the answers about two pictures make sense."""
        pictures = trial_pictures()
        for picture, boxes in zip(pictures, self.detect(pictures, threshold=0.0), strict=True):
            height, width = picture.shape[:2]
            for box in boxes:
                inside = 0 <= box.x1 < box.x2 <= width and 0 <= box.y1 < box.y2 <= height
                if not inside or not 0 <= box.score <= 1:
                    raise EngineFailed(f"impossible box {box} in a picture of {width}x{height}")


class PaddleXEmbedder(_Network):
    """An embedder. `dimension` is measured by the self-test."""

    dimension: int = 0

    def embed(self, pictures: Sequence[Pixels]) -> Vectors:
        """One unit vector per picture, (N, dimension) float32; all of them are one batch.

        Raises EngineFailed when a vector is not finite or not of length 1 (PaddleX divides by the
        length without looking, so a zero vector becomes NaN).
        """
        if not pictures:
            return np.empty((0, self.dimension), np.float32)
        with np.errstate(divide="ignore", invalid="ignore"):  # told below, with the picture
            answers = self._answers(pictures, len(pictures))
        # Stacked, a matrix (as today) and a list of vectors (when PaddleX mends it) are the same.
        vectors = np.concatenate([np.stack(list(answer["feature"])) for answer in answers])
        if vectors.ndim != 2 or len(vectors) != len(pictures):
            raise EngineFailed(
                f"The embedder {self.installed.name} answered {len(pictures)} pictures with an "
                f"array of shape {vectors.shape}; one vector for each was expected."
            )
        lengths = np.linalg.norm(vectors, axis=1)
        wrong = np.flatnonzero(~(np.abs(lengths - 1) < 1e-3))  # NaN is wrong, too
        if wrong.size:
            raise EngineFailed(
                f"The embedder {self.installed.name} gave no usable vector for picture "
                f"{', '.join(map(str, wrong))} of {len(pictures)} (length {lengths[wrong[0]]}) on "
                f"{self.engine}."
            )
        if self.dimension and vectors.shape[1] != self.dimension:
            raise EngineFailed(
                f"The embedder {self.installed.name} gave {vectors.shape[1]} numbers a picture "
                f"instead of {self.dimension}: its files are not the ones it was installed with."
            )
        return vectors.astype(np.float32, copy=False)

    def self_test(self) -> None:
        """Raise EngineFailed unless two pictures in one batch get the vectors they get alone."""
        pictures = trial_pictures()
        together = self.embed(pictures)
        alone = np.concatenate([self.embed([picture]) for picture in pictures])
        if (together * alone).sum(axis=1).min() < 0.999:
            raise EngineFailed("a picture gets another vector in a batch than alone")
        if together[0] @ together[1] > 0.9999:
            raise EngineFailed("two different pictures get the same vector")
        self.dimension = self.installed.dimension or together.shape[1]
        if self.dimension != together.shape[1]:
            raise EngineFailed(f"{together.shape[1]} numbers a picture instead of {self.dimension}")


def trial_pictures() -> list[Pixels]:
    """Two different pictures of different size, the same on every machine."""
    y, x = np.mgrid[:240, :320]
    shelf = np.stack([x * 255 // 319, y * 255 // 239, (x + y) % 256], axis=2).astype(np.uint8)
    shelf[60:180, 100:220] = (220, 40, 40)
    shelf[90:150, 120:200] = (250, 250, 240)
    y, x = np.mgrid[:200, :200]
    disc = np.full((200, 200, 3), 235, np.uint8)
    disc[(x - 100) ** 2 + (y - 90) ** 2 < 60**2] = (40, 120, 60)
    disc[(x // 8 % 2 == 0) & (y > 150)] = (30, 30, 90)
    return [shelf, disc]


def disagreement(one: Any, other: Any) -> str:
    """How the answers of two networks to the trial pictures differ; empty when they do not.

    Engines that agree (cosine > 0.9999, boxes IoU > 0.99) make vectors that may stand side by side.
    """
    pictures = trial_pictures()
    if isinstance(one, PaddleXEmbedder):
        if one.dimension != other.dimension:
            return f"{other.dimension} numbers a picture instead of {one.dimension}"
        cosine = float((one.embed(pictures) * other.embed(pictures)).sum(axis=1).min())
        return "" if cosine > 0.9999 else f"a vector is only {cosine:.4f} like the one expected"
    found = [network.detect(pictures, threshold=0.3) for network in (one, other)]
    for expected, boxes in zip(*found, strict=True):
        # The same boxes, up to one at the edge of the threshold that only one of them sees.
        best = [max((box.iou(also) for also in boxes), default=0.0) for box in expected]
        if any(overlap <= 0.99 for overlap in best if overlap) or abs(
            len(boxes) - len(expected)
        ) > max(1, len(expected) // 20):
            return f"boxes differ: {expected[:3]} were expected, {boxes[:3]} found"
    return ""


N = TypeVar("N", PaddleXDetector, PaddleXEmbedder)


def _first_that_works(
    installed: InstalledModel,
    role: Role,
    device: Device,
    threads: int,
    wanted: str,
    options: Mapping[str, Any],
    network: Callable[[Any, InstalledModel, Engine, Device], N],
) -> N:
    if installed.role != role:
        raise not_a(role, installed)
    reasons: list[str] = []
    if threads < 1:
        raise BadInput(f"{threads} threads: at least 1 is needed.", field="threads")
    if options and wanted == AUTO:
        raise BadInput(
            "Engine options are for one engine: name it with SHITU_ENGINE, or leave "
            "SHITU_ENGINE_OPTIONS out.",
            field="options",
        )
    for engine in _candidates(installed, device, wanted):
        if options or engine.paddlex == HPI:
            _paddlex(installed.directory.parent, installed.paddlex_name, role)
            _check_options(engine, options)
            _check_plugin(engine, device)
        try:
            predictor = _predictor(installed, role, engine, device, threads, options)
            loaded = network(predictor, installed, engine, device)
            loaded.self_test()
        except DeviceUnavailable:
            raise
        except Exception as error:  # noqa: BLE001  paddle raises anything; nothing is swallowed
            reason = _first_line(error).replace(str(installed.directory), installed.name)
            reasons.append(f"{engine.name}: {type(error).__name__}: {reason}")
            logger.warning(
                "%s does not run on %s, which is left out: %s",
                installed.name,
                engine.name,
                error,
            )
            continue
        logger.info("%s runs on %s, %s", installed.name, engine.name, device)
        return loaded
    raise EngineFailed(
        f"{installed.name} cannot run on {device}. "
        f"{'; '.join(reasons) or 'Its files suit no engine for that device'}. Choose another "
        "engine with SHITU_ENGINE or install the model again."
    )


def _first_line(error: Exception) -> str:
    if isinstance(error.__cause__, ValidationError):  # an option's value that PaddleX refuses
        return "; ".join(
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.__cause__.errors()
        )
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason")


def _candidates(installed: InstalledModel, device: Device, wanted: str) -> list[Engine]:
    if wanted == AUTO:
        # Off the CPU only Paddle is tried unasked: onnxruntime may lack the device's provider.
        return [
            engine
            for engine in ENGINES
            if engine.exact
            and engine.suits(installed, device)
            and (device.kind == "cpu" or engine.name == "paddle")
        ]
    for engine in ENGINES:
        if engine.name == wanted:
            if not engine.suits(installed, device):
                raise BadInput(
                    f"The engine {wanted} cannot run {installed.name} on {device}: the model lacks "
                    "the files for it or the engine does not know the device.",
                    field="engine",
                )
            return [engine]
    known = ", ".join([AUTO, *(engine.name for engine in ENGINES)])
    raise BadInput(f"{wanted!r} is not an engine: use one of {known}.", field="engine")


def _predictor(
    installed: InstalledModel,
    role: Role,
    engine: Engine,
    device: Device,
    threads: int,
    options: Mapping[str, Any],
) -> Any:
    """PaddleX's predictor, on the device that was asked for or not at all."""
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
    predictor = model._predictor
    _check_where_it_runs(predictor.runner, engine, device)
    return predictor


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


def found_devices() -> list[str]:
    """Every device Paddle offers here, as `kind:id`, and `cpu`. May abort: use a child process."""
    import paddle

    found = ["cpu"]
    if paddle.device.is_compiled_with_cuda():
        kind = "dcu" if paddle.device.is_compiled_with_rocm() else "gpu"
        found += [f"{kind}:{number}" for number in range(paddle.device.cuda.device_count())]
    if paddle.device.is_compiled_with_xpu():
        found += [f"xpu:{number}" for number in range(paddle.device.xpu.device_count())]
    return found + list(paddle.device.get_available_custom_device() or [])
