"""The result of one picture: PaddleX's `ShiTuResult`."""

from __future__ import annotations

import json
import mimetypes
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from recognition import inputs

# Inside the class `str` is PaddleX's property.
_Text: TypeAlias = str
_Place: TypeAlias = str | Path
_unnamed = count(1)


class ShiTuResult(dict[str, Any]):
    """`{"input_path", "boxes": [{"labels", "rec_scores", "det_score", "coordinate"}]}`.

    A box that matches nothing has `[None]` for labels and scores, as in PaddleX. `input_path` is
    None for an array or a PIL image (PaddleX puts all its pixels there). `result["input_img"]` is
    the picture, BGR uint8 (H, W, 3), decoded at first use and in no file.
    """

    def __init__(
        self,
        input_path: _Text | None,
        boxes: list[dict[_Text, Any]],
        load: Callable[[], bytes],
        *,
        page: int | None = None,
    ) -> None:
        super().__init__(input_path=input_path, boxes=boxes)
        self._load = load
        self._page = page
        self._name = ""

    def __missing__(self, key: _Text) -> npt.NDArray[np.uint8]:
        if key != "input_img":
            raise KeyError(key)
        self._pixels = getattr(self, "_pixels", None)
        if self._pixels is None:
            self._pixels = inputs.to_array(self._load())
        return self._pixels

    @property
    def json(self) -> dict[_Text, dict[_Text, Any]]:
        """`{"res": {...}}` of plain Python values."""
        return {"res": dict(self)}

    @property
    def str(self) -> dict[_Text, dict[_Text, Any]]:
        return self.json

    @property
    def img(self) -> dict[_Text, Image.Image]:
        """`{"res": image}`: the picture with every box and its best label."""
        from recognition import drawing  # needs the font, which only drawing does

        boxes = []
        for box in self["boxes"]:
            label, score = box["labels"][0], box["rec_scores"][0]
            known = label is not None
            text = f"{label} {score:.2f}" if known else "?"
            kind: drawing.Kind = "match" if known else "unknown"
            x1, y1, x2, y2 = box["coordinate"]
            boxes.append(drawing.AnnotatedBox(x1, y1, x2, y2, text, kind))
        return {"res": drawing.annotate(self["input_img"][:, :, ::-1], boxes)}

    def print(
        self,
        json_format: bool = False,
        indent: int = 4,
        ensure_ascii: bool = False,
        *,
        format_json: bool = False,
    ) -> None:
        """Write it to standard output; `json_format` makes it JSON with that indentation, and so
        does `format_json`, as some of PaddleX's documents have it."""
        text = (
            json.dumps(self.json, indent=indent, ensure_ascii=ensure_ascii)
            if json_format or format_json
            else repr(self.json)
        )
        sys.stdout.write(f"{text}\n")

    def save_to_json(self, save_path: _Place, indent: int = 4, ensure_ascii: bool = False) -> None:
        """Save it to a `.json` file, or as `{stem}.json` into a directory."""
        target = self._target(save_path, "application/json", f"{self._stem}.json")
        text = json.dumps(dict(self), indent=indent, ensure_ascii=ensure_ascii)
        target.write_text(text, encoding="utf-8")

    def save_to_img(self, save_path: _Place) -> None:
        """Save the drawn picture to an image file, or as `{stem}_res{suffix}` into a directory."""
        suffix = Path(self["input_path"] or "").suffix
        if not _is(f"x{suffix}", "image/"):
            suffix = ".png"
        target = self._target(save_path, "image/", f"{self._stem}_res{suffix}")
        self.img["res"].save(target)

    def save_all(self, save_path: _Place) -> None:
        """Both files into a directory."""
        self.save_to_json(save_path)
        self.save_to_img(save_path)

    @property
    def _stem(self) -> _Text:
        """Of the input, and of which page; what has no name gets one that no other result has."""
        if self["input_path"]:
            page = "" if self._page is None else f"-{self._page}"
            return Path(self["input_path"]).stem + page
        self._name = self._name or f"{int(time.time())}_{next(_unnamed):04}"
        return self._name

    def _target(self, save_path: _Place, kind: _Text, name: _Text) -> Path:
        path = Path(save_path)
        target = path if _is(path.name, kind) else path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return target


def _is(name: str, kind: str) -> bool:
    return (mimetypes.guess_type(name)[0] or "").startswith(kind)
