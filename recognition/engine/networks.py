"""Detector and embedder: predictors of PaddleX behind the engine's protocols.

Pictures are RGB outside and turned round here. What a network answers is checked; paddlex itself is
touched in ppshitu.py only.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np

from recognition.engine.devices import Device
from recognition.engine.engines import Engine
from recognition.engine.installed import InstalledModel
from recognition.engine.trial import trial_pictures
from recognition.engine.types import Box, Pixels, Vectors
from recognition.errors import BadInput, EngineFailed


class _Network:
    """One PaddleX predictor. It is not thread-safe (4 threads sharing one got wrong vectors), so
    every call holds its lock.

    The predictor's `process` is called with one batch at a time instead of its public `predict`,
    which hands the feature matrix of the whole batch to each picture of it (PaddleX 3.5 to 3.7)
    and changes numpy's print options in the whole process with every result.
    """

    def __init__(
        self, predictor: Any, installed: InstalledModel, engine: Engine, device: Device
    ) -> None:
        self.engine = engine.name
        self.device = device
        self.installed = installed
        self._predictor = predictor
        self._lock = Lock()

    def _answers(
        self, pictures: Sequence[Pixels], batch: int, key: str, **options: Any
    ) -> list[Any]:
        """What the predictor says about each batch, in order: the `key` of its answers.

        The whole of an answer holds the pictures, too, turned round.
        """
        import cv2

        for number, picture in enumerate(pictures):
            if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
                raise BadInput(
                    f"Picture {number} has shape {picture.shape} and type {picture.dtype}; the "
                    "engine takes (height, width, 3) uint8, RGB."
                )
            if picture.size == 0:
                raise BadInput(f"Picture {number} is empty ({picture.shape}).")
        sampler = self._predictor.batch_sampler
        answers = []
        for start in range(0, len(pictures), batch):
            part = pictures[start : start + batch]
            bgr = [cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) for picture in part]
            with self._lock:
                sampler.batch_size = batch
                answers += [self._predictor.process(one, **options)[key] for one in sampler(bgr)]
        return answers


class PaddleXDetector(_Network):
    """A main-body detector."""

    def detect(self, pictures: Sequence[Pixels], *, threshold: float) -> list[list[Box]]:
        """Boxes with score > `threshold` of each picture, best first.

        Corners lie inside the picture; boxes without area are dropped (both by PaddleX). Raises
        EngineFailed when the network answers with numbers that are not finite.
        """
        # PaddleX filters by a threshold only if it is a float: 0, 1 or a numpy number keep all.
        # One picture at a time: the NMS in an ONNX file is made for that, and CPUs do not mind.
        answers = self._answers(pictures, 1, "boxes", threshold=float(threshold))
        return [self._boxes(boxes) for [boxes] in answers]

    def _boxes(self, found: Sequence[dict[str, Any]]) -> list[Box]:
        boxes = [
            Box(*map(float, (*box["coordinate"], box["score"])))  # numpy numbers and ints
            for box in found
        ]
        for box in boxes:
            if not np.isfinite((box.x1, box.y1, box.x2, box.y2, box.score)).all():
                raise EngineFailed(
                    f"The detector {self.installed.name} gave a box that is not finite ({box}) on "
                    f"{self.engine}. Try another engine with SHITU_ENGINE."
                )
        # Best first, as Paddle's and onnxruntime's NMS answer; OpenVINO's does not.
        return sorted((box for box in boxes if box.area > 0), key=lambda box: -box.score)

    def self_test(self) -> None:
        """Raise EngineFailed unless the answers about two pictures make sense."""
        pictures = trial_pictures()
        for picture, boxes in zip(pictures, self.detect(pictures, threshold=0.0), strict=True):
            height, width = picture.shape[:2]
            for box in boxes:
                inside = 0 <= box.x1 < box.x2 <= width and 0 <= box.y1 < box.y2 <= height
                if not inside or not 0 <= box.score <= 1:
                    raise EngineFailed(f"impossible box {box} in a picture of {width}x{height}")


class PaddleXEmbedder(_Network):
    """An embedder. `dimension` is measured by the self-test."""

    dimension: int = 0

    def embed(self, pictures: Sequence[Pixels]) -> Vectors:
        """One unit vector per picture, (N, dimension) float32; all of them are one batch.

        Raises EngineFailed when a vector is not finite or not of length 1 (PaddleX divides by the
        length without looking, so a zero vector becomes NaN).
        """
        if not pictures:
            return np.empty((0, self.dimension), np.float32)
        with np.errstate(divide="ignore", invalid="ignore"):  # told below, with the picture
            answers = self._answers(pictures, len(pictures), "feature")
        # Stacked, a matrix (as today) and a list of vectors (when PaddleX mends it) are the same.
        vectors = np.concatenate([np.stack(list(features)) for features in answers])
        if vectors.ndim != 2 or len(vectors) != len(pictures):
            raise EngineFailed(
                f"The embedder {self.installed.name} answered {len(pictures)} pictures with an "
                f"array of shape {vectors.shape}; one vector for each was expected."
            )
        lengths = np.linalg.norm(vectors, axis=1)
        wrong = np.flatnonzero(~(np.abs(lengths - 1) < 1e-3))  # NaN is wrong, too
        if wrong.size:
            raise EngineFailed(
                f"The embedder {self.installed.name} gave no usable vector for picture "
                f"{', '.join(map(str, wrong))} of {len(pictures)} (length {lengths[wrong[0]]}) on "
                f"{self.engine}."
            )
        if self.dimension and vectors.shape[1] != self.dimension:
            raise EngineFailed(
                f"The embedder {self.installed.name} gave {vectors.shape[1]} numbers a picture "
                f"instead of {self.dimension}: its files are not the ones it was installed with."
            )
        return vectors.astype(np.float32, copy=False)

    def self_test(self) -> None:
        """Raise EngineFailed unless two pictures in one batch get the vectors they get alone."""
        pictures = trial_pictures()
        together = self.embed(pictures)
        alone = np.concatenate([self.embed([picture]) for picture in pictures])
        if (together * alone).sum(axis=1).min() < 0.999:
            raise EngineFailed("a picture gets another vector in a batch than alone")
        if together[0] @ together[1] > 0.9999:
            raise EngineFailed("two different pictures get the same vector")
        self.dimension = self.installed.dimension or together.shape[1]
        if self.dimension != together.shape[1]:
            raise EngineFailed(f"{together.shape[1]} numbers a picture instead of {self.dimension}")
