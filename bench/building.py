"""How long an index takes to build, beside FAISS's HNSW32 with the same efConstruction.

Both build with every core. In a small space one build takes a second and no two take the same, so
there they are built in turns, several times; there FAISS builds with one thread as well, as it
answers everywhere in these measurements.
"""

from __future__ import annotations

import os
import time
from typing import Any

import faiss
import numpy as np

from bench.vectors import Vectors
from recognition.models import VectorIndex
from recognition.services import indexes

AGAIN_UP_TO = 20_000  # vectors: built in turns ...
TURNS = 5  # ... so many times


def faiss_hnsw32(
    vectors: Vectors, construction: int, *, threads: int = 0
) -> tuple[faiss.Index, float]:
    """HNSW32 over the vectors (n, D), and the seconds its building took; 0 threads: every core."""
    index = faiss.IndexHNSWFlat(vectors.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = construction
    faiss.omp_set_num_threads(threads or os.cpu_count() or 1)
    began = time.perf_counter()
    index.add(vectors)
    took = time.perf_counter() - began
    faiss.omp_set_num_threads(1)
    return index, took


def measure_building(space: VectorIndex, vectors: Vectors) -> tuple[dict[str, Any], faiss.Index]:
    """The figures, and FAISS's index as the last turn built it; the space is built when this is
    called, and built again when it is small. Ratios are medians over the turns."""
    seconds: list[tuple[float, float]] = []
    alone: list[float] = []
    for turn in range(TURNS if space.vectors <= AGAIN_UP_TO else 1):
        if turn:
            if indexes.tend(space.pk, rebuild=True) is not indexes.Tended.BUILT:
                raise SystemExit("the index was not built again: see the log above")
            space.refresh_from_db()
        peer, took = faiss_hnsw32(vectors, space.ef_construction)
        seconds.append((space.built_with["seconds"], took))
        if space.vectors <= AGAIN_UP_TO:
            alone.append(faiss_hnsw32(vectors, space.ef_construction, threads=1)[1])
    ours, theirs = np.array(seconds).T
    figures: dict[str, Any] = {
        "build_s": float(np.median(ours)),
        "faiss_equal_construction_build_s": float(np.median(theirs)),
        "build_ratio_to_faiss_equal_construction": float(np.median(ours / theirs)),
    }
    if alone:
        figures["faiss_equal_construction_one_thread_build_s"] = float(np.median(alone))
        figures["build_ratio_to_faiss_equal_construction_one_thread"] = float(
            np.median(ours / np.array(alone))
        )
    return figures, peer
