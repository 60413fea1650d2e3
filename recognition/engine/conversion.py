"""A Paddle network as ONNX, which OpenVINO and onnxruntime run faster. Runs in a child process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from recognition.engine import loading
from recognition.engine.devices import Device
from recognition.engine.installed import NETWORKS, ONNX, WEIGHTS, InstalledModel, StoredFile
from recognition.engine.trial import disagreement
from recognition.errors import EngineFailed

# The first with HardSwish: OpenVINO runs PP-ShiTuV2_det's structure in half the time with it.
OPSET = 14


def to_onnx(installed: InstalledModel) -> None:
    """Write `inference.onnx` beside the model's Paddle files, if it answers as they do.

    Raises EngineFailed, or whatever the converter raises. Known not to work: a detector exported
    for batches whose NMS is in the network, and Paddle 3.3's interpolate.
    """
    import paddle2onnx

    folder = installed.directory
    network = next(folder / name for name in NETWORKS if installed.has(name))
    onnx = folder / ONNX
    paddle2onnx.export(str(network), str(folder / WEIGHTS), str(onnx), opset_version=OPSET)
    if not onnx.is_file():  # some failures are only logged
        raise EngineFailed("paddle2onnx made no file")
    _check(installed, onnx)


def _check(installed: InstalledModel, onnx: Path) -> None:
    converted = replace(
        installed, files={**installed.files, ONNX: StoredFile(onnx.stat().st_size, "")}
    )
    networks = [
        loading.load(converted, Device("cpu"), engine=engine)
        for engine in ("paddle", "onnxruntime")
    ]
    if reason := disagreement(*networks):
        raise EngineFailed(f"the converted network answers otherwise: {reason}")
