"""The values that pass between the engine and everybody else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""A picture: (height, width, 3), uint8, RGB."""

Vectors = NDArray[np.float32]
"""Embeddings: (N, dimension), float32, every row of length 1."""


@dataclass(frozen=True, slots=True)
class Box:
    """A region of a picture in its pixels, left, top, right, bottom, and how sure the detector is.

    `score` lies in 0..1; 0 means that nothing was detected and the box is the whole picture.
    """

    x1: float
    y1: float
    x2: float
    y2: float
    score: float

    @classmethod
    def at(cls, corners: Sequence[float]) -> Box:
        """A box that somebody gave, as left, top, right, bottom: score 1."""
        left, top, right, bottom = corners
        return cls(float(left), float(top), float(right), float(bottom), 1.0)

    @classmethod
    def whole(cls, pixels: Pixels) -> Box:
        """The whole picture with score 0: what PaddleX answers when it detects nothing."""
        height, width = pixels.shape[:2]
        return cls(0.0, 0.0, float(width), float(height), 0.0)

    @property
    def area(self) -> float:
        """Square pixels, 0 for a box turned inside out."""
        return max(0.0, self.x2 - self.x1) * max(0.0, self.y2 - self.y1)

    def iou(self, other: Box) -> float:
        """Intersection over union with `other`, 0..1."""
        width = min(self.x2, other.x2) - max(self.x1, other.x1)
        height = min(self.y2, other.y2) - max(self.y1, other.y1)
        if width <= 0 or height <= 0:
            return 0.0
        return width * height / (self.area + other.area - width * height)

    def crop(self, pixels: Pixels) -> Pixels:
        """The part of `pixels` inside the box: a view, at least one pixel in each direction.

        Corners are cut to integers as PaddleX's `CropByBoxes` does. It fails on a box narrower
        than a pixel, so here the corners are moved apart, and inside the picture, where needed.
        """
        height, width = pixels.shape[:2]
        left = min(max(int(self.x1), 0), width - 1)
        top = min(max(int(self.y1), 0), height - 1)
        right = max(min(int(self.x2), width), left + 1)
        bottom = max(min(int(self.y2), height), top + 1)
        return pixels[top:bottom, left:right]


class Detector(Protocol):
    """Finds the things worth recognising."""

    @property
    def engine(self) -> str: ...

    def detect(self, pictures: Sequence[Pixels], *, threshold: float) -> list[list[Box]]:
        """Boxes of each picture with score > `threshold` (0..1), best first."""
        ...


class Embedder(Protocol):
    """Turns pictures into comparable vectors."""

    @property
    def engine(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    def embed(self, pictures: Sequence[Pixels]) -> Vectors:
        """One unit vector per picture, (N, dimension) float32; raises EngineFailed."""
        ...
