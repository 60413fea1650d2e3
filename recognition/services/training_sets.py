"""A catalogue as the data set that PaddleX trains its image-feature module on (ShiTuRecDataset).

    images/           one picture a line of the lists: `<number>.<suffix>`
    train.txt         `images/12.jpg 0`: products to learn from, numbered 0 .. n - 1
    gallery.txt       products the network never sees while it learns, numbered from n on,
    query.txt         and pictures of the same ones to ask about
    label.txt         `0 green tea`: the product of each number
    queries.txt       the lines of query.txt with labels instead of numbers, for `compare_models`
    split.json        seed, shares, and which catalogue and vector ids these are

Whole products are held back, as in the In-Shop benchmark that PaddleX takes for its example: what
counts is how a network recognises products it was not trained on, because a catalogue gets new ones
every day.
"""

from __future__ import annotations

import io
import json
import math
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from PIL import Image

from recognition import images
from recognition.engine.types import Box
from recognition.errors import BadInput, Conflict
from recognition.gallery_list import write_gallery_list
from recognition.models import Catalogue, GalleryImage, State
from recognition.services import files

SPLIT_FILE: Final = "split.json"
QUERIES: Final = "queries.txt"
_FORMAT: Final = "shitu-training-set"
_BATCH: Final = 500

Progress = Callable[[int, int], object]
"""Called with how many pictures are written and how many there are."""


@dataclass(frozen=True, slots=True)
class Split:
    """`train` is the share of products to learn from; of every other product, the share `query` of
    its pictures is asked about and the rest is its gallery. Both lie between 0 and 1."""

    train: float = 0.8
    query: float = 0.3

    def check(self) -> None:
        """Raises BadInput for a share that leaves one of the lists empty."""
        for name, share in (("train", self.train), ("query", self.query)):
            if not 0 < share < 1:
                raise BadInput(
                    f"the share {name} must lie between 0 and 1, not {share}", field=name
                )


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """What was written: pictures of each list, and products to learn from and held back.

    `num_classes` is what PaddleX's training asks for. `left_out` names vector ids whose picture is
    missing (they came as vectors only).
    """

    train: int
    gallery: int
    query: int
    num_classes: int
    held_back: int
    left_out: tuple[int, ...]


def export_training_set(
    catalogue: Catalogue,
    directory: Path,
    *,
    seed: int = 0,
    split: Split | None = None,
    crop: bool = False,
    progress: Progress = lambda done, total: None,
) -> TrainingSet:
    """Write the data set into a new `directory`; all of it or nothing.

    Every embedded picture of an active product takes part. Products with a single picture cannot
    be asked about and are learnt from. The same seed gives the same split as long as the catalogue
    does not change. With `crop`, pictures whose box is known are cut to it, as PNG.

    Raises BadInput when there are too few products, Conflict when `directory` is not empty.
    """
    split = split or Split()
    split.check()
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise Conflict(f"{directory} is there already; choose another name", field="directory")
    by_product, left_out = _pictures(catalogue)
    lists, labels, classes = _split(by_product, seed, split)
    total = sum(len(rows) for rows in lists.values())
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".training-", dir=directory.parent) as scratch:
        new = Path(scratch, "new")
        (new / "images").mkdir(parents=True)
        paths: dict[int, str] = {}
        for done, image in enumerate(_rows(catalogue, lists), start=1):
            paths[image.number] = _write_picture(image, new, crop=crop)
            progress(done, total)
        written = {
            name: [(number, of) for number, of in rows if number in paths]
            for name, rows in lists.items()
        }
        for name, rows in written.items():
            text = "".join(f"{paths[number]} {of}\n" for number, of in rows)
            (new / f"{name}.txt").write_text(text, encoding="utf-8")
        (new / "label.txt").write_text(
            "".join(f"{of} {label}\n" for of, label in enumerate(labels)), encoding="utf-8"
        )
        with (new / QUERIES).open("wb") as file:
            file.writelines(
                write_gallery_list((paths[number], labels[of]) for number, of in written["query"])
            )
        about = {
            "format": _FORMAT,
            "catalogue": str(catalogue.key),
            "catalogue_version": catalogue.version,
            "seed": seed,
            "split": asdict(split),
            "crop": crop,
            "num_classes": classes,
            "numbers": {name: [number for number, _ in rows] for name, rows in written.items()},
        }
        (new / SPLIT_FILE).write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n")
        if directory.exists():
            directory.rmdir()
        new.rename(directory)
    return TrainingSet(
        train=len(written["train"]),
        gallery=len(written["gallery"]),
        query=len(written["query"]),
        num_classes=classes,
        held_back=len(labels) - classes,
        left_out=tuple(left_out),
    )


def held_back_queries(directory: Path, catalogue: Catalogue) -> list[int]:
    """Vector ids of the pictures that a training set of this catalogue asks about.

    Raises BadInput when the directory is no training set, or one of another catalogue.
    """
    try:
        about = json.loads((directory / SPLIT_FILE).read_text(encoding="utf-8"))
        if about["format"] != _FORMAT:
            raise ValueError(about["format"])
        numbers = [int(number) for number in about["numbers"]["query"]]
        key = about["catalogue"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{directory} is no training set that `export_training_set` wrote", field="training_set"
        ) from error
    if key != str(catalogue.key):
        raise BadInput(
            f"{directory} is a training set of another catalogue than “{catalogue}”",
            field="training_set",
        )
    return numbers


_Products = dict[tuple[int, str], list[int]]


def _pictures(catalogue: Catalogue) -> tuple[_Products, list[int]]:
    """Numbers of the pictures of each product (id, label), and those without a picture."""
    by_product: _Products = {}
    left_out = []
    rows = GalleryImage.objects.filter(
        catalogue=catalogue, state=State.DONE, product__is_active=True
    ).order_by("product_id", "number")
    for number, product_id, label, name in rows.values_list(
        "number", "product_id", "product__label", "file"
    ).iterator(chunk_size=5000):
        if name:
            by_product.setdefault((product_id, label), []).append(number)
        else:
            left_out.append(number)
    return by_product, left_out


_Lists = dict[str, list[tuple[int, int]]]
"""train, gallery and query: (vector id, number of its product)."""


def _split(by_product: _Products, seed: int, split: Split) -> tuple[_Lists, list[str], int]:
    """The lists, the label of each product's number, and how many products are learnt from."""
    shuffled = random.Random(seed)  # noqa: S311  (repeatable, not secret)
    products = sorted(by_product)
    several = [product for product in products if len(by_product[product]) > 1]
    shuffled.shuffle(several)
    held = max(1, round(len(products) * (1 - split.train)))
    if len(products) < 2 or len(several) < held or held == len(products):
        raise BadInput(
            f"{len(products)} products with pictures, {len(several)} of them with two or more, "
            f"cannot be split into {split.train:.0%} to learn from and the rest to ask about: at "
            "least one product must be learnt from, and those held back need two pictures each. "
            "Add pictures or change the share",
            field="split",
        )
    held_back = set(several[:held])
    learnt = [product for product in products if product not in held_back]
    order = [*learnt, *sorted(held_back)]
    lists: _Lists = {"train": [], "gallery": [], "query": []}
    for of, product in enumerate(order):
        numbers = by_product[product]
        if product not in held_back:
            lists["train"] += [(number, of) for number in numbers]
            continue
        asked = min(len(numbers) - 1, math.ceil(len(numbers) * split.query))
        query = set(shuffled.sample(numbers, asked))
        for number in numbers:
            lists["query" if number in query else "gallery"].append((number, of))
    return lists, [label for _, label in order], len(learnt)


def _rows(catalogue: Catalogue, lists: _Lists) -> Iterator[GalleryImage]:
    """The rows of all lists, those that are still there, a batch at a time."""
    numbers = [number for rows in lists.values() for number, _ in rows]
    for start in range(0, len(numbers), _BATCH):
        yield from GalleryImage.objects.filter(
            catalogue=catalogue, number__in=numbers[start : start + _BATCH]
        ).order_by("number")


def _write_picture(image: GalleryImage, directory: Path, *, crop: bool) -> str:
    """Write the picture as it is stored, or its box; returns its path in the data set.

    Unique names in one folder, because PaddleX's checker copies pictures by their last name, and
    finds the data set by the one folder called `images`.
    """
    name = str(image.file)
    data = files.read(name)
    if crop and image.box:
        left, top, right, bottom = image.box
        pixels = Box(left, top, right, bottom, 1.0).crop(images.decode(data))
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "PNG", compress_level=1)
        data, suffix = out.getvalue(), ".png"
    else:
        suffix = PurePosixPath(name).suffix
    path = f"images/{image.number}{suffix}"
    (directory / path).write_bytes(data)
    return path
