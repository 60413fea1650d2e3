"""Answers drawn over the picture that was asked about, and the lettering they need.

PaddleX draws the same boxes and top-1 labels but fetches its font from the network at first use;
here the font is Noto Sans CJK from the package `noto-cjk-sans-otc` (SIL Open Font License 1.1).
"""

from __future__ import annotations

import io
import mimetypes
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path, PurePath
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from recognition.errors import BadInput, SetupError

Pixels = npt.NDArray[np.uint8]
Kind = Literal["match", "ambiguous", "unknown"]

FONT_PACKAGE = "noto_cjk_sans_otc"
FONT_FILE = "NotoSansCJK-Regular.ttc"
# Faces inside the collection differ in how shared characters are drawn; 2 is simplified Chinese.
FONT_FACE = 2

# Told apart by lightness as well as hue, so that colour-blind readers see the three kinds too.
COLOURS: dict[Kind, str] = {"match": "#0b7a3b", "ambiguous": "#f2a900", "unknown": "#5f6b7a"}
INK: dict[Kind, str] = {"match": "#ffffff", "ambiguous": "#1d1500", "unknown": "#ffffff"}

_ELLIPSIS = "…"

_Rect = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class AnnotatedBox:
    """One box to draw: corners in pixels of the picture (x to the right, y down), what to write on
    its plate (usually label and score; may be empty), and how sure the answer is."""

    x1: float
    y1: float
    x2: float
    y2: float
    text: str
    kind: Kind = "match"


def annotate(picture: Pixels | Image.Image, boxes: Sequence[AnnotatedBox]) -> Image.Image:
    """A copy of `picture` (RGB uint8 of shape (H, W, 3), or a PIL image) with `boxes` over it.

    Corners outside the frame are moved to its edge, a plate never leaves the frame, and text too
    long for the frame ends in an ellipsis. Line width and letters grow with the picture.

    Raises BadInput for pixels of another shape or type, corners that are not numbers or a kind
    nobody knows; SetupError when the font package is missing.
    """
    image = _copy(picture)
    draw = ImageDraw.Draw(image)
    line = max(2, round(max(image.size) * 0.004))
    letters = font(max(11, round(min(max(image.size) * 0.024, min(image.size) * 0.06))))
    rectangles = [_inside(box, image.size) for box in boxes]
    for box, rectangle in zip(boxes, rectangles, strict=True):
        # The stroke grows inwards, so a box at the edge of the frame keeps all four sides.
        draw.rectangle(rectangle, outline=COLOURS[box.kind], width=line)
    plates: list[_Rect] = []
    for box, rectangle in zip(boxes, rectangles, strict=True):
        if text := _one_line(box.text):
            plates.append(_plate(image, text, rectangle, letters, line, box.kind, plates))
    return image


def to_jpeg(image: Image.Image, quality: int = 90) -> bytes:
    """`image` as a JPEG file; `quality` is Pillow's scale of 1 to 95."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()


def saved_picture_name(input_path: str | PurePath) -> str:
    """Name of the annotated picture of one input, as PaddleX's `save_to_img(directory)` has it:
    `{stem}_res{suffix}`, with `.png` where the input's suffix is not that of a picture."""
    path = PurePath(input_path)
    kind, _ = mimetypes.guess_type(path.name)
    return f"{path.stem}_res{path.suffix if (kind or '').startswith('image/') else '.png'}"


def saved_json_name(input_path: str | PurePath) -> str:
    """Name of the result file of one input: `{stem}.json`."""
    return f"{PurePath(input_path).stem}.json"


@lru_cache(maxsize=1)
def font_file() -> Path:
    """Where the installed package keeps Noto Sans CJK (Chinese, Japanese, Korean, Latin, Greek,
    Cyrillic). Raises SetupError when the package is missing or incomplete."""
    try:
        path = Path(str(resources.files(FONT_PACKAGE) / FONT_FILE))
    except ModuleNotFoundError as error:
        raise SetupError(
            "The font for labels is not installed: the package noto-cjk-sans-otc is missing. "
            "Install the requirements again: pip install -r requirements.txt"
        ) from error
    if not path.is_file():
        raise SetupError(
            f"The package noto-cjk-sans-otc is damaged: {FONT_FILE} is not in it. "
            "Install it again: pip install --force-reinstall noto-cjk-sans-otc"
        )
    return path


@lru_cache(maxsize=64)
def font(size: int) -> ImageFont.FreeTypeFont:
    """The label font at `size` pixels, loaded once per size."""
    return ImageFont.truetype(font_file(), size, index=FONT_FACE)


def _copy(picture: Pixels | Image.Image) -> Image.Image:
    if isinstance(picture, Image.Image):
        # convert() returns a copy already, except when there is nothing to convert
        return picture.copy() if picture.mode == "RGB" else picture.convert("RGB")
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise BadInput(
            f"A picture to draw on is RGB uint8 of shape (H, W, 3), not {picture.dtype} of shape "
            f"{picture.shape}. Decode it with recognition.images first."
        )
    return Image.fromarray(picture)


def _inside(box: AnnotatedBox, size: tuple[int, int]) -> _Rect:
    if box.kind not in COLOURS:
        raise BadInput(f"A box is one of {', '.join(COLOURS)}, not {box.kind!r}.", field="kind")
    corners = np.array([box.x1, box.y1, box.x2, box.y2], dtype=np.float64)
    if not np.isfinite(corners).all():
        raise BadInput(f"The corners of a box must be finite numbers, not {corners.tolist()}.")
    width, height = size
    x1, x2 = sorted(np.clip(corners[[0, 2]], 0, width - 1).round().astype(int).tolist())
    y1, y2 = sorted(np.clip(corners[[1, 3]], 0, height - 1).round().astype(int).tolist())
    return x1, y1, x2, y2


def _one_line(text: str) -> str:
    """Line breaks and other control characters as spaces: a plate has one line."""
    shown = (" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in text)
    return " ".join("".join(shown).split())


def _plate(
    image: Image.Image,
    text: str,
    box: _Rect,
    letters: ImageFont.FreeTypeFont,
    line: int,
    kind: Kind,
    taken: Sequence[_Rect],
) -> _Rect:
    """Draw the plate of one box and say where it went."""
    pad = max(2, line)
    ascent, descent = letters.getmetrics()
    text = _shortened(text, letters, image.width - 2 * pad)
    width = min(image.width, round(letters.getlength(text)) + 2 * pad)
    height = min(image.height, ascent + descent)
    x, y = _place(box, (width, height), image.size, taken)
    # Its own small picture keeps every stroke of the letters inside the plate.
    plate = Image.new("RGB", (width, height), COLOURS[kind])
    ImageDraw.Draw(plate).text((pad, 0), text, fill=INK[kind], font=letters)
    image.paste(plate, (x, y))
    return x, y, x + width, y + height


def _shortened(text: str, letters: ImageFont.FreeTypeFont, room: int) -> str:
    if letters.getlength(text) <= room:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if letters.getlength(text[:middle] + _ELLIPSIS) <= room:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + _ELLIPSIS


def _place(
    box: _Rect, size: tuple[int, int], frame: tuple[int, int], taken: Sequence[_Rect]
) -> tuple[int, int]:
    """The first of the usual places that is free; the least covered one when none is."""
    x1, y1, x2, y2 = box
    width, height = size
    middle = (y1 + y2 - height) // 2
    wanted = [
        (x, y)
        for y in (y1 - height, y1, y2 + 1, y2 - height + 1, middle, y1 + height, y2 - 2 * height)
        for x in (x1, x2 - width + 1)
    ]
    places = [
        (max(0, min(x, frame[0] - width)), max(0, min(y, frame[1] - height))) for x, y in wanted
    ]
    return min(places, key=lambda place: sum(_overlap((*place, *size), other) for other in taken))


def _overlap(plate: _Rect, other: _Rect) -> int:
    x, y, width, height = plate
    across = min(x + width, other[2]) - max(x, other[0])
    down = min(y + height, other[3]) - max(y, other[1])
    return max(0, across) * max(0, down)
