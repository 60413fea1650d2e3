"""The motif of a pack: what is drawn on it, whatever its size and place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from PIL import ImageDraw

from recognition.demo.products import Pack

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
