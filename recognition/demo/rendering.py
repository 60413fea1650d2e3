"""The demo pictures: a gallery to learn from, pictures of one product and scenes of several to ask
about, and the truth about each. All of it follows from one seed."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from recognition.demo import scenery
from recognition.demo.packs import View, sprite
from recognition.demo.products import PACKS, Pack
from recognition.demo.scenery import Corners, Photo, Random
from recognition.errors import SetupError
from recognition.evaluation import LabelledBox

VERSION = 1  # one more whenever the pictures come out different: old ones are rendered again
VIEWS, TESTS, SCENES = 5, 3, 20

_MARKER = "demo.json"
_TRUTH = "truth.json"
_GALLERY_LIST = "gallery.txt"
_QUALITY = 90


@dataclass(frozen=True, slots=True)
class DemoPicture:
    """A picture to ask about, and every product in it; boxes in pixels, x2 and y2 exclusive."""

    path: Path
    truth: tuple[LabelledBox, ...]


@dataclass(frozen=True, slots=True)
class DemoSet:
    """The finished demo pictures. `gallery_list` is a PaddleX `gallery.txt` whose paths are
    relative to `directory`; `gallery` is the same, read."""

    directory: Path
    gallery_list: Path
    gallery: tuple[tuple[Path, str], ...]
    singles: tuple[DemoPicture, ...]
    scenes: tuple[DemoPicture, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(label for _, label in self.gallery))


def render_demo(directory: Path, *, seed: int = 7) -> DemoSet:
    """The demo set in `directory`, rendered if it is not there already (about 20 s on one core).

    Written: `gallery/*.jpg`, `gallery.txt` (`path label`, the label may hold spaces),
    `test/*.jpg`, `scenes/*.jpg`, `truth.json` and, inside them last, the marker `demo.json`. The
    set appears as a whole or not at all. A finished set of another seed or version is replaced.

    Raises SetupError when `directory` holds something else or cannot be written.
    """
    directory = directory.resolve()
    if _finished(directory) == _identity(seed):
        return load_demo(directory)
    if directory.exists() and _finished(directory) is None and any(directory.iterdir()):
        raise SetupError(
            f"The directory {directory.name!r} for the demo pictures already holds other files, "
            "which rendering would replace. Name an empty or a new directory."
        )
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=directory.parent, prefix=f".{directory.name}-", ignore_cleanup_errors=True
        ) as work:
            made = Path(work) / "set"
            _render(made, seed)
            if _finished(directory) == _identity(seed):  # another process was faster
                return load_demo(directory)
            if directory.exists():
                shutil.rmtree(directory)
            made.rename(directory)
    except OSError as error:
        if _finished(directory) == _identity(seed):  # it came first while this one was moved in
            return load_demo(directory)
        raise SetupError(
            f"The demo pictures cannot be written to {directory.name!r}: {error.strerror}. "
            "Check the free space and the permissions of the directory."
        ) from error
    return load_demo(directory)


def load_demo(directory: Path) -> DemoSet:
    """Read a finished demo set. Raises SetupError when there is none."""
    if _finished(directory) is None:
        raise SetupError(
            f"There are no finished demo pictures in {directory.name!r}. Render them first."
        )
    gallery_list = directory / _GALLERY_LIST
    lines = gallery_list.read_text(encoding="utf-8").splitlines()
    gallery = tuple((directory / path, label) for path, label in (s.split(" ", 1) for s in lines))
    truth = json.loads((directory / _TRUTH).read_text(encoding="utf-8"))
    pictures = [
        DemoPicture(
            directory / name,
            tuple(_labelled(**entry) for entry in entries),
        )
        for name, entries in truth.items()
    ]
    return DemoSet(
        directory=directory,
        gallery_list=gallery_list,
        gallery=gallery,
        singles=tuple(p for p in pictures if p.path.parent.name == "test"),
        scenes=tuple(p for p in pictures if p.path.parent.name == "scenes"),
    )


def _labelled(label: str, box: Sequence[int]) -> LabelledBox:
    x1, y1, x2, y2 = box
    return LabelledBox(label, (x1, y1, x2, y2))


def _identity(seed: int) -> dict[str, int]:
    return {"version": VERSION, "seed": seed}


def _finished(directory: Path) -> dict[str, Any] | None:
    try:
        marker = json.loads((directory / _MARKER).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return None
    return marker if isinstance(marker, dict) else None


def _render(directory: Path, seed: int) -> None:
    for name in ("gallery", "test", "scenes"):
        (directory / name).mkdir(parents=True)
    gallery: list[str] = []
    truth: dict[str, list[dict[str, Any]]] = {}
    for pack in PACKS:
        for k in range(VIEWS):
            name = f"gallery/{pack.key}-{k + 1}.jpg"
            _save(gallery_view(pack, k, _rng(seed, name)), directory / name)
            gallery.append(f"{name} {pack.label}\n")
        for k in range(TESTS):
            name = f"test/{pack.key}-{k + 1}.jpg"
            picture, box = single(pack, _rng(seed, name))
            _save(picture, directory / name)
            truth[name] = [{"label": pack.label, "box": box}]
    for k, packs in enumerate(_casts(_rng(seed, "casts"))):
        name = f"scenes/scene-{k + 1:02}.jpg"
        picture, boxes = scene(packs, _rng(seed, name))
        _save(picture, directory / name)
        truth[name] = [
            {"label": pack.label, "box": box} for pack, box in zip(packs, boxes, strict=True)
        ]
    (directory / _GALLERY_LIST).write_text("".join(gallery), encoding="utf-8")
    _write_json(directory / _TRUTH, truth)
    _write_json(directory / _MARKER, _identity(seed))


def _rng(seed: int, name: str) -> Random:
    """Each picture has its own stream: adding one leaves the others as they were."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def _save(picture: Image.Image, path: Path) -> None:
    picture.save(path, "JPEG", quality=_QUALITY)


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def gallery_view(pack: Pack, which: int, rng: Random) -> Image.Image:
    """One of the pictures a shop keeps of a product: the first is a plain packshot, the others
    vary in pose, scale, light and ground. 640 x 640 pixels."""
    size = (640, 640)
    if which == 0:
        frame, view, turn, lean = scenery.studio(size, rng, 0.1), View(0.0, -0.5), 0.0, (0.0, 0.0)
        high, stray = 0.86, 0.0
    else:
        ground = scenery.SURFACES[int(rng.integers(len(scenery.SURFACES)))] if which > 2 else None
        frame = (ground or scenery.studio)(size, rng)
        view = View(float(rng.uniform(-0.4, 0.4)), float(rng.choice([-0.7, -0.3, 0.3, 0.7])))
        turn = float(rng.uniform(-8, 8))
        lean = (float(rng.uniform(-0.07, 0.07)), float(rng.uniform(-0.05, 0.05)))
        high, stray = float(rng.uniform(0.66, 0.88)), 1.0
    _place(frame, pack, view, turn, lean, high, stray, rng)
    photo = Photo(
        light=0.0 if which == 0 else float(rng.uniform(0, 0.35)),
        toward=float(rng.uniform(0, 2 * math.pi)),
        exposure=1.0 if which == 0 else float(rng.uniform(0.85, 1.08)),
        warmth=0.0 if which == 0 else float(rng.uniform(-0.6, 0.8)),
        blur=float(rng.uniform(0, 0.8)) if which else 0.0,
        noise=float(rng.uniform(1, 4)),
    )
    return photo.taken(frame, rng)


def single(pack: Pack, rng: Random) -> tuple[Image.Image, Corners]:
    """A customer's picture of one product and its box: turned, leaning, unevenly lit, on a busy
    ground, sometimes partly covered. 800 pixels on the longer side."""
    size = (600, 800) if rng.random() < 0.6 else (800, 640)
    ground = scenery.SURFACES[int(rng.integers(len(scenery.SURFACES)))]
    frame = ground(size, rng)
    view = View(float(rng.uniform(-0.5, 0.5)), float(rng.choice([-0.9, -0.5, 0.5, 0.9])))
    turn = float(rng.uniform(-15, 15))
    lean = (float(rng.uniform(-0.12, 0.12)), float(rng.uniform(-0.1, 0.1)))
    box = _place(frame, pack, view, turn, lean, float(rng.uniform(0.5, 0.78)), 1.0, rng)
    if rng.random() < 0.5:
        cover = (scenery.sticker, scenery.glare, scenery.foreground)[int(rng.integers(3))]
        cover(frame, box, rng)
    photo = Photo(
        light=float(rng.uniform(0.1, 0.6)),
        toward=float(rng.uniform(0, 2 * math.pi)),
        exposure=float(rng.uniform(0.75, 1.12)),
        warmth=float(rng.uniform(-1, 1)),
        blur=float(rng.uniform(0, 1.6)),
        noise=float(rng.uniform(2, 9)),
    )
    return photo.taken(frame, rng), box


def _place(
    frame: Image.Image,
    pack: Pack,
    view: View,
    turn: float,
    lean: tuple[float, float],
    high: float,
    stray: float,
    rng: Random,
) -> Corners:
    """Put one pack in the middle or up to `stray` (0..1) away from it, `high` as a share of the
    frame's height at most."""
    width, height = frame.size
    shown = scenery.posed(sprite(pack, view), round(high * height), turn, lean)
    scale = min(1.0, 0.9 * width / shown.width, 0.94 * height / shown.height)
    if scale < 1:
        shown = shown.resize(
            (round(shown.width * scale), round(shown.height * scale)), Image.Resampling.LANCZOS
        )
    x = round((width - shown.width) * (0.5 + stray * rng.uniform(-0.4, 0.4)))
    y = round((height - shown.height) * (0.5 + stray * rng.uniform(-0.2, 0.35)))
    return scenery.put(frame, shown, x, y, shadow=0.5, side=-view.light)


def _casts(rng: Random) -> list[tuple[Pack, ...]]:
    """Who is in which scene: 2 to 6 products, each product about as often as any other."""
    sizes = [2 + k % 5 for k in range(SCENES)]
    deck: list[Pack] = []
    casts = []
    for size in sizes:
        cast: list[Pack] = []
        while len(cast) < size:
            deck = deck or [PACKS[k] for k in rng.permutation(len(PACKS))]
            if deck[-1] in cast:  # the deck was dealt anew in the middle of this scene
                deck.insert(0, deck.pop())
            else:
                cast.append(deck.pop())
        casts.append(tuple(cast))
    return casts


def scene(packs: Sequence[Pack], rng: Random) -> tuple[Image.Image, list[Corners]]:
    """Several products on a table or in a shelf, each at least a third of the frame high, and
    their boxes in the same order. 960 x 720 pixels; packs hardly hide each other."""
    width, height = size = (960, 720)
    two_rows = len(packs) >= 5
    boards = (0.47, 0.95) if two_rows else (float(rng.uniform(0.84, 0.92)),)
    if two_rows or rng.random() < 0.4:
        frame = scenery.shelf(size, rng, boards)
    else:
        frame = scenery.table(size, rng, boards[0] - float(rng.uniform(0.1, 0.2)))
    light = float(rng.choice([-0.6, 0.6]))
    half = math.ceil(len(packs) / 2)
    rows = (packs[:half], packs[half:]) if two_rows else (packs,)
    boxes: list[Corners] = []
    for board, row in zip(boards, rows, strict=True):
        high = rng.uniform(0.36, 0.41, len(row)) if two_rows else rng.uniform(0.42, 0.64, len(row))
        shown = []
        for pack, share in zip(row, high, strict=True):
            view = View(float(rng.uniform(-0.35, 0.35)), light)
            lean = (float(rng.uniform(-0.05, 0.05)), float(rng.uniform(-0.03, 0.03)))
            turn = float(rng.uniform(-3, 3))
            shown.append(scenery.posed(sprite(pack, view), round(share * height), turn, lean))
        room = width - sum(s.width for s in shown)
        if room < 0.04 * width * (len(row) + 1):  # too wide together: all a little smaller
            scale = 0.8 * width / sum(s.width for s in shown)
            shown = [
                s.resize(
                    (round(s.width * scale), round(s.height * scale)), Image.Resampling.LANCZOS
                )
                for s in shown
            ]
            room = width - sum(s.width for s in shown)
        gaps = room * rng.dirichlet(np.full(len(row) + 1, 6.0))
        x = 0.0
        for s, gap in zip(shown, gaps, strict=False):
            x += gap
            y = round(board * height) - s.height + round(float(rng.uniform(-4, 4)))
            boxes.append(scenery.put(frame, s, round(x), y, shadow=0.5, side=-light))
            x += s.width
    photo = Photo(
        light=float(rng.uniform(0, 0.4)),
        toward=float(rng.uniform(0, 2 * math.pi)),
        exposure=float(rng.uniform(0.85, 1.08)),
        warmth=float(rng.uniform(-0.8, 0.8)),
        blur=float(rng.uniform(0, 1.0)),
        noise=float(rng.uniform(1, 6)),
    )
    return photo.taken(frame, rng), boxes
