"""An export of this platform: pictures, products, boxes, ids, settings, and perhaps vectors.

`recognition/services/exports.py` writes it. Both JSON files are read as a stream.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import partial
from itertools import count, islice
from typing import Any, BinaryIO, Final

import ijson
import numpy as np
import numpy.typing as npt
from django.utils.translation import gettext as _

from recognition.errors import BadInput
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

_MOST_MANIFEST: Final = 1 << 20
_SHA256: Final = re.compile("[0-9a-f]{64}")


def head(place: Place) -> dict[str, Any]:
    """`format`, `version`, `catalogue` and `counts` of an archive. Raises BadInput."""
    found: dict[str, Any] = {"catalogue": {}, "counts": {}}
    with closing(place.open(CATALOGUE)) as file, _json_errors():
        for path, event, value in ijson.parse(file, use_float=True):
            if path in ("products", "images"):
                break
            if event in ("start_map", "end_map", "map_key", "start_array", "end_array"):
                continue
            within, _dot, name = path.rpartition(".")
            if not within:
                found[name] = value
            elif within in found and isinstance(found[within], dict):
                found[within][name] = value
    if found.get("format") != FORMAT or found.get("version") != VERSION:
        raise BadInput(
            _("%(file)s is not of %(format)s %(version)s, the only version this site reads")
            % {"file": CATALOGUE, "format": FORMAT, "version": VERSION},
            field="file",
        )
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
    rows = list(islice(vectors, len(views))) if vectors is not None else []
    if not all(isinstance(view, int) for view in views):
        why = _("its vectors are no list of numbers")
        return Line(number, printable(f"{item['path']}\t{item['label']}"), problem=why)
    own = dict(zip(views, rows, strict=False))
    usable = own and all(view in View.values for view in own)
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
    except ValueError as error:
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
        yield from ijson.items(file, f"{name}.item", use_float=True)


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
