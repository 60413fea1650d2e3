"""The ways to run a network, and which of them suit a model on a device."""

from __future__ import annotations

from dataclasses import dataclass

from recognition.engine.devices import Device
from recognition.engine.installed import NETWORKS, ONNX, OPENVINO_IR, WEIGHTS, InstalledModel
from recognition.errors import BadInput


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
# is registered there, see ppshitu.py.
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


def candidates(installed: InstalledModel, device: Device, wanted: str) -> list[Engine]:
    """The engines to try a model with, the best first: the one called `wanted`, or all for `auto`.

    Raises BadInput for an engine that does not exist, or cannot run the model on the device.
    """
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
