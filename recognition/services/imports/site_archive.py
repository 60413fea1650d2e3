"""An export of this platform: pictures, products, boxes, ids, settings, and perhaps vectors.

`recognition/services/exports.py` writes it. Both JSON files are read as a stream.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import count, islice
from typing import Any, BinaryIO, Final

import ijson
import numpy as np
import numpy.typing as npt
from django.utils.translation import gettext as _

from recognition.errors import BadInput, TooLarge
from recognition.models import BoxSource, Catalogue, View
from recognition.services.imports.lines import Line, Place, printable

CATALOGUE: Final = "catalogue.json"
EMBEDDINGS: Final = "embeddings.json"
VECTORS: Final = "embeddings.npy"
FORMAT: Final = "shitu-catalogue"
VERSION: Final = 1

CATALOGUE_FIELDS: Final = (
    "name",
    "description",
    "detector",
    "crop_policy",
    "det_threshold",
    "rec_threshold",
    "margin",
    "top_k",
    "max_detections",
    "shown_label",
)
SPACE_FIELDS: Final = ("metric", "index_type")

MOST_HEAD: Final = 1 << 20  # bytes of catalogue.json before its products
MOST_ITEM: Final = 4 * 2**20  # bytes of one product or image, as of a row of a CSV file
MOST_PARTS: Final = 25_000  # of one; a product with all the attributes it may have has 21,000
MOST_DEPTH: Final = 8  # a list in the attributes of a product is 5 deep
_MOST_MANIFEST: Final = 1 << 20
_SHA256: Final = re.compile("[0-9a-f]{64}")


def head(place: Place) -> dict[str, Any]:
    """`format`, `version`, `catalogue` and `counts` of an archive. Raises BadInput, TooLarge."""
    found: dict[str, Any] = {"format": None, "version": None, "catalogue": {}, "counts": {}}
    with closing(place.open(CATALOGUE)) as file, _json_errors():
        for name, value in _entries(_Part(file, MOST_HEAD)):
            if name in ("products", "images"):
                break
            if name in found:
                found[name] = value
    if found["format"] != FORMAT or found["version"] != VERSION:
        raise BadInput(
            _("%(file)s is not of %(format)s %(version)s, the only version this site reads")
            % {"file": CATALOGUE, "format": FORMAT, "version": VERSION},
            field="file",
        )
    for name in ("catalogue", "counts"):
        if not isinstance(found[name], dict):
            raise _damaged(CATALOGUE)
    return found


def total(place: Place) -> int:
    """How many lines there are to expect: products, then images."""
    counts = head(place)["counts"]
    return sum(n for n in counts.values() if isinstance(n, int) and 0 <= n < 10**9)


def lines(place: Place, catalogue: Catalogue) -> Iterator[Line]:
    """A Line for every product, then one for every image.

    Images come with their vectors when the archive has some of the very weights, preprocessing
    and crop policy of `catalogue`; otherwise they will be embedded anew.
    """
    numbers = count(1)
    for item in _items(place, "products"):
        yield _product(next(numbers), item)
    vectors = _vectors(place, catalogue)
    for item in _items(place, "images"):
        yield _image(next(numbers), item, place, vectors)


def _product(number: int, item: Any) -> Line:
    if not isinstance(item, dict) or not isinstance(item.get("label"), str):
        return Line(number, printable(str(item)), problem=_("it is no product with a label"))
    known = {name: value for name, value in item.items() if name != "label"}
    return Line(number, printable(f"product {item['label']}"), label=item["label"], product=known)


def _image(number: int, item: Any, place: Place, vectors: Iterator[_Row] | None) -> Line:
    if not (
        isinstance(item, dict)
        and isinstance(item.get("path"), str)
        and isinstance(item.get("label"), str)
        and isinstance(item.get("vectors", []), list)
    ):
        why = _("it is no image with a path and a label")
        return Line(number, printable(str(item)), problem=why)
    # Taken from the stream even if the line fails later: the next image has the next rows.
    views = item.get("vectors", [])
    rows = islice(vectors, len(views)) if vectors is not None else ()
    own = {view: row for view, row in zip(views, rows, strict=False) if view in View.values}
    if not all(isinstance(view, int) for view in views):
        why = _("its vectors are no list of numbers")
        return Line(number, printable(f"{item['path']}\t{item['label']}"), problem=why)
    usable = own and all(view in View.values for view in views)
    vector_id, checksum = item.get("number"), str(item.get("checksum", ""))
    return Line(
        number,
        printable(f"{item['path']}\t{item['label']}"),
        label=item["label"],
        external_id=str(item.get("external_id", "")),
        picture=partial(place.open, item["path"]),
        source_name=str(item.get("source_name", "")),
        box=item.get("box") if isinstance(item.get("box"), list) else None,
        box_was_detected=item.get("box_source") == BoxSource.DETECTED,
        vector_id=vector_id if isinstance(vector_id, int) and 0 <= vector_id < 2**62 else None,
        checksum=checksum if _SHA256.fullmatch(checksum) else "",
        vectors=own if usable and all(map(_is_unit, own.values())) else {},
    )


_Row = npt.NDArray[np.float32]


def _is_unit(row: _Row) -> bool:
    return bool(abs(float(np.linalg.norm(row)) - 1) < 9e-4)  # half precision rounds by less


def _vectors(place: Place, catalogue: Catalogue) -> Iterator[_Row] | None:
    """The rows of the archive's vectors, in order; None when there are none that fit."""
    try:
        with closing(place.open(EMBEDDINGS)) as file:
            manifest = json.loads(file.read(_MOST_MANIFEST))
    except BadInput:  # there is none
        return None
    except (ValueError, RecursionError) as error:  # brackets in brackets
        raise _damaged(EMBEDDINGS) from error
    return (
        _rows(place, manifest) if isinstance(manifest, dict) and fits(manifest, catalogue) else None
    )


def fits(manifest: Mapping[str, Any], catalogue: Catalogue) -> bool:
    """Whether vectors so described could have been made by the catalogue itself."""
    model = catalogue.require_index().feature_model
    return (
        manifest.get("digest") == model.digest
        and manifest.get("dimension") == model.dimension
        and manifest.get("preprocessing") == model.preprocessing
        and manifest.get("crop_policy") == catalogue.crop_policy
        and (catalogue.crop_policy == "whole" or manifest.get("detector") == catalogue.detector)
    )


def _rows(place: Place, manifest: Mapping[str, Any]) -> Iterator[_Row]:
    """Rows of the .npy file, read one after the other; never unpickled."""
    with closing(place.open(VECTORS)) as file:
        try:
            version = np.lib.format.read_magic(file)
            if version != (1, 0):
                raise ValueError(version)
            shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
        except ValueError as error:
            raise _damaged(VECTORS) from error
        dimension = manifest["dimension"]
        if (
            by_columns
            or dtype.str not in ("<f2", "<f4")
            or len(shape) != 2
            or shape[1] != dimension
        ):
            raise BadInput(
                _("%(file)s is not as %(other)s describes it")
                % {"file": VECTORS, "other": EMBEDDINGS},
                field="file",
            )
        size = dimension * dtype.itemsize
        for _row in range(shape[0]):
            data = _exactly(file, size)
            if len(data) < size:
                raise BadInput(_("%(file)s is cut short") % {"file": VECTORS}, field="file")
            yield np.frombuffer(data, dtype).astype(np.float32)


def _damaged(name: str) -> BadInput:
    return BadInput(_("%(file)s is damaged") % {"file": name}, field="file")


def _exactly(file: BinaryIO, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := file.read(size - len(data))):
        data += more
    return data


def _items(place: Place, name: str) -> Iterator[Any]:
    with closing(place.open(CATALOGUE)) as file, _json_errors():
        part = _Part(file, MOST_ITEM)
        for entry, item in _entries(part):
            part.begin()
            if entry == name:
                yield item


class _Part:
    """catalogue.json, of which only so much may come until one says `begin` again: it will all be
    kept. Raises TooLarge for more than `most` bytes or MOST_PARTS keys, values and ends of them."""

    def __init__(self, file: BinaryIO, most: int) -> None:
        self._file, self._most = file, most
        self.begin()

    def begin(self) -> None:
        self._size = self._parts = 0

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._size += len(data)
        if self._size > self._most:
            raise _too_much()
        return data

    def events(self) -> Iterator[tuple[str, Any]]:
        # Without `use_float` a number of a million digits ends the process.
        for event in ijson.basic_parse(self, use_float=True):
            self._parts += 1
            if self._parts > MOST_PARTS:
                raise _too_much()
            yield event


def _entries(part: _Part) -> Iterator[tuple[str, Any]]:
    """Name and value of everything in the object that the file holds, in its order; of a list there
    each item by itself. Raises TooLarge for what is deeper than MOST_DEPTH."""
    name = key = ""
    around: list[Any] = []  # the objects and lists that are open
    for event, value in part.events():
        if event == "map_key":
            key = value
            if len(around) == 1:
                name = value
            continue
        if event in ("end_map", "end_array"):
            value = around.pop()
        else:
            if event == "start_map":
                value = {}
            elif event == "start_array":
                value = []
            if around and not _is_passed_on(around):
                inner = around[-1]
                if isinstance(inner, list):
                    inner.append(value)
                else:
                    inner[key] = value
            if event in ("start_map", "start_array"):
                around.append(value)
                if len(around) > MOST_DEPTH:
                    raise _too_much()
                continue
        of_items = len(around) == 1 and isinstance(value, list)
        if _is_passed_on(around) and not of_items:
            yield name, value


def _is_passed_on(around: Sequence[Any]) -> bool:
    """Whether what is in there is passed on by itself, and not kept."""
    return len(around) == 1 or (len(around) == 2 and isinstance(around[1], list))


def _too_much() -> TooLarge:
    return TooLarge(
        _(
            "%(file)s holds something larger or deeper than any export does; send the export as "
            "it was written"
        )
        % {"file": CATALOGUE},
        field="file",
    )


class _json_errors:  # noqa: N801  (used like contextlib.suppress)
    """Damaged JSON is bad input."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: Any) -> None:
        if kind is not None and issubclass(kind, ijson.JSONError | UnicodeDecodeError):
            raise BadInput(
                _("%(file)s is damaged: %(why)s") % {"file": CATALOGUE, "why": str(error)[:200]},
                field="file",
            ) from error
