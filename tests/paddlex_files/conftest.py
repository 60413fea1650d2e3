"""Index directories as PaddleX would leave them, and catalogues filled by the stub network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pytest
import yaml

from recognition.drawing import FONT_FILE, FONT_PACKAGE
from recognition.engine.devices import Device
from recognition.engine.installed import InstalledModel
from recognition.engine.runtime import Runtime
from recognition.engine.stub import StubDetector, StubEmbedder, StubStore
from recognition.models import GalleryImage, State
from recognition.services import index_child
from recognition.services.index_files import importing
from tests import factories

SIDE = Path(__file__).parent / "paddlex_side.py"
DIMENSION = 64  # of the stub network
FACTORIES = {"Flat": "Flat", "IVF": "IVF{lists},Flat", "HNSW32": "HNSW32"}


@pytest.fixture
def stub_files(stub_engine, monkeypatch):
    """The stub network also where index files are checked and models compared."""
    from recognition.services import indexing

    monkeypatch.setattr(importing, "get_runtime", indexing.get_runtime)


class OtherEmbedder(StubEmbedder):
    """Another network: it sees only how bright a picture is, so it recognises worse."""

    def embed(self, pictures):
        return super().embed([np.broadcast_to(p.mean(2, keepdims=True), p.shape) for p in pictures])


class TwoStubs(StubStore):
    """A store with a second feature model, `other_rec`."""

    def names(self) -> list[str]:
        return [*super().names(), "other_rec"]

    def installed(self) -> list[InstalledModel]:
        return [*super().installed(), self.get("other_rec")]

    def get(self, name: str) -> InstalledModel:
        if name == "other_rec":
            return replace(super().get("stub_rec"), name=name, digest="0" * 64)
        return super().get(name)


@pytest.fixture
def two_models(stub_engine, monkeypatch):
    """`stub_rec` and `other_rec` are installed; returns the row of the latter."""
    from recognition.models import FeatureModel
    from recognition.services import indexing, model_switch

    runtime = Runtime(
        TwoStubs(),
        Device("cpu"),
        threads=1,
        load_detector=lambda installed, device, **options: StubDetector(),
        load_embedder=lambda installed, device, **options: (
            OtherEmbedder() if installed.name == "other_rec" else StubEmbedder()
        ),
    )
    for module in (indexing, model_switch, importing):
        monkeypatch.setattr(module, "get_runtime", lambda: runtime)
    return FeatureModel.objects.create(name="other_rec", digest="0" * 64, dimension=DIMENSION)


@pytest.fixture
def read_here(monkeypatch):
    """Index files are read in this process: for files that cannot harm it, and faster."""
    import faiss

    def read(directory: Path, scratch: Path) -> index_child.IndexContent:
        for name, most in (
            (index_child.VECTORS, index_child.MOST_INDEX_BYTES),
            (index_child.LABELS, index_child.MOST_LABELS_BYTES),
        ):
            index_child._size(directory / name, most)
        told = index_child._read(directory, scratch)
        return index_child.content(told, scratch)

    monkeypatch.setattr(importing, "read", read)
    most_read = faiss.get_deserialization_vector_byte_limit()  # the child sets it for its process
    yield
    faiss.set_deserialization_vector_byte_limit(most_read)


@pytest.fixture
def filled(catalogue, stub_files, run_tasks):
    """`filled(n)` puts n pictures of n // 2 products into the catalogue, embedded."""

    def fill(count: int = 20, into=catalogue):
        with run_tasks():
            for seed in range(count):
                factories.add(into, f"商品 {seed // 2}", seed=seed)
        assert not GalleryImage.objects.filter(catalogue=into).exclude(state=State.DONE).exists()
        into.refresh_from_db()
        return into

    return fill


def unit_vectors(count: int, dimension: int = DIMENSION, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def index_directory(tmp_path: Path) -> Callable[..., Path]:
    """`index_directory(vectors, labels, ...)` writes a directory with FAISS, as PaddleX does."""
    import faiss

    def write(
        vectors: np.ndarray,
        labels: list[str],
        *,
        index_type: str = "Flat",
        metric: str = "IP",
        ids: list[int] | None = None,
        removed: list[int] = (),
        name: str = "index",
        **said,
    ) -> Path:
        ids = list(range(len(vectors))) if ids is None else ids
        factory = FACTORIES[index_type].format(lists=max(1, len(vectors) // 8))
        number = {"IP": faiss.METRIC_INNER_PRODUCT, "L2": faiss.METRIC_L2}[metric]
        index = faiss.IndexIDMap2(faiss.index_factory(vectors.shape[1], factory, number))
        index.train(vectors)
        index.add_with_ids(vectors, np.asarray(ids, np.int64))
        if len(removed):
            index.remove_ids(np.asarray(removed, np.int64))
        directory = tmp_path / name
        directory.mkdir()
        faiss.write_index(index, str(directory / "vector.index"))
        info = {
            "id_map": {i: label for i, label in zip(ids, labels, strict=True) if i not in removed},
            "index_type": index_type,
            "metric_type": metric,
        } | said
        text = yaml.dump(info, default_flow_style=False, allow_unicode=True)
        (directory / "id_map.yaml").write_text(text, encoding="utf-8")
        return directory

    return write


@pytest.fixture
def in_paddlex(tmp_path: Path) -> Callable[..., dict]:
    """`in_paddlex("load", ...)` has PaddleX itself do what `paddlex_side.py` calls so."""
    for package in ("matplotlib", "scikit-image", "pycocotools"):
        try:
            version(package)
        except PackageNotFoundError:
            pytest.skip(f"PaddleX's extra `cv` is not installed: {package} is missing")

    def run(name: str, **request) -> dict:
        asked, answered = tmp_path / f"{name}-asked.json", tmp_path / f"{name}-answered.json"
        asked.write_text(json.dumps(request))
        done = subprocess.run(
            [sys.executable, str(SIDE), name, str(asked), str(answered)],
            capture_output=True,
            text=True,
            env=os.environ
            | {
                "PADDLE_PDX_CACHE_HOME": str(tmp_path / "cache"),
                "PADDLE_PDX_LOCAL_FONT_FILE_PATH": str(
                    Path(str(resources.files(FONT_PACKAGE) / FONT_FILE))
                ),
                "MPLCONFIGDIR": str(tmp_path / "cache"),
                "MPLBACKEND": "agg",
            },
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(answered.read_text())

    return run
