"""Index directories as PaddleX would leave them, and catalogues filled by the stub network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from recognition.models import GalleryImage, State
from recognition.services import index_files
from tests import factories

DIMENSION = 64  # of the stub network
FACTORIES = {"Flat": "Flat", "IVF": "IVF{lists},Flat", "HNSW32": "HNSW32"}


@pytest.fixture
def stub_files(stub_engine, monkeypatch):
    """The stub network also where index files are checked and models compared."""
    from recognition.services import indexing

    monkeypatch.setattr(index_files, "get_runtime", indexing.get_runtime)


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
