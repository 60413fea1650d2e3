"""OpenVINO as a runner of PaddleX: about twice as fast on a CPU as its own.

PaddleX reaches OpenVINO only through its high-performance plug-in, which is on no package registry.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class OpenVinoRunner:
    """Runs one ONNX or IR file on the CPU, called as PaddleX calls its runners.

    `threads` is the number of CPU threads. Of a float network the arithmetic is float32 as in the
    other engines: OpenVINO would take bfloat16 by itself where the processor has it, and vectors of
    two machines would no longer be comparable.
    """

    def __init__(self, file: Path, *, threads: int) -> None:
        import openvino

        core = openvino.Core()
        options: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        self._model = core.compile_model(str(file), "CPU", options)
        self._request = self._model.create_infer_request()
        self.input_names = sorted(port.get_any_name() for port in self._model.inputs)

    @property
    def threads(self) -> int:
        """CPU threads that the compiled network uses."""
        return int(self._model.get_property("INFERENCE_NUM_THREADS"))

    def __call__(self, x: Sequence[NDArray[Any]] | NDArray[Any]) -> list[NDArray[Any]]:
        """Outputs in the file's order; inputs belong to the sorted names, as in PaddleX."""
        arrays = [x] if isinstance(x, np.ndarray) else list(x)
        feeds = dict(zip(self.input_names, map(np.ascontiguousarray, arrays), strict=True))
        answer = self._request.infer(feeds)
        return [np.array(answer[port]) for port in self._model.outputs]

    def close(self) -> None:
        """Nothing to do: memory goes with the object."""
