"""Packs as seen by a camera: printed fronts bent round cans and jars, folded into boxes, filled
into bags. Each shape gives one RGBA sprite, lit from one side, that stands upright."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor, ImageDraw, ImageFilter

from recognition.demo import artwork
from recognition.demo.products import PACKS, Pack

Floats = npt.NDArray[np.floating[Any]]

TALL = 560  # pixels of the upright body, before the scene scales it
_BY_KEY = {pack.key: pack for pack in PACKS}


@dataclass(frozen=True, slots=True)
class View:
    """How a pack is looked at: `yaw` in radians (the pack turned about its upright axis), `light`
    from -1 (left) to 1 (right)."""

    yaw: float = 0.0
    light: float = -0.5


@dataclass(frozen=True, slots=True)
class _Round:
    """A solid of revolution: half widths at heights (0 top, 1 bottom), both in body heights.
    Above `neck` it is cap, metal or glass; the print covers the heights in `print_between`."""

    profile: tuple[tuple[float, float], ...]
    print_between: tuple[float, float]
    cap_until: float
    gloss: float
    ridges: int = 0  # grooves round the cap
    metal: bool = False


_ROUND: dict[str, _Round] = {
    "can": _Round(
        ((0, 0.215), (0.02, 0.22), (0.09, 0.265), (0.93, 0.265), (0.985, 0.22), (1, 0.21)),
        (0.085, 0.94),
        0.085,
        0.55,
        metal=True,
    ),
    "tin": _Round(
        ((0, 0.37), (0.015, 0.385), (0.14, 0.385), (0.15, 0.375), (0.98, 0.375), (1, 0.365)),
        (0.15, 0.985),
        0.15,
        0.35,
    ),
    "bottle": _Round(
        (
            (0, 0.072), (0.01, 0.078), (0.085, 0.078), (0.09, 0.062), (0.13, 0.065), (0.2, 0.11),
            (0.29, 0.165), (0.34, 0.175), (0.96, 0.175), (0.99, 0.16), (1, 0.145),
        ),
        (0.36, 0.9),
        0.088,
        0.5,
        ridges=36,
    ),
    "flask": _Round(
        (
            (0, 0.09), (0.01, 0.1), (0.17, 0.12), (0.18, 0.14), (0.21, 0.19), (0.26, 0.22),
            (0.6, 0.235), (0.96, 0.215), (1, 0.195),
        ),
        (0.25, 0.95),
        0.175,
        0.4,
    ),
    "jar": _Round(
        (
            (0, 0.29), (0.015, 0.305), (0.17, 0.305), (0.175, 0.285), (0.2, 0.3), (0.25, 0.34),
            (0.95, 0.34), (0.985, 0.32), (1, 0.3),
        ),
        (0.31, 0.9),
        0.172,
        0.6,
        ridges=52,
    ),
    "cup": _Round(
        ((0, 0.4), (0.012, 0.43), (0.045, 0.43), (0.055, 0.41), (0.95, 0.3), (1, 0.295)),
        (0.055, 0.985),
        0.05,
        0.2,
    ),
}  # fmt: skip

# width and depth in body heights
_BOXES: dict[str, tuple[float, float]] = {"box": (0.7, 0.2), "carton": (0.5, 0.44)}
_FLAT: dict[str, float] = {"pouch": 0.68, "bag": 0.72, "tube": 0.4, "bar": 0.46}


def sprite(pack: Pack, view: View) -> Image.Image:
    """The pack as RGBA, cropped to what of it is seen."""
    return _sprite(pack.key, round(view.yaw, 2), round(view.light, 1)).copy()


@lru_cache(maxsize=256)
def _sprite(key: str, yaw: float, light: float) -> Image.Image:
    pack, view = _BY_KEY[key], View(yaw, light)
    if pack.shape in _ROUND:
        image = _revolved(pack, _ROUND[pack.shape], view)
    elif pack.shape in _BOXES:
        image = _folded(pack, view)
    else:
        image = _filled(pack, view)
    return image.crop(image.getchannel("A").point(lambda a: 255 * (a > 100)).getbbox())


def _colour(value: str) -> Floats:
    return np.array(ImageColor.getrgb(value)[:3], dtype=np.float32)


def _as_image(rgb: Floats, alpha: Floats) -> Image.Image:
    pixels = np.concatenate([rgb, alpha[..., None] * 255], axis=2)
    return Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8))


# --- round packs -----------------------------------------------------------------------------


def _revolved(pack: Pack, shape: _Round, view: View) -> Image.Image:
    heights, halves = np.array(shape.profile, dtype=np.float32).T

    def half_at(ring: Floats) -> Floats:
        return np.interp(ring, heights, halves).astype(np.float32)

    tilt = 0.17  # the camera looks a little down: circles become ellipses this flat
    widest = float(halves.max())
    top, bottom = tilt * float(halves[0]), 1 + tilt * float(halves[-1])
    # Single precision is twice as fast, and pixels have eight bits.
    y, x = np.meshgrid(
        np.arange(-top - 0.01, bottom + 0.01, 1 / TALL, dtype=np.float32),
        np.arange(-widest - 0.01, widest + 0.01, 1 / TALL, dtype=np.float32),
        indexing="ij",
    )

    # Which ring of the body is seen at a pixel: its front bulges down by tilt * half * cos.
    ring = y.copy()
    for _ in range(3):
        half = half_at(ring)
        across = np.clip(x / half, -1, 1)
        ring = y - tilt * half * np.sqrt(1 - across**2)
    half = half_at(ring)
    across = np.clip(x / half, -1, 1)
    depth = np.sqrt(1 - across**2)
    body = _soft((half - np.abs(x)) * TALL) * _soft((1 - ring) * TALL) * _soft(ring * TALL)

    colour = np.empty((*y.shape, 3), dtype=np.float32)
    colour[:] = _body_colour(pack)
    printed = (ring >= shape.print_between[0]) & (ring < shape.print_between[1])
    colour[printed] = _wrapped(pack, shape, ring[printed], across[printed], view.yaw, widest)
    cap = ring < shape.cap_until
    colour[cap] = _colour("#c9ced4" if shape.metal else pack.cap)
    if shape.metal:
        rim = ring > 0.945
        colour[rim] = _colour("#b9bfc6")
    if pack.shape in ("bottle", "jar"):
        colour *= np.where(~printed & ~cap, 0.82 + 0.3 * depth, 1.0)[..., None]

    shade = _round_shade(across, depth, view.light)
    if shape.ridges:
        angle = np.arcsin(across) + view.yaw
        shade *= np.where(cap, 1 + 0.1 * np.cos(angle * shape.ridges), 1.0)
    shade *= np.where(cap & (ring > shape.cap_until - 0.012), 0.72, 1.0)
    colour *= shade[..., None]
    gloss = shape.gloss * np.exp(-(((across - 0.52 * np.sign(view.light)) / 0.11) ** 2))
    gloss += 0.35 * shape.gloss * np.exp(-(((across + 0.8 * np.sign(view.light)) / 0.06) ** 2))
    colour += 150 * gloss[..., None] * np.where(cap & ~np.bool_(shape.metal), 0.5, 1.0)[..., None]

    lid, lid_colour = _lid(pack, shape, x, y, tilt, float(halves[0]))
    alpha = np.maximum(body, lid)
    colour = colour * (1 - lid[..., None]) + lid_colour * lid[..., None]
    return _as_image(colour, alpha)


def _soft(distance: Floats) -> Floats:
    """Coverage of a pixel whose centre is `distance` pixels inside an edge."""
    return np.clip(distance + 0.5, 0, 1)


def _body_colour(pack: Pack) -> Floats:
    if pack.shape == "jar":  # what is inside shows through the glass
        return _colour(pack.second if pack.layout != "stripes" else pack.accent) * 0.9
    if pack.shape == "bottle":
        return _colour(pack.paper) * 0.75 + _colour(pack.accent) * 0.2
    return _colour(pack.paper)


def _wrapped(
    pack: Pack, shape: _Round, ring: Floats, across: Floats, yaw: float, widest: float
) -> Floats:
    """Colours of the print at given rings and places across, turned by `yaw`."""
    start, end = shape.print_between
    arc = 2.5  # the print covers 143 degrees, mirrored beyond
    width, height = round(arc * widest * TALL), round((end - start) * TALL)
    sheet = np.asarray(artwork.front(pack, width, height), dtype=np.float32)
    turn = (np.arcsin(across) + yaw) / arc + 0.5
    turn = 1 - np.abs(1 - np.mod(turn, 2))
    return _sampled(sheet, turn * (width - 1), (ring - start) / (end - start) * (height - 1))


def _sampled(sheet: Floats, x: Floats, y: Floats) -> Floats:
    """Bilinear lookup."""
    x0 = np.clip(x.astype(int), 0, sheet.shape[1] - 2)
    y0 = np.clip(y.astype(int), 0, sheet.shape[0] - 2)
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]
    above = sheet[y0, x0] * (1 - fx) + sheet[y0, x0 + 1] * fx
    below = sheet[y0 + 1, x0] * (1 - fx) + sheet[y0 + 1, x0 + 1] * fx
    return above * (1 - fy) + below * fy


def _round_shade(across: Floats, depth: Floats, light: float) -> Floats:
    facing = across * 0.65 * light + depth * np.sqrt(1 - (0.65 * light) ** 2)
    return 0.5 + 0.56 * np.clip(facing, 0, 1)


def _lid(
    pack: Pack, shape: _Round, x: Floats, y: Floats, tilt: float, half: float
) -> tuple[Floats, Floats]:
    """Coverage and colours of the top, seen as a flat ellipse."""
    radius = np.sqrt((x / half) ** 2 + (y / (tilt * half)) ** 2)
    cover = _soft((1 - radius) * half * TALL * 0.6)
    base = _colour("#d5d9de" if shape.metal else pack.cap)
    tone = 1.02 + 0.08 * x / half
    if shape.metal:
        tone = np.where(radius < 0.86, 0.72 + 0.14 * np.cos(3 * np.arctan2(y / tilt, x)), tone)
        tab = ((x / (0.28 * half)) ** 2 + ((y / tilt - 0.1 * half) / (0.4 * half)) ** 2) < 1
        tone = np.where(tab, 1.0, tone)
    elif pack.shape in ("jar", "tin", "cup"):
        tone = np.where((radius > 0.84) & (radius < 0.9), tone * 0.82, tone)
    return cover, base * tone[..., None]


# --- boxes -----------------------------------------------------------------------------------


def _folded(pack: Pack, view: View) -> Image.Image:
    width, depth = _BOXES[pack.shape]
    yaw = view.yaw + (0.32 if view.yaw >= 0 else -0.32)  # a box seen straight on looks like paper
    w, d = width / 2, depth / 2
    right = yaw < 0  # which side comes to the front
    s = w if right else -w
    front = artwork.front(pack, round(width * TALL), TALL)
    side = artwork.side(pack, round(depth * TALL), TALL)
    facing = 1 - 0.25 * abs(view.light - (0.5 if right else -0.5))

    canvas = Image.new("RGBA", (round(1.3 * TALL), round(1.7 * TALL)))
    eye = _Camera(yaw, canvas.size)
    lit_front, lit_side = 0.98, 0.5 + 0.3 * facing
    if pack.shape == "carton":
        ridge, fin = -0.24, -0.31
        paper = Image.new("RGB", (64, 64), pack.accent)
        eye.polygon(canvas, [(s, 0, -d), (s, 0, d), (s, ridge, 0)], pack.accent, lit_side * 0.8)
        eye.face(canvas, side, [(s, 0, -d), (s, 0, d), (s, 1, d), (s, 1, -d)], lit_side, right)
        eye.face(canvas, front, [(-w, 0, -d), (w, 0, -d), (w, 1, -d), (-w, 1, -d)], lit_front)
        roof = artwork.roof(pack, round(width * TALL), round(0.3 * TALL))
        slope = [(-w, ridge, 0), (w, ridge, 0), (w, 0, -d), (-w, 0, -d)]
        eye.face(canvas, roof, slope, 1.1)
        eye.face(canvas, paper, [(-w, fin, 0), (w, fin, 0), (w, ridge, 0), (-w, ridge, 0)], 0.92)
    else:
        eye.polygon(canvas, [(-w, 0, -d), (w, 0, -d), (w, 0, d), (-w, 0, d)], pack.paper, 1.06)
        eye.face(canvas, side, [(s, 0, -d), (s, 0, d), (s, 1, d), (s, 1, -d)], lit_side, right)
        eye.face(canvas, front, [(-w, 0, -d), (w, 0, -d), (w, 1, -d), (-w, 1, -d)], lit_front)
    return canvas


class _Camera:
    """Looks at a turned box from the front and a little above, from three body heights away."""

    def __init__(self, yaw: float, size: tuple[int, int]) -> None:
        self.yaw, self.size = yaw, size

    def seen(self, corners: list[tuple[float, float, float]]) -> list[tuple[float, float]]:
        x, y, z = np.array(corners).T
        pitch, away = 0.16, 3.2
        x, z = (
            x * np.cos(self.yaw) + z * np.sin(-self.yaw),
            x * np.sin(self.yaw) + z * np.cos(self.yaw),
        )
        y = y - 0.5
        y, z = y * np.cos(pitch) - z * np.sin(pitch), y * np.sin(pitch) + z * np.cos(pitch)
        scale = away / (away + z)
        across = self.size[0] / 2 + x * scale * TALL
        down = self.size[1] / 2 + (y + 0.08) * scale * TALL
        return list(zip(across.tolist(), down.tolist(), strict=True))

    def face(
        self,
        canvas: Image.Image,
        print_: Image.Image,
        corners: list[tuple[float, float, float]],
        light: float,
        right: bool = True,
    ) -> None:
        """Lay a printed sheet on four corners (its own top left first, clockwise)."""
        sheet = np.asarray(print_, dtype=np.float32)
        if not right:
            corners = [corners[1], corners[0], corners[3], corners[2]]
        fall = 1 - 0.1 * np.linspace(0, 1, sheet.shape[0])[:, None, None]
        lit = (sheet * light * fall).clip(0, 255).astype(np.uint8)
        # One transparent pixel all round lets the resampling soften the edges.
        padded = Image.new("RGBA", (lit.shape[1] + 2, lit.shape[0] + 2), (*lit[0, 0].tolist(), 0))
        padded.paste(Image.fromarray(lit), (1, 1))
        h, w = lit.shape[:2]
        seen = np.array(self.seen(corners))
        x0, y0 = (np.floor(seen.min(axis=0)) - 2).astype(int).tolist()
        x1, y1 = (np.ceil(seen.max(axis=0)) + 2).astype(int).tolist()
        there = [(x - x0, y - y0) for x, y in seen.tolist()]
        shown = padded.transform(
            (x1 - x0, y1 - y0),
            Image.Transform.PERSPECTIVE,
            perspective(there, [(1, 1), (w + 1, 1), (w + 1, h + 1), (1, h + 1)]),
            Image.Resampling.BICUBIC,
        )
        canvas.alpha_composite(shown, (x0, y0))

    def polygon(
        self,
        canvas: Image.Image,
        corners: list[tuple[float, float, float]],
        fill: str,
        light: float,
    ) -> None:
        big = Image.new("L", (canvas.width * 2, canvas.height * 2))
        ImageDraw.Draw(big).polygon([(2 * x, 2 * y) for x, y in self.seen(corners)], fill=255)
        tone = (_colour(fill) * light).clip(0, 255).round().astype(int).tolist()
        paint = Image.new("RGBA", canvas.size, (*tone, 0))
        paint.putalpha(big.reduce(2))
        canvas.alpha_composite(paint)


def perspective(
    there: list[tuple[float, float]], here: list[tuple[float, float]]
) -> tuple[float, ...]:
    """Pillow's eight coefficients for a transform that shows the point here[i] at there[i]."""
    rows = []
    for (x, y), (u, v) in zip(there, here, strict=True):
        rows.append([x, y, 1, 0, 0, 0, -u * x, -u * y])
        rows.append([0, 0, 0, x, y, 1, -v * x, -v * y])
    return tuple(np.linalg.solve(np.array(rows), np.array(here).reshape(8)).tolist())


# --- bags, tubes, bars -----------------------------------------------------------------------


def _filled(pack: Pack, view: View) -> Image.Image:
    height, width = TALL, round(_FLAT[pack.shape] * TALL)
    mask = _outline(pack.shape, width, height)
    sheet = np.asarray(artwork.front(pack, width, height), dtype=np.float32)
    y, x = np.mgrid[0 : 1 : height * 1j, -1 : 1 : width * 1j]
    folds = _folds(pack.key, width, height)
    shade = 1.0 - 0.34 * np.abs(x) ** 4 + 0.2 * view.light * x + folds * _wrinkled(pack.shape)
    if pack.shape == "bag":
        crimp = (y < 0.065) | (y > 0.935)
        shade = np.where(crimp, 0.86 + 0.14 * np.cos(x * width * 0.7), shade)
        shade *= 1 - 0.3 * np.exp(-((np.abs(y - 0.5) - 0.42) ** 2) / 0.0006)
    elif pack.shape == "pouch":
        shade *= np.where((y > 0.085) & (y < 0.095), 0.8, 1.0)
        shade *= np.where(y < 0.06, 0.92 + 0.08 * np.cos(y * height * 0.9), 1.0)
        shade *= 1 - 0.25 * np.exp(-((y - 0.93 + 0.05 * x**2) ** 2) / 0.0002)
    elif pack.shape == "bar":
        shade = 1.0 + 0.16 * view.light * x + 0.7 * folds
        crimp = (y < 0.05) | (y > 0.95)
        shade = np.where(crimp, 0.8 + 0.2 * np.cos(x * width * 0.6), shade)
        for edge in (0.075, 0.925):
            shade *= 1 - 0.25 * np.exp(-((y - edge) ** 2) / 0.0001)
        shade *= 1 - 0.3 * np.exp(-((np.abs(x) - 0.9) ** 2) / 0.001)
    else:
        sheet = _tube_print(pack, width, height)
        cap = y > 0.86
        shade = np.where(cap, shade * (0.95 + 0.08 * np.cos(x * 60)), shade)
        shade = np.where((y > 0.855) & (y < 0.87), 0.7, shade)
        shade = np.where(y < 0.055, 0.85 + 0.15 * np.cos(y * height * 0.8), shade)
    sheen = np.exp(-(((x - 0.5 * np.sign(view.light)) / 0.12) ** 2)) * (0.25 + 0.8 * folds)
    lit = sheet * shade[..., None] + 70 * sheen.clip(0)[..., None]
    return _as_image(lit, mask).resize(
        (max(2, round(width * np.cos(view.yaw))), height), Image.Resampling.LANCZOS
    )


def _wrinkled(shape: str) -> float:
    return {"bag": 0.75, "pouch": 0.5, "tube": 0.25, "bar": 0.3}[shape]


def _folds(key: str, width: int, height: int) -> Floats:
    """Soft creases in [-0.3, 0.3], the same for each view of one pack."""
    rng = np.random.default_rng(list(key.encode()))
    total = np.zeros((height, width))
    for cells, weight in ((4, 0.55), (9, 0.3), (19, 0.15)):
        coarse = Image.fromarray(rng.uniform(-0.3, 0.3, (cells, cells)).astype(np.float32))
        total += weight * np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
    return total


def _outline(shape: str, width: int, height: int) -> Floats:
    big = Image.new("L", (2 * width, 2 * height))
    draw = ImageDraw.Draw(big)
    w, h = 2 * width - 1, 2 * height - 1
    t = np.linspace(0, 1, 40)
    if shape == "bag":  # pinched between the crimped ends
        pinch = 0.028 * np.cos(2 * np.pi * t) + 0.028
        left = [(w * (0.03 - p + 0.026), h * s) for p, s in zip(pinch, t, strict=True)]
        right = [(w - x, y) for x, y in reversed(left)]
        draw.polygon(left + right, fill=255)
    elif shape == "tube":  # a crimped end on top, the cap it stands on below
        body = [(0.0, 0.0), (1.0, 0.0), (0.86, 0.86), (0.14, 0.86)]
        draw.polygon([(w * x, h * y) for x, y in body], fill=255)
        draw.rounded_rectangle((w * 0.17, h * 0.855, w * 0.83, h), 0.05 * w, fill=255)
    elif shape == "pouch":
        draw.rounded_rectangle((0, 0, w, h * 0.5), 0.04 * w, fill=255)
        belly = 0.02 * np.sin(np.pi * t)
        left = [(w * (0.02 - b), h * (0.04 + 0.93 * s)) for b, s in zip(belly, t, strict=True)]
        foot = [(w * s, h * (0.97 + 0.03 * np.sin(np.pi * s))) for s in t]
        right = [(w - x, y) for x, y in reversed(left)]
        draw.polygon(left + foot + right, fill=255)
    else:
        draw.rounded_rectangle((0, 0, w, h), 0.01 * w, fill=255)
        for k in range(0, 2 * width, 14):  # the saw-toothed cut of a wrapper
            draw.polygon([(k, -1), (k + 7, 9), (k + 14, -1)], fill=0)
            draw.polygon([(k, h + 1), (k + 7, h - 9), (k + 14, h + 1)], fill=0)
    return np.asarray(big.reduce(2).filter(ImageFilter.GaussianBlur(0.5)), dtype=np.float32) / 255


def _tube_print(pack: Pack, width: int, height: int) -> Floats:
    """The print narrows with the tube, the cap below it is plain."""
    body = artwork.front(pack, width, round(0.86 * height))
    sheet = Image.new("RGB", (width, height), pack.cap)
    w, h = body.size
    sheet.paste(
        body.transform(
            body.size,
            Image.Transform.QUAD,
            (0, 0, -0.16 * w, h, 1.16 * w, h, w, 0),
            Image.Resampling.BICUBIC,
            fillcolor=pack.paper,
        ),
        (0, 0),
    )
    return np.asarray(sheet, dtype=np.float32)
