"""A network's int8 twin for OpenVINO, by post-training quantisation. Runs in a child process.

It is another model with an identity of its own: its vectors are never compared with those of the
float one. NNCF (the extra `int8`) finds the ranges of all activations from calibration pictures,
which pass through the float network's own preprocessing here.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recognition.engine import loading
from recognition.engine.devices import Device
from recognition.engine.engines import OPENVINO
from recognition.engine.installed import ONNX, OPENVINO_IR, SETTINGS, InstalledModel
from recognition.engine.networks import PaddleXDetector
from recognition.engine.types import Pixels

Feed = dict[str, NDArray[Any]]

# Depthwise convolutions lose most and win nothing (OpenVINO runs them in float all the same), the
# first layer and the last ones lose next. Of the starter embedder with everything quantised the
# vectors had cosine 0.958 (mean) and 0.891 (lowest) to the float ones, without these 0.998 and
# 0.994, at the same speed.
DEPTHWISE = "GroupConvolution"
_LAYERS = ("Convolution", "MatMul", DEPTHWISE)


def quantise(installed: InstalledModel, pictures: Sequence[Path], target: Path) -> dict[str, Any]:
    """Write the twin of a model with an ONNX file into `target`; returns how it was made.

    `pictures` are files like those that will be asked about; a few hundred are enough.
    """
    import nncf
    import openvino

    feeds = list(_feeds(installed, map(_read, pictures)))
    network = openvino.Core().read_model(str(installed.directory / ONNX))
    quantised = nncf.quantize(
        network,
        nncf.Dataset(feeds),
        subset_size=len(feeds),
        ignored_scope=nncf.IgnoredScope(types=[DEPTHWISE], names=_ends(network)),
    )
    openvino.save_model(quantised, str(target / OPENVINO_IR[0]), compress_to_fp16=False)
    shutil.copyfile(installed.directory / SETTINGS, target / SETTINGS)
    return {"pictures": str(len(feeds)), "nncf": nncf.__version__}


def _ends(network: Any) -> list[str]:
    """Names of the layers that no layer comes before, and of those that none comes after."""
    operations = network.get_ordered_ops()
    before: dict[str, bool] = {}
    after: dict[str, bool] = {}
    ends = []
    for operation in operations:
        sources = (port.get_source_output().get_node() for port in operation.inputs())
        seen = any(before[source.get_friendly_name()] for source in sources)
        if is_layer := operation.get_type_name() in _LAYERS:
            ends += [] if seen else [operation.get_friendly_name()]
        before[operation.get_friendly_name()] = seen or is_layer
    for operation in reversed(operations):
        users = (port.get_node() for out in operation.outputs() for port in out.get_target_inputs())
        seen = any(after[user.get_friendly_name()] for user in users)
        if is_layer := operation.get_type_name() in _LAYERS:
            ends += [] if seen else [operation.get_friendly_name()]
        after[operation.get_friendly_name()] = seen or is_layer
    return sorted(set(ends))


def _feeds(installed: InstalledModel, pictures: Iterator[Pixels]) -> Iterator[Feed]:
    """What the network is given for each picture, input by input."""
    network = loading.load(installed, Device("cpu"), engine=OPENVINO)
    recorder = network._predictor.runner = _Recorder(network._predictor.runner)
    for picture in pictures:
        if isinstance(network, PaddleXDetector):
            network.detect([picture], threshold=0.5)
        else:
            network.embed([picture])
        yield recorder.last


class _Recorder:
    """A runner that keeps what it was given last."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self.last: Feed = {}

    def __call__(self, x: Sequence[NDArray[Any]] | NDArray[Any]) -> list[NDArray[Any]]:
        arrays = [x] if isinstance(x, np.ndarray) else list(x)
        self.last = {
            name: np.array(array)
            for name, array in zip(self._runner.input_names, arrays, strict=True)
        }
        answer: list[NDArray[Any]] = self._runner(x)
        return answer


def _read(path: Path) -> Pixels:
    import cv2

    pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    return np.ascontiguousarray(pixels[:, :, ::-1])
