"""A small deterministic detector and embedder, for tests of logic. They recognise nothing real."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recognition.engine.devices import Device
from recognition.engine.installed import InstalledModel
from recognition.engine.runtime import Runtime
from recognition.engine.store import ModelStore
from recognition.engine.types import Box, Pixels, Vectors
from recognition.errors import ModelUnavailable


class StubDetector:
    """Finds the one rectangle around everything that differs from the top left pixel."""

    engine = "stub"

    def detect(self, pictures: Sequence[Pixels], *, threshold: float) -> list[list[Box]]:
        """At most one box a picture; its score is the part of it that differs (0..1)."""
        found = [self._box(picture) for picture in pictures]
        return [[box] if box and box.score > threshold else [] for box in found]

    def _box(self, picture: Pixels) -> Box | None:
        differs = (np.abs(picture.astype(int) - picture[0, 0].astype(int)) > 24).any(axis=2)
        rows, columns = np.flatnonzero(differs.any(axis=1)), np.flatnonzero(differs.any(axis=0))
        if not rows.size:
            return None
        top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
        score = float(differs[top:bottom, left:right].mean())
        return Box(float(left), float(top), float(right), float(bottom), score)


class StubEmbedder:
    """A colour histogram: the same colours give the same vector, whatever the size."""

    engine = "stub"
    dimension = 64

    def embed(self, pictures: Sequence[Pixels]) -> Vectors:
        """Unit vectors of 4 x 4 x 4 colour bins: (N, 64) float32."""
        vectors = np.empty((len(pictures), self.dimension), np.float32)
        for row, picture in zip(vectors, pictures, strict=True):
            bins = (picture.reshape(-1, 3).astype(int) // 64) @ (16, 4, 1)
            row[:] = np.sqrt(np.bincount(bins, minlength=self.dimension) / len(bins))
        return vectors


class StubStore(ModelStore):
    """A store in which `stub_det` and `stub_rec` are installed."""

    def __init__(self) -> None:
        super().__init__(Path("stub-models"))

    def names(self) -> list[str]:
        """Both names."""
        return ["stub_det", "stub_rec"]

    def installed(self) -> list[InstalledModel]:
        """Both stubs."""
        return [self.get("stub_det"), self.get("stub_rec")]

    def get(self, name: str) -> InstalledModel:
        """A stub by name; ModelUnavailable for every other name."""
        if name not in ("stub_det", "stub_rec"):
            raise ModelUnavailable(f"The model {name} is not installed on this machine.")
        detector = name == "stub_det"
        return InstalledModel(
            name=name,
            role="detector" if detector else "embedder",
            paddlex_name=name,
            directory=self.root / name,
            digest=hashlib.sha256(name.encode()).hexdigest(),
            dimension=None if detector else StubEmbedder.dimension,
            preprocessing={},
            files={},
            origin={"stub": name},
        )


def stub_runtime() -> Runtime:
    """A Runtime with the stubs in the place of networks, on the CPU."""
    return Runtime(
        StubStore(),
        Device("cpu"),
        threads=1,
        load_detector=lambda installed, device, **options: StubDetector(),
        load_embedder=lambda installed, device, **options: StubEmbedder(),
    )
