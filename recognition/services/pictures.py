"""Pictures to look at: an answer drawn over its question, a thumbnail."""

from __future__ import annotations

from typing import cast

from recognition import drawing, images
from recognition.drawing import AnnotatedBox, Kind
from recognition.models import RecognitionQuery
from recognition.services import files


def annotated(query: RecognitionQuery) -> bytes:
    """JPEG of the picture asked about with a box and the best label of every detection."""
    boxes = []
    for detection in query.detections.prefetch_related("matches"):
        best = next(iter(detection.matches.all()), None)
        kind = cast("Kind", detection.status)
        text = f"{best.label} {best.score:.2f}" if best else "?"
        boxes.append(
            AnnotatedBox(detection.x1, detection.y1, detection.x2, detection.y2, text, kind)
        )
    pixels = images.decode(files.read(query.file.name))
    return drawing.to_jpeg(drawing.annotate(pixels, boxes))


def thumbnail(name: str, side: int) -> bytes:
    """JPEG of a stored picture, at most `side` pixels wide and high."""
    return images.thumbnail(files.read(name), side)
