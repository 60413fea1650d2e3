"""PaddleX's predictors behind the engine's protocols: the only file that touches paddlex.

Nothing heavy is imported until a network is loaded. Pictures are RGB outside and turned round here.
"""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import numpy as np

from recognition.engine.devices import Device
from recognition.engine.registry import Role
from recognition.engine.store import NETWORKS, ONNX, WEIGHTS, InstalledModel, not_a
from recognition.engine.types import Box, Pixels, Vectors
from recognition.errors import BadInput, DeviceUnavailable, EngineFailed

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Engine:
    """One way to run a network: PaddleX's engine, its run mode, and on which devices it can."""

    name: str
    paddlex: str
    run_mode: str | None
    device_kinds: tuple[str, ...] | None = None  # None: all that PaddleX knows

    def suits(self, installed: InstalledModel, device: Device) -> bool:
        """Whether the model has the files for it and the device is one it runs on."""
        if self.device_kinds is not None and device.kind not in self.device_kinds:
            return False
        if self.paddlex == "onnxruntime":  # openvino's too
            return installed.has(ONNX)
        return installed.has(WEIGHTS) and any(installed.has(network) for network in NETWORKS)


# In the order in which `auto` tries them. CPU milliseconds a picture with one thread: the starter
# embedder 6 / 10 / 16 / 63, PP-ShiTuV2_rec's architecture 9 / 17 / 20 / 80, starter detector
# 11 / 20 / 23 / 114. The first two need no paddle in memory; oneDNN fails on some exports of Paddle
# 3.3 (interpolate).
OPENVINO = "openvino"
ENGINES = (
    Engine(OPENVINO, "onnxruntime", None, ("cpu",)),
    Engine("onnxruntime", "onnxruntime", None, ("cpu", "gpu")),
    Engine("paddle_mkldnn", "paddle_static", "mkldnn", ("cpu",)),
    Engine("paddle", "paddle_static", "paddle"),
)
AUTO = "auto"


def load_detector(
    installed: InstalledModel, device: Device, *, threads: int = 1, engine: str = AUTO
) -> PaddleXDetector:
    """Load a detector onto `device` and let it pass the self-test.

    `threads` is the number of CPU threads of this network (PaddleX's own default is 10 on any
    machine). `engine` is a name of `ENGINES` or `auto`. Raises BadInput for an engine that does
    not exist or does not suit, EngineFailed when none works, DeviceUnavailable.
    """
    return _first_that_works(installed, "detector", device, threads, engine, PaddleXDetector)


def load_embedder(
    installed: InstalledModel, device: Device, *, threads: int = 1, engine: str = AUTO
) -> PaddleXEmbedder:
    """Load an embedder; everything as `load_detector`."""
    return _first_that_works(installed, "embedder", device, threads, engine, PaddleXEmbedder)


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


N = TypeVar("N", PaddleXDetector, PaddleXEmbedder)


def _first_that_works(
    installed: InstalledModel,
    role: Role,
    device: Device,
    threads: int,
    wanted: str,
    network: Callable[[Any, InstalledModel, Engine, Device], N],
) -> N:
    if installed.role != role:
        raise not_a(role, installed)
    reasons: list[str] = []
    if threads < 1:
        raise BadInput(f"{threads} threads: at least 1 is needed.", field="threads")
    for engine in _candidates(installed, device, wanted):
        try:
            predictor = _predictor(installed, role, engine, device, threads)
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
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason")


def _candidates(installed: InstalledModel, device: Device, wanted: str) -> list[Engine]:
    if wanted == AUTO:
        # Off the CPU only Paddle is tried unasked: onnxruntime may lack the device's provider.
        return [
            engine
            for engine in ENGINES
            if engine.suits(installed, device) and (device.kind == "cpu" or engine.name == "paddle")
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
    installed: InstalledModel, role: Role, engine: Engine, device: Device, threads: int
) -> Any:
    """PaddleX's predictor, on the device that was asked for or not at all."""
    create_model = _paddlex(installed.directory.parent, installed.paddlex_name, role)
    config: dict[str, Any] = (
        {"intra_op_num_threads": threads, "inter_op_num_threads": 1, "log_severity_level": 3}
        if engine.paddlex == "onnxruntime"
        else {"run_mode": engine.run_mode, "cpu_threads": threads}
    )
    model = create_model(
        installed.paddlex_name,
        model_dir=str(installed.directory),
        device=str(device),
        engine=engine.paddlex,
        engine_config=config,
    )
    predictor = model._predictor
    if engine.name == OPENVINO:
        from recognition.engine.openvino_runner import OpenVinoRunner

        predictor.runner = OpenVinoRunner(installed.directory / ONNX, threads=threads)
    else:
        _check_where_it_runs(predictor.runner, engine, device)
    return predictor


def _check_where_it_runs(runner: Any, engine: Engine, device: Device) -> None:
    """Raise where PaddleX or onnxruntime quietly took another device or run mode."""
    if engine.paddlex == "onnxruntime":
        provider = runner.session.get_providers()[0]
        expected = {"cpu": "CPUExecutionProvider", "gpu": "CUDAExecutionProvider"}[device.kind]
        if provider != expected:
            raise DeviceUnavailable(
                f"onnxruntime runs on {provider} although {device} was asked for. Install "
                "onnxruntime-gpu and CUDA, or use cpu."
            )
        return
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
        known = try_get_supported_engines(paddlex_name) or ()
        missing = [name for name in ("onnxruntime", "paddle_static") if name not in known]
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
