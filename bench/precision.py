"""What int8 costs in accuracy and saves in time: float and quantised networks on labelled photos.

    python -m bench.precision --root DIR --json output/bench-precision.json

DIR holds `gallery.txt` and `queries.txt` (`path label` a line) and the photos. Gallery photos are
embedded whole. A question is asked whole, and through the detector, where the label of the box that
was recognised best counts, as on the pages. The twins are made from the demo's pictures where they
are not there yet, never from these photos. Milliseconds are processor time a picture of one thread.
"""

from __future__ import annotations

import argparse
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from bench import models, site
from recognition.engine.runtime import Runtime
from recognition.engine.store import ModelStore
from recognition.engine.types import Box
from recognition.gallery_list import Entry, read_gallery_list

FLOAT, INT8 = "float32", "int8"


def photos(root: Path, name: str) -> tuple[list[Any], list[str]]:
    """Pixels and labels of a list."""
    from recognition import images

    with (root / name).open("rb") as lines:
        entries = [one for one in read_gallery_list(lines) if isinstance(one, Entry)]
    decoded = [images.decode((root / entry.path).read_bytes()) for entry in entries]
    return decoded, [entry.label for entry in entries]


def best(vectors: Any, gallery: Any) -> tuple[Any, Any]:
    """For each vector the number of the nearest gallery photo and its score."""
    scores = vectors @ gallery.T
    nearest = scores.argmax(axis=1)
    return nearest, scores[np.arange(len(scores)), nearest]


def milliseconds(ask: Any, pictures: int) -> float:
    """Processor milliseconds a picture, the lowest of three runs."""
    spent = []
    for _ in range(3):
        before = time.process_time()
        ask()
        spent.append(time.process_time() - before)
    return round(1e3 * min(spent) / pictures, 2)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    models.add_argument(parser)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    pair = models.prepare(options.models)
    site.own_site(pair)
    site.quantised(pair)
    runtime = Runtime(ModelStore(pair.root), "cpu", threads=1, engine="openvino")
    gallery, gallery_labels = photos(options.root, "gallery.txt")
    asked, truth = photos(options.root, "queries.txt")
    names = np.array(gallery_labels)
    pairs = {precision: pair.ours(precision) for precision in (FLOAT, INT8)}
    result: dict[str, Any] = {"machine": site.machine(), "models": pair.name, "ms": {}, "rows": []}
    for precision, of in pairs.items():
        some = asked[:60]
        result["ms"][precision] = {
            "detector": milliseconds(
                lambda of=of, some=some: runtime.detect(of.detector, some, threshold=0.5), len(some)
            ),
            "embedder": milliseconds(
                lambda of=of, some=some: runtime.embed(of.embedder, some), len(some)
            ),
        }
        print(precision, result["ms"][precision], flush=True)
    known = {of: runtime.embed(pairs[of].embedder, gallery) for of in pairs}
    boxes = {
        of: [
            found or [Box.whole(picture)]
            for picture, found in zip(
                asked, runtime.detect(pairs[of].detector, asked, threshold=0.5), strict=True
            )
        ]
        for of in pairs
    }
    for embedder in pairs:
        nearest, _ = best(runtime.embed(pairs[embedder].embedder, asked), known[embedder])
        result["rows"].append(_row(None, embedder, (names[nearest] == truth).tolist()))
    for detector, embedder in product(pairs, pairs):
        crops = [
            box.crop(p) for p, found in zip(asked, boxes[detector], strict=True) for box in found
        ]
        nearest, scores = best(runtime.embed(pairs[embedder].embedder, crops), known[embedder])
        right, at = [], 0
        for found, label in zip(boxes[detector], truth, strict=True):
            here = slice(at, at + len(found))
            right.append(names[nearest[here][scores[here].argmax()]] == label)
            at = here.stop
        result["rows"].append(
            _row(detector, embedder, right) | {"boxes_a_photo": round(at / len(asked), 3)}
        )
    for row in result["rows"]:
        print(row, flush=True)
    if options.json:
        site.write(result, options.json)


def _row(detector: str | None, embedder: str, right: list[bool]) -> dict[str, Any]:
    return {
        "detector": detector or "none: whole photo",
        "embedder": embedder,
        "recall_at_1": round(float(np.mean(right)), 4),
        "questions": len(right),
    }


if __name__ == "__main__":
    main()
