"""Where packs stand and how they are photographed: backgrounds, shadows, light, lens, noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from recognition.demo.packs import perspective

Floats = npt.NDArray[np.float32]
Random = np.random.Generator
Size = tuple[int, int]
Corners = tuple[int, int, int, int]


# --- backgrounds -----------------------------------------------------------------------------


def studio(size: Size, rng: Random, tint: float = 1.0) -> Image.Image:
    """Seamless paper in a pale colour (`tint` 0: white), brighter in the middle."""
    colour = 255 - tint * rng.uniform(6, 62, 3) * rng.uniform(0.3, 1.2)
    y, x = _grid(size)
    glow = 1.05 - 0.22 * ((x - 0.5) ** 2 + (y - 0.45) ** 2) / 0.5
    horizon = rng.uniform(0.6, 0.75)
    glow *= 1 - 0.1 * np.exp(-(((y - horizon) / 0.09) ** 2))
    return _image(glow[..., None] * colour)


def paper(size: Size, rng: Random) -> Image.Image:
    """One strong, even colour, slightly fibrous."""
    palette = (
        "#d9b48f",
        "#7f9c96",
        "#c8574b",
        "#465a7d",
        "#e2c044",
        "#93a36a",
        "#b9a2c7",
        "#3c4043",
    )
    base = _rgb(palette[int(rng.integers(len(palette)))])
    return _image(
        base * (1 + 0.05 * _clouds(size, rng, 60) + 0.1 * _clouds(size, rng, 3))[..., None]
    )


def wood(size: Size, rng: Random) -> Image.Image:
    """A table of planks."""
    tones = ("#b98a5a", "#8a5f3c", "#d2b48c", "#6a4a36", "#a7724a")
    base = _rgb(tones[int(rng.integers(len(tones)))])
    width, height = size
    grain = _clouds((max(2, width // 28), height), rng, 130).astype(np.float32)
    grain = np.asarray(Image.fromarray(grain).resize(size, Image.Resampling.BICUBIC))
    tone = 1 + 0.16 * grain + 0.1 * _clouds(size, rng, 4)
    planks = int(rng.integers(3, 7))
    row = np.linspace(0, planks, height, endpoint=False)
    tone *= (1 + 0.12 * rng.uniform(-1, 1, planks))[row.astype(int)][:, None]
    tone *= np.where(row % 1 < 0.02, 0.6, 1.0)[:, None]
    return _image(base * tone[..., None])


def stone(size: Size, rng: Random) -> Image.Image:
    """Marble or slate."""
    dark = rng.random() < 0.4
    base = _rgb("#4c5157" if dark else "#e9e6e1")
    veins = np.abs(_clouds(size, rng, 5) + 0.35 * _clouds(size, rng, 17))
    tone = 1 + 0.06 * _clouds(size, rng, 9)
    tone += (0.35 if dark else -0.22) * np.exp(-((veins / 0.05) ** 2))
    return _image(base * tone[..., None])


def cloth(size: Size, rng: Random) -> Image.Image:
    """A checked or plain table cloth."""
    base = np.ones((size[1], size[0], 3)) * _rgb("#efe9df")
    colour = _rgb(("#b8483f", "#4a6fa5", "#6d8b5b", "#c9a04e")[int(rng.integers(4))])
    y, x = _grid(size)
    cell = rng.uniform(0.07, 0.13)
    for line in (x, y * size[1] / size[0]):
        stripe = 0.42 * (line / cell % 1 < 0.5)
        base = base * (1 - stripe[..., None]) + colour * stripe[..., None]
    weave = 1 + 0.03 * np.cos(x * size[0] * 1.4) * np.cos(y * size[1] * 1.4)
    return _image(base * (weave + 0.08 * _clouds(size, rng, 6))[..., None])


def tiles(size: Size, rng: Random) -> Image.Image:
    """A tiled wall."""
    base = _rgb(("#e6ebe9", "#c9dbe0", "#d8d3c4", "#9fb8ad")[int(rng.integers(4))])
    y, x = _grid(size)
    edge = rng.uniform(0.12, 0.2)
    row = y * size[1] / size[0] / edge
    across = x / edge / 2 + 0.5 * (row.astype(int) % 2)
    grout = (row % 1 < 0.035) | (across % 1 < 0.018)
    each = rng.uniform(0.93, 1.04, (64, 64))[row.astype(int) % 64, across.astype(int) % 64]
    return _image(base * np.where(grout, 0.72, each)[..., None])


def room(size: Size, rng: Random) -> Image.Image:
    """A table with something out of focus behind it."""
    width, height = size
    back = (wood, paper, tiles, studio)[int(rng.integers(4))](size, rng)
    draw = ImageDraw.Draw(back)
    for _ in range(int(rng.integers(3, 8))):
        x, y = rng.uniform(0, width), rng.uniform(0, height * 0.6)
        w, h = rng.uniform(0.05, 0.2) * width, rng.uniform(0.1, 0.35) * height
        fill = tuple(int(c) for c in rng.uniform(40, 225, 3))
        draw.rectangle((x - w / 2, y - h / 2, x + w / 2, y + h / 2), fill=fill)
    back = back.filter(ImageFilter.GaussianBlur(width * 0.025))
    horizon = int(height * rng.uniform(0.58, 0.72))
    table = (wood, stone, cloth)[int(rng.integers(3))]((width, height - horizon), rng)
    back.paste(table, (0, horizon))
    ImageDraw.Draw(back).line([(0, horizon), (width, horizon)], fill=(60, 50, 45), width=2)
    return back


SURFACES: tuple[Callable[[Size, Random], Image.Image], ...] = (
    paper,
    wood,
    stone,
    cloth,
    tiles,
    room,
)


def shelf(size: Size, rng: Random, boards: Sequence[float]) -> Image.Image:
    """A shop shelf; `boards` are the heights (shares, y down) packs stand on."""
    width, height = size
    panel = _rgb(("#cfd3d6", "#b7a68f", "#8e979e", "#d9d2c4")[int(rng.integers(4))])
    y, _ = _grid(size)
    tone = np.ones((height, width))
    edges = [0.0, *boards]
    for upper, lower in zip(edges, boards, strict=False):
        inside = (y >= upper) & (y < lower)
        tone[inside] = (0.62 + 0.38 * (y[inside] - upper) / (lower - upper)) ** 0.8
    image = _image(panel * (tone + 0.03 * _clouds(size, rng, 8))[..., None])
    draw = ImageDraw.Draw(image)
    rail = ("#f5f5f2", "#2f4858", "#c0392b", "#f2c14e")[int(rng.integers(4))]
    for board in boards:
        top, deep = board * height - 0.035 * height, 0.075 * height
        draw.rectangle((0, top, width, top + deep * 0.5), fill=tuple(int(c * 0.93) for c in panel))
        draw.rectangle((0, top + deep * 0.5, width, top + deep), fill=rail)
        for k in range(int(rng.integers(3, 6))):
            x = (k + rng.uniform(0.1, 0.7)) * width / 5
            box = (x, top + deep * 0.55, x + 0.08 * width, top + deep * 0.95)
            draw.rectangle(box, fill=(252, 250, 240), outline=(120, 120, 120))
            draw.line(
                (x + 6, top + deep * 0.75, x + 0.05 * width, top + deep * 0.75), (40, 40, 40), 3
            )
    return image


def table(size: Size, rng: Random, horizon: float) -> Image.Image:
    """A table top below `horizon` (share of the height) in front of a wall."""
    width, height = size
    wall = (studio, paper, tiles)[int(rng.integers(3))](size, rng)
    wall = wall.filter(ImageFilter.GaussianBlur(width * 0.004))
    edge = int(height * horizon)
    wall.paste((wood, stone, cloth)[int(rng.integers(3))]((width, height - edge), rng), (0, edge))
    return wall


def _grid(size: Size) -> tuple[Floats, Floats]:
    width, height = size
    y, x = np.meshgrid(
        np.linspace(0, 1, height, endpoint=False, dtype=np.float32),
        np.linspace(0, 1, width, endpoint=False, dtype=np.float32),
        indexing="ij",
    )
    return y, x


def _clouds(size: Size, rng: Random, cells: int) -> Floats:
    """Smooth noise in about [-1, 1] with `cells` bumps across."""
    down = max(2, round(cells * size[1] / size[0]))
    coarse = rng.uniform(-1, 1, (down, max(2, cells))).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))


def _rgb(colour: str) -> npt.NDArray[np.float64]:
    return np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)], dtype=np.float64)


def _image(pixels: npt.NDArray[np.floating]) -> Image.Image:
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


# --- placing ---------------------------------------------------------------------------------


def posed(sprite: Image.Image, height: int, turn: float, lean: tuple[float, float]) -> Image.Image:
    """The sprite `height` pixels high, in perspective, then turned by `turn` degrees to the left;
    cropped. `lean`: by which share the right and the top edge are shorter than the edge opposite
    (the right one may be longer: negative)."""
    scale = height / sprite.height
    w, h = max(8, round(sprite.width * scale)), height
    # reducing first keeps fine print from flickering when the transform shrinks it
    small = sprite.resize((w, h), Image.Resampling.LANCZOS)
    right, top = lean[0] * h / 2, lean[1] * w / 2
    near, far = max(0.0, -right), max(0.0, right)
    leaning = np.array([(top, near), (w - top, far), (w, h - far), (0, h - near)])
    angle = -np.radians(turn)
    turned = leaning @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    turned -= turned.min(axis=0) - 2
    across, down = (np.ceil(turned.max(axis=0)) + 2).astype(int).tolist()
    # One transparent pixel all round lets the resampling soften straight edges.
    padded = Image.new("RGBA", (w + 2, h + 2))
    padded.paste(small, (1, 1))
    shown = padded.transform(
        (across, down),
        Image.Transform.PERSPECTIVE,
        perspective(
            [(x, y) for x, y in turned.tolist()],
            [(1.0, 1.0), (w + 1.0, 1.0), (w + 1.0, h + 1.0), (1.0, h + 1.0)],
        ),
        Image.Resampling.BICUBIC,
    )
    return shown.crop(_seen(shown))


def _seen(sprite: Image.Image) -> Corners:
    box = sprite.getchannel("A").point(lambda a: 255 * (a > 127)).getbbox()
    if box is None:
        raise ValueError("a sprite without a single visible pixel")
    return box


def put(
    frame: Image.Image, sprite: Image.Image, x: int, y: int, *, shadow: float, side: float
) -> Corners:
    """Paste the sprite with its top left corner at (x, y) and its shadow on `frame`; the box of its
    visible pixels. `shadow` is its darkness, `side` where it falls (-1 left, 1 right)."""
    part = 4  # a shadow has no detail: drawn smaller, it costs next to nothing
    w, h = sprite.size
    alpha = sprite.getchannel("A").resize((max(1, w // part), max(1, h // part)))
    soft = max(1.0, 0.03 * h / part)
    cast = Image.new("L", (frame.width // part, frame.height // part))
    cast.paste(alpha, (round((x + side * 0.06 * h) / part), round((y + 0.02 * h) / part)))
    cast = cast.filter(ImageFilter.GaussianBlur(soft)).point(lambda a: int(a * shadow * 0.8))
    foot = Image.new("L", cast.size)
    under = (x / part, (y + 0.95 * h) / part, (x + w) / part, (y + 1.03 * h) / part)
    ImageDraw.Draw(foot).ellipse(under, fill=255)
    foot = foot.filter(ImageFilter.GaussianBlur(soft / 2)).point(lambda a: int(a * shadow))
    for mask in (cast, foot):
        frame.paste((22, 18, 16), (0, 0), mask.resize(frame.size, Image.Resampling.BILINEAR))
    frame.paste(sprite, (x, y), sprite)
    x1, y1, x2, y2 = _seen(sprite)
    return x + x1, y + y1, x + x2, y + y2


# --- photographing ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Photo:
    """How a frame is photographed. `light` is how much brightness changes across the frame,
    `warmth` shifts from blue (-1) to yellow (1), `blur` in pixels, `noise` in grey levels."""

    light: float
    toward: float
    exposure: float
    warmth: float
    blur: float
    noise: float

    def taken(self, frame: Image.Image, rng: Random) -> Image.Image:
        """The frame as the camera saves it."""
        if self.blur > 0.2:
            frame = frame.filter(ImageFilter.GaussianBlur(self.blur))
        y, x = _grid(frame.size)
        slope = (x - 0.5) * np.float32(np.cos(self.toward)) + (y - 0.5) * np.float32(
            np.sin(self.toward)
        )
        gain = np.float32(self.exposure) * (1 + np.float32(self.light) * slope)
        tint = np.array([1 + 0.06 * self.warmth, 1, 1 - 0.08 * self.warmth], dtype=np.float32)
        pixels = np.asarray(frame, dtype=np.float32) * gain[..., None] * tint
        return _image(pixels + _grain(frame.size, int(rng.integers(4))) * np.float32(self.noise))


@lru_cache(maxsize=16)
def _grain(size: Size, which: int) -> Floats:
    """Sensor noise; a few fields are enough and drawing new ones takes most of the time."""
    rng = np.random.default_rng([size[0], size[1], which])
    return rng.standard_normal((size[1], size[0], 3), dtype=np.float32)


def sticker(frame: Image.Image, box: Corners, rng: Random) -> None:
    """A round price sticker somewhere on the lower half of a pack."""
    x1, y1, x2, y2 = box
    r = 0.11 * min(x2 - x1, y2 - y1) + 0.02 * (y2 - y1)
    x, y = rng.uniform(x1 + r, x2 - r), rng.uniform((y1 + y2) / 2 + r, y2 - r)
    layer = Image.new("RGBA", frame.size)
    draw = ImageDraw.Draw(layer)
    fill = ((235, 60, 40, 255), (250, 214, 40, 255), (60, 160, 80, 255))[int(rng.integers(3))]
    draw.ellipse((x - r, y - r, x + r, y + r), fill=fill, outline=(255, 255, 255, 255), width=3)
    draw.line(
        (x - r * 0.5, y, x + r * 0.5, y), fill=(255, 255, 255, 255), width=max(2, round(r / 5))
    )
    frame.paste(layer, (0, 0), layer.filter(ImageFilter.GaussianBlur(0.7)))


def glare(frame: Image.Image, box: Corners, rng: Random) -> None:
    """A bright reflection of a lamp across a pack."""
    x1, y1, x2, y2 = box
    mask = Image.new("L", frame.size)
    x = rng.uniform(x1, x2)
    wide, tilt = 0.12 * (x2 - x1), 0.35 * (y2 - y1)
    ImageDraw.Draw(mask).polygon(
        [(x, y1), (x + wide, y1), (x + wide - tilt, y2), (x - tilt, y2)], fill=150
    )
    only = Image.new("L", frame.size)
    only.paste(mask.crop(box), box[:2])
    frame.paste((255, 255, 250), (0, 0), only.filter(ImageFilter.GaussianBlur(6)))


def foreground(frame: Image.Image, box: Corners, rng: Random) -> None:
    """Something out of focus that covers a corner of a pack, as a finger or a leaf would."""
    x1, y1, x2, y2 = box
    x = x1 + (0.12 if rng.random() < 0.5 else 0.88) * (x2 - x1)
    y = rng.uniform(y1 + 0.6 * (y2 - y1), y1 + 0.9 * (y2 - y1))
    rx, ry = 0.2 * (x2 - x1), 0.12 * (y2 - y1)
    layer = Image.new(
        "RGB", frame.size, tuple(int(c) for c in rng.uniform((60, 50, 40), (210, 170, 150)))
    )
    mask = Image.new("L", frame.size)
    ImageDraw.Draw(mask).ellipse((x - rx, y - ry, x + rx, y + ry), fill=255)
    frame.paste(layer, (0, 0), mask.filter(ImageFilter.GaussianBlur(4)))
