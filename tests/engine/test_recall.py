"""Real photos through the starter models: the figures that a change must not lose."""

from __future__ import annotations

import numpy as np
import pytest

from recognition.engine.types import Box


@pytest.fixture(scope="module")
def gallery(runtime, grocery):
    photos = grocery("gallery")
    vectors = runtime.embed("starter_rec", [pixels for pixels, _ in photos])
    return vectors, np.array([label for _, label in photos])


def recall(vectors, labels, gallery, k):
    known, names = gallery
    nearest = np.argsort(-(vectors @ known.T), axis=1)[:, :k]
    return (names[nearest] == labels[:, None]).any(axis=1).mean()


def test_whole_photos(runtime, grocery, gallery):
    queries = grocery("queries")
    labels = np.array([label for _, label in queries])
    vectors = runtime.embed("starter_rec", [pixels for pixels, _ in queries])
    assert recall(vectors, labels, gallery, 1) >= 0.53
    assert recall(vectors, labels, gallery, 5) >= 0.83
    assert recall(vectors, np.roll(labels, 7), gallery, 1) < 0.1, "wrong labels are seen"


def test_the_best_box_of_each_photo(runtime, grocery, gallery):
    queries = grocery("queries")
    labels = np.array([label for _, label in queries])
    pictures = [pixels for pixels, _ in queries]
    found = [
        boxes or [Box.whole(picture)]
        for picture, boxes in zip(
            pictures, runtime.detect("starter_det", pictures, threshold=0.5), strict=True
        )
    ]
    assert 1.4 < np.mean([len(boxes) for boxes in found]) < 2.0
    crops = [
        max(boxes, key=lambda box: box.score).crop(picture)
        for boxes, picture in zip(found, pictures, strict=True)
    ]
    assert recall(runtime.embed("starter_rec", crops), labels, gallery, 1) >= 0.53
