from __future__ import annotations

import weakref
from types import SimpleNamespace

import numpy as np
import pytest

from recognition.engine.engines import ENGINES
from recognition.engine.loading import load_detector
from recognition.engine.networks import PaddleXDetector
from recognition.engine.trial import trial_pictures
from recognition.engine.types import Box
from tests.engine.conftest import CPU


@pytest.fixture(scope="module")
def detector(starter_store):
    return load_detector(starter_store.get("starter_det"), CPU)


def two_things():
    """Two discs on a plain ground, and where they are."""
    picture = np.full((300, 600, 3), 225, np.uint8)
    y, x = np.mgrid[:300, :600]
    picture[(x - 150) ** 2 + (y - 150) ** 2 < 90**2] = (180, 30, 30)
    picture[(x - 450) ** 2 + (y - 150) ** 2 < 90**2] = (30, 60, 150)
    return picture, [Box(60, 60, 240, 240, 1), Box(360, 60, 540, 240, 1)]


def test_it_finds_both_things_in_pixels_of_the_picture(detector):
    picture, places = two_things()
    [boxes] = detector.detect([picture], threshold=0.5)
    for place in places:
        assert max(place.iou(box) for box in boxes) > 0.7


def test_pictures_of_different_size_keep_their_order(detector):
    picture, _ = two_things()
    pictures = [picture, picture[:, 300:], picture[::2, ::2]]
    together = detector.detect(pictures, threshold=0.3)
    assert together == [detector.detect([one], threshold=0.3)[0] for one in pictures]


def test_boxes_lie_inside_and_scores_above_the_threshold(detector):
    for picture, boxes in zip(
        trial_pictures(), detector.detect(trial_pictures(), threshold=0.1), strict=True
    ):
        height, width = picture.shape[:2]
        for box in boxes:
            assert 0 <= box.x1 < box.x2 <= width and 0 <= box.y1 < box.y2 <= height
            assert 0.1 < box.score <= 1


@pytest.mark.parametrize("threshold", [1, 1.0, np.float32(1)])
def test_a_threshold_of_any_kind_of_number_counts(detector, threshold):
    """PaddleX keeps every box when it is not a Python float."""
    assert detector.detect(trial_pictures(), threshold=threshold) == [[], []]
    assert any(detector.detect(trial_pictures(), threshold=type(threshold)(0)))


def test_in_a_plain_picture_nothing_is_detected(runtime):
    plain = np.full((50, 80, 3), 127, np.uint8)
    assert runtime.detect("starter_det", [plain], threshold=0.99) == [[]]


@pytest.mark.parametrize("engine", [engine.name for engine in ENGINES if engine.exact])
def test_all_engines_agree(starter_store, detector, engine):
    other = load_detector(starter_store.get("starter_det"), CPU, engine=engine)
    assert other.engine == engine
    pictures = [*trial_pictures(), two_things()[0]]
    found = other.detect(pictures, threshold=0.1)
    for boxes, expected in zip(found, detector.detect(pictures, threshold=0.1), strict=True):
        assert len(boxes) == len(expected)
        for box, twin in zip(boxes, expected, strict=True):
            assert box.iou(twin) > 0.99
            assert box.score == pytest.approx(twin.score, abs=1e-3)


def test_of_many_large_pictures_only_one_is_turned_round_at_a_time():
    turned: list[weakref.ref] = []

    def process(batch, threshold):
        turned.extend(weakref.ref(picture) for picture in batch)
        there.append(sum(made() is not None for made in turned))
        return {"boxes": [[] for _ in batch], "input_img": batch}  # as PaddleX does

    there: list[int] = []
    predictor = SimpleNamespace(batch_sampler=Sampler(), process=process)
    detector = PaddleXDetector(predictor, SimpleNamespace(name="x"), ENGINES[0], CPU)
    assert detector.detect([np.zeros((20, 30, 3), np.uint8)] * 6, threshold=0.5) == [[]] * 6
    assert max(there) <= 2, "the next is made before the last is gone"


class Sampler:
    """As PaddleX's, for arrays."""

    batch_size = 1

    def __call__(self, pictures):
        for start in range(0, len(pictures), self.batch_size):
            yield pictures[start : start + self.batch_size]
