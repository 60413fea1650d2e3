"""How networks are tried: two pictures, and how much two networks differ about them."""

from __future__ import annotations

from typing import Any

import numpy as np

from recognition.engine.types import Pixels


def trial_pictures() -> list[Pixels]:
    """Two different pictures of different size, the same on every machine."""
    y, x = np.mgrid[:240, :320]
    shelf = np.stack([x * 255 // 319, y * 255 // 239, (x + y) % 256], axis=2).astype(np.uint8)
    shelf[60:180, 100:220] = (220, 40, 40)
    shelf[90:150, 120:200] = (250, 250, 240)
    y, x = np.mgrid[:200, :200]
    disc = np.full((200, 200, 3), 235, np.uint8)
    disc[(x - 100) ** 2 + (y - 90) ** 2 < 60**2] = (40, 120, 60)
    disc[(x // 8 % 2 == 0) & (y > 150)] = (30, 30, 90)
    return [shelf, disc]


def disagreement(one: Any, other: Any) -> str:
    """How the answers of two networks to the trial pictures differ; empty when they do not.

    Engines that agree (cosine > 0.9999, boxes IoU > 0.99) make vectors that may stand side by side.
    """
    pictures = trial_pictures()
    if one.installed.role == "embedder":
        if one.dimension != other.dimension:
            return f"{other.dimension} numbers a picture instead of {one.dimension}"
        cosine = float((one.embed(pictures) * other.embed(pictures)).sum(axis=1).min())
        return "" if cosine > 0.9999 else f"a vector is only {cosine:.4f} like the one expected"
    found = [network.detect(pictures, threshold=0.3) for network in (one, other)]
    for expected, boxes in zip(*found, strict=True):
        # The same boxes, up to one at the edge of the threshold that only one of them sees.
        best = [max((box.iou(also) for also in boxes), default=0.0) for box in expected]
        if any(overlap <= 0.99 for overlap in best if overlap) or abs(
            len(boxes) - len(expected)
        ) > max(1, len(expected) // 20):
            return f"boxes differ: {expected[:3]} were expected, {boxes[:3]} found"
    return ""
