"""Pictures nobody took: things on grounds, with their boxes.

Half of the things carry a piece of a real photo, and half of the grounds are a blurred one, where
photos are at hand; the rest is rendered.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from recognition.engine.types import Box, Pixels

Array = NDArray[Any]
Random = np.random.Generator


def photos(folder: Path, listing: str, classes: slice) -> list[Pixels]:
    """The photos that `folder/listing` names (lines `path label`) of a slice of the labels."""
    if not (folder / listing).is_file():
        return []
    lines = (folder / listing).read_text(encoding="utf-8").splitlines()
    pairs = [line.split(" ", 1) for line in lines]
    kept = set(sorted({label for _, label in pairs})[classes])
    read = [cv2.imread(str(folder / path)) for path, label in pairs if label in kept]
    return [
        np.ascontiguousarray(bgr[..., ::-1]).astype(np.uint8) for bgr in read if bgr is not None
    ]


def composite(random: Random, real: Sequence[Pixels], *, most: int = 6) -> tuple[Pixels, list[Box]]:
    """A picture and the boxes of its 1 to `most` things."""
    height, width = (int(side) for side in random.integers(300, 520, 2))
    canvas: Array = _ground(random, real, height, width).astype(np.float32)
    count = int(random.integers(1, most + 1))
    largest = min(height, width) * (0.85 if count == 1 else 0.9 / np.sqrt(count))
    boxes: list[Box] = []
    for _ in range(8 * count):  # some find no room
        thing = _thing(random, real, int(random.uniform(0.55, 1) * largest))
        rows, columns = thing.shape[:2]
        if len(boxes) == count or rows >= height or columns >= width:
            continue
        y, x = int(random.integers(height - rows)), int(random.integers(width - columns))
        box = Box(x, y, x + columns, y + rows, 1.0)
        if any(box.iou(other) > 0.08 for other in boxes):
            continue
        boxes.append(box)
        part, opaque = box.crop(canvas), thing[..., 3:]
        shade = cv2.GaussianBlur(thing[..., 3], (0, 0), 5)[..., None] * random.uniform(0, 0.5)
        part[:] = part * (1 - shade) * (1 - opaque) + thing[..., :3] * opaque
    canvas = canvas * random.uniform(0.7, 1.1)
    canvas += random.normal(0, random.uniform(0, 6), canvas.shape)
    if random.random() < 0.3:
        canvas = cv2.GaussianBlur(canvas, (0, 0), random.uniform(0.4, 1.2))
    return canvas.clip(0, 255).astype(np.uint8), boxes


def _ground(random: Random, real: Sequence[Pixels], height: int, width: int) -> Array:
    """Blurred photo, or a coloured slope with grain and some boards."""
    if real and random.random() < 0.5:
        ground: Array = cv2.resize(_piece(random, real), (width, height))
        return cv2.GaussianBlur(ground, (0, 0), random.uniform(4, 20))
    ground = cv2.resize(random.uniform(0, 255, (2, 2, 3)), (width, height))
    grain = random.normal(0, 12, random.integers(4, 60, 2))
    ground = (ground + cv2.resize(grain, (width, height))[..., None]).clip(0, 255)
    for _ in range(random.integers(0, 6)):
        y, drop = int(random.integers(height)), int(random.integers(-20, 20))
        cv2.line(ground, (0, y), (width, y + drop), _colour(random), int(random.integers(1, 12)))
    return ground


def _piece(random: Random, real: Sequence[Pixels]) -> Pixels:
    """Half to all of one of the photos."""
    photo = real[int(random.integers(len(real)))]
    rows, columns = (int(side * random.uniform(0.5, 1)) for side in photo.shape[:2])
    y = int(random.integers(photo.shape[0] - rows + 1))
    x = int(random.integers(photo.shape[1] - columns + 1))
    return photo[y : y + rows, x : x + columns]


def _colour(random: Random) -> tuple[float, float, float]:
    red, green, blue = random.uniform(0, 255, 3)
    return red, green, blue


def _printed(random: Random, rows: int, columns: int) -> Array:
    """What a designer puts on a pack: bands, a disc, words."""
    face = np.full((rows, columns, 3), _colour(random))
    for _ in range(random.integers(1, 4)):
        top, high = random.integers(0, rows), random.integers(rows // 12 + 1, rows // 3 + 2)
        face[top : top + high] = _colour(random)
    centre = int(random.integers(columns)), int(random.integers(rows))
    cv2.circle(face, centre, int(random.integers(4, columns // 3 + 6)), _colour(random), -1)
    for _ in range(random.integers(1, 5)):
        word = "".join(random.choice(list("AEIOULNRSTMKD"), random.integers(3, 9)))
        place = int(random.integers(columns // 3 + 1)), int(random.integers(rows))
        size = columns / 160 * random.uniform(0.4, 1.4)
        cv2.putText(face, word, place, cv2.FONT_HERSHEY_DUPLEX, size, _colour(random), 1)
    return face


def _thing(random: Random, real: Sequence[Pixels], size: int) -> Array:
    """A pack, bottle or fruit (rows, columns, RGB 0..255 + opacity 0..1), turned and cut close."""
    kind = random.choice(["pack", "bottle", "fruit"])
    slim, wide = {"pack": (0.45, 1), "bottle": (0.28, 0.6), "fruit": (0.6, 1)}[kind]
    rows, columns = max(size, 24), max(int(size * random.uniform(slim, wide)), 12)
    mask, face = np.zeros((rows, columns)), _printed(random, rows, columns)
    if kind == "pack":
        mask[:] = 1
    elif kind == "bottle":
        neck, shoulder = columns * random.uniform(0, 0.35), int(rows * random.uniform(0.05, 0.35))
        mask[shoulder:] = mask[:, int(neck) : columns - int(neck)] = 1
        face[: int(rows * random.uniform(0.3, 0.5))] = _colour(random)
    else:
        centre = columns // 2, rows // 2
        cv2.ellipse(mask, centre, centre, 0, 0, 360, (1.0,), -1)
        blots = random.normal(0, 25, (5, 5, 3)) + _colour(random)
        face = cv2.resize(blots, (columns, rows), interpolation=cv2.INTER_CUBIC)
    if real and random.random() < 0.5:
        face = cv2.resize(_piece(random, real), (columns, rows)).astype(float)
    across, down = np.linspace(-1, 1, columns)[None, :], np.linspace(-1, 1, rows)[:, None]
    light = 1 + random.uniform(-0.2, 0.2) * across + random.uniform(-0.2, 0.2) * down
    if kind != "pack" or random.random() < 0.4:
        light = light * (1.05 - 0.45 * across**2)  # round, so darker to the sides
    thing = np.dstack([(face * light[..., None]).clip(0, 255), mask]).astype(np.float32)
    side = int(np.hypot(rows, columns)) + 2
    turn: Array = cv2.getRotationMatrix2D((columns / 2, rows / 2), random.normal(0, 9), 1)
    turn[:, 2] += np.array([side - columns, side - rows]) / 2
    turned: Array = cv2.warpAffine(thing, turn, (side, side))
    ys, xs = np.nonzero(turned[..., 3] > 0.5)
    return turned[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
