from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from pytest import approx

from recognition.engine.types import Box

picture = np.arange(40 * 60 * 3, dtype=np.int64).astype(np.uint8).reshape(40, 60, 3)
corner = st.floats(-100, 200, allow_nan=False)


@given(corner, corner, corner, corner)
def test_a_crop_is_never_empty(x1, y1, x2, y2):
    height, width, channels = Box(x1, y1, x2, y2, 0.5).crop(picture).shape
    assert 1 <= height <= 40
    assert 1 <= width <= 60
    assert channels == 3


@given(st.integers(0, 58), st.integers(0, 38), st.data())
def test_corners_are_cut_to_integers_as_paddlex_does(x1, y1, data):
    x2 = data.draw(st.integers(x1 + 1, 60))
    y2 = data.draw(st.integers(y1 + 1, 40))
    box = Box(x1 + 0.9, y1 + 0.9, min(x2 + 0.9, 60), min(y2 + 0.9, 40), 0.5)
    assert np.array_equal(box.crop(picture), picture[y1:y2, x1:x2])


def test_the_whole_picture_has_score_0():
    whole = Box.whole(picture)
    assert (whole.x1, whole.y1, whole.x2, whole.y2, whole.score) == (0, 0, 60, 40, 0)
    assert np.array_equal(whole.crop(picture), picture)
    assert whole.area == 2400


def test_iou_is_the_shared_part():
    left, right = Box(0, 0, 10, 10, 1), Box(5, 0, 15, 10, 1)
    assert left.iou(right) == approx(50 / 150)
    assert left.iou(left) == 1
    assert left.iou(Box(10, 0, 20, 10, 1)) == 0
