"""What is printed on a pack: motifs, layouts and lettering, drawn flat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFilter, ImageFont

from recognition.demo.products import Pack
from recognition.drawing import font

# ImageDraw draws hard edges, so everything is drawn this many times larger and reduced.
FINE = 2

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Brush:
    """Draws in units of a motif: (0, 0) is its centre and 1 its radius, y down."""

    draw: ImageDraw.ImageDraw
    x: float
    y: float
    r: float
    turn: float = 0.0

    def at(self, x: float, y: float, r: float, turn: float = 0.0) -> Brush:
        """The same brush for a part of the motif: centred at (x, y), `r` times as large, turned
        by `turn` radians more."""
        [(px, py)] = self._points([(x, y)])
        return replace(self, x=px, y=py, r=self.r * r, turn=self.turn + turn)

    def polygon(self, points: list[Point], fill: str) -> None:
        self.draw.polygon(self._points(points), fill=fill)

    def line(self, points: list[Point], fill: str, width: float) -> None:
        self.draw.line(
            self._points(points), fill=fill, width=max(1, round(width * self.r)), joint="curve"
        )

    def disc(self, x: float, y: float, r: float, fill: str) -> None:
        [(px, py)] = self._points([(x, y)])
        r *= self.r
        self.draw.ellipse((px - r, py - r, px + r, py + r), fill=fill)

    def oval(self, x: float, y: float, rx: float, ry: float, fill: str, turn: float = 0) -> None:
        angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        c, s = np.cos(turn), np.sin(turn)
        px, py = rx * np.cos(angles), ry * np.sin(angles)
        self.polygon(
            list(zip((x + px * c - py * s).tolist(), (y + px * s + py * c).tolist(), strict=True)),
            fill,
        )

    def _points(self, points: list[Point]) -> list[Point]:
        c, s = float(np.cos(self.turn)), float(np.sin(self.turn))
        return [
            (self.x + self.r * (x * c - y * s), self.y + self.r * (x * s + y * c))
            for x, y in points
        ]


def _leaf_outline(n: int = 24) -> list[Point]:
    y = np.linspace(-1, 1, n)
    x = 0.42 * np.cos(y * np.pi / 2) ** 0.8
    right = list(zip(x.tolist(), y.tolist(), strict=True))
    return right + [(-px, py) for px, py in reversed(right)]


def _leaf(b: Brush, p: Pack) -> None:
    for turn, x, fill in ((-0.7, -0.35, p.accent), (0.7, 0.35, p.accent), (0.0, 0.0, p.ink)):
        part = b.at(x, 0.1 if turn else -0.15, 0.8, turn)
        part.polygon(_leaf_outline(), fill)
        part.line([(0, -0.9), (0, 1.0)], p.second, 0.05)
        for y in (-0.4, 0.0, 0.4):
            part.line([(-0.25, y - 0.2), (0, y), (0.25, y - 0.2)], p.second, 0.035)


def _flower(b: Brush, p: Pack) -> None:
    for k in range(6):
        part = b.at(0, 0, 1, k * np.pi / 3)
        part.oval(0, -0.58, 0.27, 0.42, p.accent)
        part.oval(0, -0.58, 0.2, 0.34, p.second)
    b.disc(0, 0, 0.26, p.accent)
    b.disc(0, 0, 0.14, p.ink)


def _citrus(b: Brush, p: Pack) -> None:
    b.disc(0, 0, 1, p.second)
    b.disc(0, 0, 0.88, p.accent)
    for k in range(9):
        a = k * 2 * np.pi / 9
        wedge = [(0.14, 0.0)] + [
            (0.8 * float(np.cos(t)), 0.8 * float(np.sin(t))) for t in np.linspace(-0.29, 0.29, 7)
        ]
        b.at(0, 0, 1, a).polygon(wedge, p.paper)
    b.at(0.75, -0.8, 0.42, 0.9).polygon(_leaf_outline(), p.ink)


def _sun(b: Brush, p: Pack) -> None:
    for k in range(16):
        b.at(0, 0, 1, k * np.pi / 8).polygon([(-0.1, -0.6), (0, -1), (0.1, -0.6)], p.accent)
    b.disc(0, 0, 0.58, p.accent)
    b.disc(0, 0, 0.48, p.second)
    # a bowl in front of the sun
    bowl = [(0.95 * float(np.cos(t)), 0.2 + 0.75 * float(np.sin(t))) for t in _half_turn()]
    b.polygon(bowl, p.ink)
    for k in range(9):
        b.oval(-0.72 + 0.18 * k, 0.15 - 0.06 * (k % 3), 0.13, 0.09, p.paper, turn=k * 0.7)
        b.oval(-0.72 + 0.18 * k, 0.15 - 0.06 * (k % 3), 0.09, 0.05, p.accent, turn=k * 0.7)


def _half_turn() -> list[float]:
    return np.linspace(0, np.pi, 24).tolist()


def _cow(b: Brush, p: Pack) -> None:
    b.oval(-0.62, -0.42, 0.3, 0.17, p.ink, turn=0.4)
    b.oval(0.62, -0.42, 0.3, 0.17, p.ink, turn=-0.4)
    b.oval(0, -0.05, 0.52, 0.78, p.paper)
    b.oval(-0.24, -0.35, 0.24, 0.32, p.ink, turn=0.2)
    b.oval(0, 0.5, 0.46, 0.34, "#f3b8a8")
    for x in (-0.17, 0.17):
        b.oval(x, 0.5, 0.06, 0.09, "#8a4a3c")
        b.disc(x * 1.3, -0.15, 0.085, "#101010" if x > 0 else p.paper)
    b.line([(-0.2, 0.68), (0, 0.74), (0.2, 0.68)], "#8a4a3c", 0.04)


def _wheat(b: Brush, p: Pack) -> None:
    for lean in (-0.45, 0.0, 0.45):
        ear = b.at(lean * 0.7, 0.05, 1, lean)
        ear.line([(0, 1), (0, -0.6)], p.accent, 0.05)
        for k in range(6):
            y = -0.75 + k * 0.2
            ear.oval(-0.12, y, 0.08, 0.15, p.second, turn=-0.5)
            ear.oval(0.12, y, 0.08, 0.15, p.accent, turn=0.5)


def _drop(b: Brush, p: Pack) -> None:
    t = np.linspace(0, 2 * np.pi, 60)
    x, y = 0.85 * np.sin(t) * np.sin(t / 2) ** 1.5, 0.15 - np.cos(t)
    outline = list(zip(x.tolist(), y.tolist(), strict=True))
    b.polygon(outline, p.paper)
    b.at(0, 0.1, 0.82).polygon(outline, p.second)
    b.oval(-0.28, 0.45, 0.09, 0.26, "#ffffff", turn=0.35)


def _lightning(b: Brush, p: Pack) -> None:
    bolt = [(0.15, -1), (-0.6, 0.12), (-0.08, 0.12), (-0.3, 1), (0.6, -0.25), (0.08, -0.25)]
    b.at(0.06, 0.05, 1.06).polygon([*bolt, (0.5, -1)], p.second)
    b.polygon([*bolt, (0.5, -1)], p.accent)


def _bubbles(b: Brush, p: Pack) -> None:
    spots = np.random.default_rng(11).uniform(-1, 1, (26, 3))
    for x, y, size in spots.tolist():
        r = 0.09 + 0.1 * abs(size)
        b.disc(x, y, r, p.accent)
        b.disc(x, y, r * 0.72, p.second)
        b.disc(x - r * 0.3, y - r * 0.3, r * 0.22, p.ink)


def _ring(b: Brush, p: Pack) -> None:
    b.disc(0, 0, 0.95, p.second)
    b.disc(0, 0, 0.85, "#8a5630")
    b.disc(-0.06, -0.06, 0.72, "#a56c3f")
    b.disc(0, 0, 0.34, p.paper)


def _wave(b: Brush, p: Pack) -> None:
    x = np.linspace(-1.2, 1.2, 60)
    for k, fill in enumerate((p.second, p.accent, p.ink)):
        y = -0.35 + 0.38 * k + 0.17 * np.sin(x * 5 + k * 1.3)
        top = list(zip(x.tolist(), y.tolist(), strict=True))
        b.polygon([*top, (1.2, y[-1] + 0.3), *((px, py + 0.3) for px, py in reversed(top))], fill)


def _chili(b: Brush, p: Pack) -> None:
    for turn, x in ((-0.35, -0.3), (0.3, 0.3)):
        pod = b.at(x, 0, 0.95, turn)
        t = np.linspace(0, 1, 30)
        left = [(-0.22 * (1 - s) ** 0.6 + 0.35 * s**2, -0.6 + 1.55 * s) for s in t.tolist()]
        right = [(0.22 * (1 - s) ** 0.6 + 0.35 * s**2, -0.6 + 1.55 * s) for s in t.tolist()]
        pod.polygon(left + right[::-1], p.accent)
        pod.line([(-0.1, -0.4), (0.02, 0.3)], p.second, 0.06)
        pod.oval(0, -0.62, 0.25, 0.1, "#3f8f2f")
        pod.line([(0, -0.62), (0.08, -0.95)], "#3f8f2f", 0.09)


def _strawberry(b: Brush, p: Pack) -> None:
    t = np.linspace(0, 2 * np.pi, 60)
    y = 0.15 - 0.85 * np.cos(t)
    x = 0.8 * np.sin(t) * (1 - 0.35 * (y + 0.1))
    b.polygon(list(zip(x.tolist(), y.tolist(), strict=True)), p.accent)
    for row, n in enumerate((4, 5, 4, 3, 2)):
        for k in range(n):
            b.oval((k - (n - 1) / 2) * 0.3, -0.4 + row * 0.27, 0.035, 0.06, "#ffe08a")
    for k in range(5):
        b.at(0, -0.68, 0.5, (k - 2) * 0.62).oval(0, -0.3, 0.2, 0.5, "#3f8f2f")


def _bee(b: Brush, p: Pack) -> None:
    for x, y in ((0, 0), (0.78, 0.45), (-0.78, 0.45), (0, 0.9), (0.78, -0.45), (-0.78, -0.45)):
        hexagon = [(float(np.sin(a)), float(np.cos(a))) for a in np.arange(6) * np.pi / 3]
        b.at(x, y, 0.48).polygon(hexagon, p.second)
        b.at(x, y, 0.38).polygon(hexagon, "#f6b733")
    b.oval(-0.3, -0.35, 0.22, 0.42, "#ffffff", turn=-0.5)
    b.oval(0.3, -0.35, 0.22, 0.42, "#ffffff", turn=0.5)
    b.oval(0, 0.05, 0.34, 0.55, "#ffcf33")
    for y in (-0.2, 0.08, 0.36):
        b.oval(0, y, 0.32, 0.075, p.ink)
    b.disc(0, -0.5, 0.2, p.ink)


def _mountain(b: Brush, p: Pack) -> None:
    b.disc(0.4, -0.55, 0.26, p.accent)
    b.polygon([(-1.1, 0.75), (-0.5, -0.35), (0.0, 0.35), (0.35, -0.1), (1.1, 0.75)], p.second)
    b.polygon([(-0.85, 0.75), (-0.15, -0.75), (0.65, 0.75)], p.accent)
    b.polygon([(-0.35, -0.32), (-0.15, -0.75), (0.09, -0.3), (-0.06, -0.42), (-0.2, -0.25)], p.ink)
    for k in range(3):
        b.line([(-1, 0.82 + 0.09 * k), (1, 0.82 + 0.09 * k)], p.second, 0.03)


def _noodles(b: Brush, p: Pack) -> None:
    b.polygon(
        [(0.95 * float(np.cos(t)), 0.1 + 0.8 * float(np.sin(t))) for t in _half_turn()], p.accent
    )
    b.oval(0, 0.1, 0.95, 0.24, p.ink)
    b.oval(0, 0.1, 0.86, 0.19, p.second)
    for k in range(7):
        x = -0.6 + 0.2 * k
        b.line([(x - 0.1, 0.16), (x, 0.02), (x + 0.1, 0.16), (x + 0.2, 0.04)], p.paper, 0.06)
    b.oval(-0.3, 0.05, 0.2, 0.08, "#6d2f1c")
    b.oval(0.25, 0.08, 0.2, 0.08, "#6d2f1c")
    b.line([(0.1, 0.05), (0.75, -0.95)], p.ink, 0.05)
    b.line([(0.28, 0.05), (0.95, -0.85)], p.ink, 0.05)
    for x in (-0.55, -0.25):
        steam = [(x + 0.07 * float(np.sin(s * 9)), -0.1 - 0.7 * s) for s in np.linspace(0, 1, 20)]
        b.line(steam, p.second, 0.045)


def _star(b: Brush, p: Pack) -> None:
    for size, fill in ((1.0, p.accent), (0.7, p.paper), (0.52, p.accent)):
        points = []
        for k in range(16):
            radius = size * (1 if k % 2 == 0 else 0.46)
            points.append(
                (radius * float(np.sin(k * np.pi / 8)), -radius * float(np.cos(k * np.pi / 8)))
            )
        b.polygon(points, fill)


MOTIFS: dict[str, Callable[[Brush, Pack], None]] = {
    "leaf": _leaf,
    "flower": _flower,
    "citrus": _citrus,
    "sun": _sun,
    "cow": _cow,
    "wheat": _wheat,
    "drop": _drop,
    "lightning": _lightning,
    "bubbles": _bubbles,
    "ring": _ring,
    "wave": _wave,
    "chili": _chili,
    "strawberry": _strawberry,
    "bee": _bee,
    "mountain": _mountain,
    "noodles": _noodles,
    "star": _star,
}


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
