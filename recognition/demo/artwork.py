"""What is printed on a pack: a layout of its motif and lettering, drawn flat."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFilter, ImageFont

from recognition.demo.motifs import MOTIFS, Brush
from recognition.demo.products import Pack
from recognition.drawing import font

# ImageDraw draws hard edges, so everything is drawn this many times larger and reduced.
FINE = 2


class Sheet:
    """One printed face; coordinates are shares of its width and height, radii of its `unit`."""

    def __init__(self, pack: Pack, width: int, height: int) -> None:
        self.pack = pack
        self.width, self.height = width * FINE, height * FINE
        # A round label can be wider than high: what is round must not outgrow its height.
        self.unit = min(self.width, 0.72 * self.height)
        self.image = Image.new("RGB", (self.width, self.height), pack.paper)
        self.draw = ImageDraw.Draw(self.image)

    def finished(self) -> Image.Image:
        return self.image.reduce(FINE)

    def area(
        self, x1: float, y1: float, x2: float, y2: float, fill: str, corner: float = 0
    ) -> None:
        box = (x1 * self.width, y1 * self.height, x2 * self.width, y2 * self.height)
        self.draw.rounded_rectangle(box, corner * self.unit, fill=fill)

    def disc(self, x: float, y: float, r: float, fill: str) -> None:
        x, y, r = x * self.width, y * self.height, r * self.unit
        self.draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)

    def motif(self, x: float, y: float, r: float, turn: float = 0.0) -> None:
        """The pack's own motif."""
        brush = Brush(self.draw, x * self.width, y * self.height, r * self.unit, turn)
        MOTIFS[self.pack.motif](brush, self.pack)

    def text(
        self,
        text: str,
        x: float,
        y: float,
        *,
        high: float,
        wide: float,
        fill: str,
        bold: float = 0.05,
        slant: float = 0.0,
        outline: str | None = None,
        alike: tuple[str, ...] = (),
    ) -> None:
        """Lettering centred at (x, y), as large as fits in `wide` x `high` shares of the face;
        `alike` are other lines that must fit at the same size."""
        glyphs = _lettering(text, wide * self.width, high * self.height, bold, alike)
        if slant:
            shift = slant * glyphs.height
            glyphs = glyphs.transform(
                (glyphs.width + round(abs(shift)), glyphs.height),
                Image.Transform.AFFINE,
                (1, slant, -max(0.0, shift), 0, 1, 0),
                Image.Resampling.BICUBIC,
            )
        at = (
            round(x * self.width - glyphs.width / 2),
            round(y * self.height - glyphs.height / 2),
        )
        if outline:
            edge = glyphs.filter(ImageFilter.MaxFilter(2 * max(2, self.width // 150) + 1))
            self.image.paste(outline, at, edge)
        self.image.paste(fill, at, glyphs)

    def column(self, text: str, x: float, y: float, *, high: float, wide: float, fill: str) -> None:
        """Chinese lettering from top to bottom, centred at (x, y)."""
        step = high / len(text)
        for k, glyph in enumerate(text):
            self.text(
                glyph, x, y - high / 2 + step * (k + 0.5), high=step * 0.9, wide=wide, fill=fill
            )


def _lettering(
    text: str, wide: float, high: float, bold: float, alike: tuple[str, ...]
) -> Image.Image:
    """Coverage mask (mode L) of one line of text, trimmed to its ink."""
    if (
        max(text) > "\u2e7f"
    ):  # Chinese strokes are close together: thicker ones would run into a blot
        bold *= 0.4

    def measured(line: str, size: int) -> tuple[ImageFont.FreeTypeFont, int, tuple[float, ...]]:
        letters, stroke = font(size), round(size * bold)
        return letters, stroke, letters.getbbox(line, stroke_width=stroke)

    size = 200.0
    for line in (text, *alike):
        _, _, box = measured(line, 64)
        size = min(size, 64 * wide / (box[2] - box[0]), 64 * high / (box[3] - box[1]))
    letters, stroke, box = measured(text, max(6, int(size)))
    mask = Image.new("L", (int(box[2] - box[0]) + 2, int(box[3] - box[1]) + 2))
    ImageDraw.Draw(mask).text(
        (1 - box[0], 1 - box[1]), text, fill=255, font=letters, stroke_width=stroke
    )
    return mask


def _names(s: Sheet, x: float, y: float, *, wide: float, high: float, fill: str) -> None:
    """The product's name, line under line, centred at (x, y)."""
    lines = s.pack.name
    step = high / len(lines)
    for k, line in enumerate(lines):
        middle = y - high / 2 + step * (k + 0.5)
        s.text(line, x, middle, wide=wide, high=step * 0.8, fill=fill, alike=lines)


def _band(s: Sheet) -> None:
    p = s.pack
    s.area(0, 0, 1, 0.3, p.accent)
    s.area(0, 0.3, 1, 0.325, p.second)
    s.text(p.brand, 0.5, 0.155, wide=0.8, high=0.17, fill=p.paper, bold=0.06)
    s.motif(0.5, 0.54, 0.26)
    _names(s, 0.5, 0.81, wide=0.82, high=0.19, fill=p.ink)
    s.area(0, 0.93, 1, 1, p.accent)
    s.text(p.size, 0.5, 0.963, wide=0.3, high=0.04, fill=p.paper, bold=0.03)


def _badge(s: Sheet) -> None:
    p = s.pack
    for k in range(28):
        a = k * 2 * np.pi / 28
        far = 1.6 * s.height
        cx, cy = s.width / 2, s.height * 0.42
        wedge = [(cx, cy)] + [
            (cx + far * float(np.cos(a + d)), cy + far * float(np.sin(a + d)))
            for d in (-0.056, 0.056)
        ]
        s.draw.polygon(wedge, fill=p.second)
    s.disc(0.5, 0.42, 0.42, p.ink)
    s.disc(0.5, 0.42, 0.395, p.accent)
    s.motif(0.5, 0.52, 0.19)
    s.text(p.brand, 0.5, 0.27, wide=0.58, high=0.11, fill=p.paper, bold=0.07, outline=p.ink)
    _names(s, 0.5, 0.84, wide=0.78, high=0.19, fill=p.ink)
    s.text(p.size, 0.5, 0.965, wide=0.25, high=0.035, fill=p.ink, bold=0.03)


def _diagonal(s: Sheet) -> None:
    p, w, h = s.pack, s.width, s.height
    s.draw.polygon([(0, h), (0, h * 0.78), (w, h * 0.38), (w, h)], fill=p.second)
    s.draw.polygon([(0, h * 0.78), (0, h * 0.72), (w, h * 0.32), (w, h * 0.38)], fill=p.accent)
    s.text(
        p.brand, 0.5, 0.17, wide=0.84, high=0.19, fill=p.ink, bold=0.07, slant=0.18, outline=p.paper
    )
    s.motif(0.5, 0.53, 0.3)
    s.area(0.08, 0.78, 0.92, 0.93, p.paper, corner=0.05)
    s.text(" ".join(p.name), 0.5, 0.855, wide=0.74, high=0.1, fill=p.ink)
    s.text(p.size, 0.8, 0.965, wide=0.25, high=0.035, fill=p.paper, bold=0.03)


def _stripes(s: Sheet) -> None:
    p = s.pack
    for k in range(6):
        s.area(k / 6, 0, (k + 0.5) / 6, 1, p.second)
    s.area(0.1, 0.1, 0.9, 0.56, p.ink, corner=0.06)
    s.area(0.12, 0.112, 0.88, 0.548, p.accent, corner=0.05)
    letters = _readable_on(p.accent, p.ink, p.second, p.paper)
    s.text(p.brand, 0.5, 0.22, wide=0.66, high=0.13, fill=letters, bold=0.06)
    _names(s, 0.5, 0.42, wide=0.62, high=0.2, fill=letters)
    s.disc(0.5, 0.77, 0.3, _readable_on(p.accent, p.paper, p.second))
    s.motif(0.5, 0.77, 0.24)
    s.area(0.3, 0.945, 0.7, 0.99, p.ink, corner=0.03)
    s.text(p.size, 0.5, 0.967, wide=0.3, high=0.032, fill=p.accent, bold=0.02)


def _readable_on(ground: str, *inks: str) -> str:
    """The ink that stands out most against the ground."""

    def lightness(colour: str) -> float:
        return float(np.dot(ImageColor.getrgb(colour)[:3], (0.3, 0.59, 0.11)))

    return max(inks, key=lambda ink: abs(lightness(ink) - lightness(ground)))


def _hero(s: Sheet) -> None:
    p = s.pack
    s.disc(0.5, 0.86, 0.66, p.second)
    s.text(p.brand, 0.5, 0.14, wide=0.82, high=0.17, fill=p.accent, bold=0.08, outline=p.paper)
    s.area(0, 0.255, 1, 0.27, p.accent)
    _names(s, 0.5, 0.38, wide=0.8, high=0.2, fill=p.ink)
    s.motif(0.5, 0.74, 0.4)
    s.disc(0.86, 0.93, 0.1, p.accent)
    s.text(p.size, 0.86, 0.93, wide=0.15, high=0.05, fill=p.paper, bold=0.03)


def _column(s: Sheet) -> None:
    p = s.pack
    s.area(0.6, 0, 0.94, 1, p.accent)
    s.area(0.57, 0, 0.585, 1, p.accent)
    if len(p.brand) <= 3:
        s.column(p.brand, 0.77, 0.34, high=0.5, wide=0.26, fill=p.paper)
    else:
        s.text(p.brand, 0.77, 0.3, wide=0.28, high=0.3, fill=p.paper)
    s.area(0.68, 0.72, 0.86, 0.92, p.second, corner=0.02)
    s.text(p.size.split()[0], 0.77, 0.79, wide=0.14, high=0.06, fill=p.ink, bold=0.03)
    s.text(p.size.split()[1], 0.77, 0.87, wide=0.1, high=0.04, fill=p.ink, bold=0.03)
    s.motif(0.29, 0.32, 0.26)
    _names(s, 0.29, 0.75, wide=0.48, high=0.26, fill=p.ink)


def _frame(s: Sheet) -> None:
    p = s.pack
    s.area(0.04, 0.03, 0.96, 0.97, p.accent, corner=0.06)
    s.area(0.06, 0.043, 0.94, 0.957, p.paper, corner=0.05)
    s.area(0.085, 0.06, 0.915, 0.94, p.accent, corner=0.04)
    s.area(0.095, 0.067, 0.905, 0.933, p.paper, corner=0.035)
    s.motif(0.5, 0.32, 0.25)
    s.text(p.brand, 0.5, 0.6, wide=0.7, high=0.13, fill=p.accent, bold=0.05, slant=0.12)
    s.area(0.2, 0.69, 0.8, 0.697, p.accent)
    _names(s, 0.5, 0.79, wide=0.66, high=0.15, fill=p.ink)
    s.text(p.size, 0.5, 0.9, wide=0.25, high=0.035, fill=p.ink, bold=0.02)


def _pattern(s: Sheet) -> None:
    p = s.pack
    step = 0.25 * s.unit
    for row in range(-1, round(s.height / step) + 2):
        for k in range(-1, round(s.width / step) + 2):
            x, y = (k + (row % 2) / 2 + 0.5) * step, (row + 0.5) * step
            s.motif(x / s.width, y / s.height, 0.1, turn=0.3 * (k - row))
    s.area(0, 0.3, 1, 0.72, p.ink)
    s.area(0, 0.315, 1, 0.705, p.accent)
    s.text(p.brand, 0.5, 0.41, wide=0.76, high=0.14, fill=p.paper, bold=0.07, outline=p.ink)
    names = " ".join(p.name)
    s.text(names, 0.5, 0.585, wide=0.8, high=0.12, fill=p.ink)
    s.text(p.size, 0.5, 0.675, wide=0.25, high=0.035, fill=p.ink, bold=0.02)


_LAYOUTS: dict[str, Callable[[Sheet], None]] = {
    "band": _band,
    "badge": _badge,
    "diagonal": _diagonal,
    "stripes": _stripes,
    "hero": _hero,
    "column": _column,
    "frame": _frame,
    "pattern": _pattern,
}


@lru_cache(maxsize=64)
def front(pack: Pack, width: int, height: int) -> Image.Image:
    """The printed front of a pack, RGB, `width` x `height` pixels. Shared: not to be drawn on."""
    sheet = Sheet(pack, width, height)
    _LAYOUTS[pack.layout](sheet)
    return sheet.finished()


@lru_cache(maxsize=64)
def side(pack: Pack, width: int, height: int) -> Image.Image:
    """The narrow side of a box: brand along it and the small print, RGB. Shared as `front`."""
    sheet = Sheet(pack, height, width)  # drawn lying, then turned
    sheet.area(0, 0, 1, 1, pack.accent)
    sheet.text(pack.brand, 0.27, 0.5, wide=0.4, high=0.4, fill=pack.paper, bold=0.06)
    sheet.area(0.54, 0.16, 0.94, 0.84, pack.paper)
    for k in range(6):
        sheet.area(0.57, 0.24 + 0.1 * k, 0.74 + 0.03 * (k % 3), 0.27 + 0.1 * k, pack.ink)
        sheet.area(0.84, 0.24 + 0.1 * k, 0.91, 0.27 + 0.1 * k, pack.ink)
    return sheet.finished().transpose(Image.Transpose.ROTATE_90)


@lru_cache(maxsize=64)
def roof(pack: Pack, width: int, height: int) -> Image.Image:
    """The slope on top of a carton, RGB. Shared as `front`."""
    sheet = Sheet(pack, width, height)
    sheet.area(0, 0, 1, 1, pack.accent)
    sheet.text(pack.brand, 0.5, 0.55, wide=0.6, high=0.4, fill=pack.paper, bold=0.06)
    return sheet.finished()
