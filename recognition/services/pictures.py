"""Pictures to look at: an answer drawn over its question, a thumbnail."""

from __future__ import annotations

from typing import cast

from recognition import drawing, images
from recognition.drawing import AnnotatedBox, Kind
from recognition.models import RecognitionQuery, ShownLabel
from recognition.services import files, queries


def annotated(query: RecognitionQuery, *, shown: str = ShownLabel.LABEL) -> bytes:
    """JPEG of the picture asked about with a box and the best label of every detection.

    `shown` (a ShownLabel) says what stands for the label; PaddleX clients get the catalogue's.
    """
    boxes = []
    for region in queries.answer_of(query, shown):
        text = "{} {:.2f}".format(*region.matches[0]) if region.matches else "?"
        x1, y1, x2, y2 = region.corners
        boxes.append(AnnotatedBox(x1, y1, x2, y2, text, cast("Kind", region.status)))
    pixels = images.decode(files.read(query.file.name))
    return drawing.to_jpeg(drawing.annotate(pixels, boxes))


def thumbnail(name: str, side: int) -> bytes:
    """JPEG of a stored picture, at most `side` pixels wide and high."""
    return images.thumbnail(files.read(name), side)
