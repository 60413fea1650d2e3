"""Work that must not hurt this process: loading paddle, touching devices, exporting networks.

`run` starts `python -m recognition.engine.child NAME ARGUMENTS...`, which calls one of the
functions below and writes its answer as JSON to a file. Paddle prints to stdout and may abort.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from recognition.engine.installed import read_manifest

_ROOT = Path(__file__).resolve().parents[2]


class ChildFailed(Exception):
    """The child did not answer; the text is its last words."""


def run(name: str, arguments: Sequence[str], *, timeout: float = 600) -> dict[str, Any]:
    """The answer of the function called `name` below; raises ChildFailed.

    `timeout` is in seconds.
    """
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    with tempfile.TemporaryDirectory() as scratch:
        answer = Path(scratch, "answer.json")
        command = [sys.executable, "-m", __name__, name, str(answer), *arguments]
        try:
            done = subprocess.run(  # noqa: S603  our own module, no shell
                command,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            )
        except subprocess.TimeoutExpired as error:
            raise ChildFailed(f"no answer within {timeout:.0f} seconds") from error
        if done.returncode == 0:
            result: dict[str, Any] = json.loads(answer.read_text())
            return result
        raise ChildFailed(_last_words(done))


def _last_words(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    if done.returncode < 0:
        cause = f"the process was ended by {signal.Signals(-done.returncode).name}"
        return f"{cause} ({lines[-1][:300]})" if lines else cause
    if not lines:
        return f"exit code {done.returncode}"
    return re.sub(r"^recognition\.errors\.\w+: ", "", lines[-1])[:1000]


def found_devices() -> dict[str, Any]:
    """Every device that Paddle offers here, each as `kind:id`, and `cpu`. May abort."""
    import paddle

    found = ["cpu"]
    if paddle.device.is_compiled_with_cuda():
        kind = "dcu" if paddle.device.is_compiled_with_rocm() else "gpu"
        found += [f"{kind}:{number}" for number in range(paddle.device.cuda.device_count())]
    if paddle.device.is_compiled_with_xpu():
        found += [f"xpu:{number}" for number in range(paddle.device.xpu.device_count())]
    return {"devices": found + list(paddle.device.get_available_custom_device() or [])}


def try_model(directory: str) -> dict[str, Any]:
    """Load the model of a directory with a manifest on the CPU, self-test included."""
    from recognition.engine import loading
    from recognition.engine.devices import Device

    network = loading.load(read_manifest(Path(directory)), Device("cpu"))
    return {"dimension": getattr(network, "dimension", None), "engine": network.engine}


def convert_to_onnx(directory: str) -> dict[str, Any]:
    """Give the Paddle model of a directory with a manifest an `inference.onnx` as well."""
    from recognition.engine import conversion

    conversion.to_onnx(read_manifest(Path(directory)))
    return {}


def quantise(directory: str, pictures: str, target: str) -> dict[str, Any]:
    """Write the int8 twin of a model into `target`, calibrated on a list of files, one a line."""
    from recognition.engine import quantisation

    files = Path(pictures).read_text(encoding="utf-8").splitlines()
    installed = read_manifest(Path(directory))
    return quantisation.quantise(installed, [Path(file) for file in files], Path(target))


def export_starter(checkpoint: str, detector: str, embedder: str) -> dict[str, Any]:
    """Write the starter models' files into two directories."""
    from recognition.engine import starter_network

    starter_network.export(Path(checkpoint), Path(detector), Path(embedder))
    return {}


FUNCTIONS: dict[str, Callable[..., dict[str, Any]]] = {
    function.__name__: function
    for function in (found_devices, try_model, convert_to_onnx, quantise, export_starter)
}

if __name__ == "__main__":
    name, answer, *arguments = sys.argv[1:]
    Path(answer).write_text(json.dumps(FUNCTIONS[name](*arguments)))
