"""The starter models, pictures, and model directories made of nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from recognition.engine import child
from recognition.engine.devices import Device
from recognition.engine.runtime import Runtime
from recognition.engine.starter import build_starter
from recognition.engine.store import ModelStore
from recognition.engine.types import Pixels

ROOT = Path(__file__).resolve().parents[2]
GROCERY = ROOT.parent / "shared" / "data" / "grocery"
CPU = Device("cpu")


@pytest.fixture(scope="session")
def starter_store() -> ModelStore:
    """The directory in which the starter models are; built there when they are not."""
    store = ModelStore(Path(os.environ.get("SHITU_MODELS_DIR") or ROOT / "var" / "models"))
    build_starter(store)
    return store


@pytest.fixture(scope="session")
def runtime(starter_store: ModelStore) -> Runtime:
    return Runtime(starter_store, CPU, threads=1)


Labelled = list[tuple[Pixels, str]]


@pytest.fixture(scope="session")
def grocery() -> Callable[[str], Labelled]:
    """`grocery("gallery")` or `grocery("queries")`: real photos and their labels."""
    if not GROCERY.is_dir():
        pytest.skip(f"the grocery photos are not at {GROCERY}")

    def read(name: str) -> Labelled:
        lines = (GROCERY / f"{name}.txt").read_text(encoding="utf-8").splitlines()
        pairs = [line.split(" ", 1) for line in lines]
        return [(np.asarray(Image.open(GROCERY / p).convert("RGB")), label) for p, label in pairs]

    return read


EMBEDDER_SETTINGS = {
    "Global": {"model_name": "PP-ShiTuV2_rec"},
    "PreProcess": {
        "transform_ops": [
            {"ResizeImage": {"size": [224, 224]}},
            {"NormalizeImage": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}},
            {"ToCHWImage": None},
        ]
    },
    "PostProcess": {"NormalizeFeatures": None},
}


@pytest.fixture
def exported(tmp_path: Path) -> Callable[..., Path]:
    """`exported()` is a directory such as PaddleX exports, with bytes in the place of weights."""

    def make(folder: str = "exported", weights: bytes = b"weights", **settings) -> Path:
        directory = tmp_path / folder
        directory.mkdir()
        text = yaml.safe_dump(EMBEDDER_SETTINGS | settings)
        (directory / "inference.yml").write_text(text, encoding="utf-8")
        (directory / "inference.json").write_bytes(b"network")
        (directory / "inference.pdiparams").write_bytes(weights)
        return directory

    return make


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelStore:
    """An empty store in which every model passes its trial with 512 numbers a picture, and none
    can be converted."""

    def run(name, arguments, **_):
        if name == "convert_to_onnx":
            raise child.ChildFailed("bytes in the place of a network")
        return {"dimension": 512, "engine": "paddle"}

    monkeypatch.setattr(child, "run", run)
    return ModelStore(tmp_path / "models")
