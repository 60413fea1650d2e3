"""The columns of a manifest: what each is called, and where it goes. The only place that knows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from django.utils.translation import gettext as _

from recognition.errors import BadInput

_TRUE: Final = {"1", "true", "yes", "y", "是"}
_FALSE: Final = {"0", "false", "no", "n", "否"}
_NUMBER: Final = r"[-+]?\d+(?:\.\d+)?"
_BOX: Final = re.compile(rf"[\[(]?\s*({_NUMBER}(?:[\s,;]+{_NUMBER})*)\s*[\])]?")


@dataclass(slots=True)
class Cells:
    """The cells of one row, understood."""

    label: str = ""
    other_label: str = ""
    image: str = ""
    image_id: str = ""
    box: list[float] | None = None
    product: dict[str, Any] = field(default_factory=dict)


def text(cell: str) -> str:
    return cell


def truth(cell: str) -> bool:
    """yes or no. Raises BadInput."""
    word = cell.casefold()
    if word not in _TRUE | _FALSE:
        raise BadInput(_("“%(cell)s” is neither yes nor no") % {"cell": cell})
    return word in _TRUE


def box(cell: str) -> list[float]:
    """`x1,y1,x2,y2` in pixels, in any usual writing. Raises BadInput."""
    corners = _numbers(cell)
    if len(corners) != 4:
        raise BadInput(
            _("“%(cell)s” is no box; write x1,y1,x2,y2 in pixels") % {"cell": cell}, field="box"
        )
    return corners


def around(cell: str) -> list[float]:
    """The box around a polygon `x1,y1,x2,y2,...` in pixels. Raises BadInput."""
    corners = _numbers(cell)
    if len(corners) < 4 or len(corners) % 2:
        raise BadInput(
            _("“%(cell)s” is no polygon; write x1,y1,x2,y2,... in pixels") % {"cell": cell},
            field="box",
        )
    across, down = corners[::2], corners[1::2]
    return [min(across), min(down), max(across), max(down)]


def value(cell: str) -> Any:
    """An attribute: a number, true, false or null as JSON writes it, otherwise the text itself."""
    try:
        parsed = json.loads(cell)
    except (ValueError, RecursionError):
        return cell
    plain = isinstance(parsed, bool | int) or (isinstance(parsed, float) and abs(parsed) < 1e308)
    # 007 is no JSON and 1e400 no number; what would not come back as it was written stays text
    return parsed if plain and len(cell) <= 30 else cell


def _numbers(cell: str) -> list[float]:
    found = _BOX.fullmatch(cell.strip())
    return [float(number) for number in re.findall(_NUMBER, found[1])] if found else []


OWN: Final = ("label", "image", "image_id", "box")
"""Columns of the picture, and the label. `image_id` is the caller's own id of the picture."""

PRODUCT: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = {
    "external_id": ("external_id", text),
    "sku": ("sku", text),
    "barcode": ("barcode", text),
    "category": ("category", text),
    "description": ("description", text),
    "price": ("price", text),
    "currency": ("currency", text),
    "active": ("is_active", truth),
}
"""Column -> field of Product, and how a cell is read; `product_fields.clean` judges the value."""

PRODUCT_MAPS: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = {
    "names.": ("names", text),
    "attributes.": ("attributes", value),
}
"""Prefix of columns -> field of Product that holds a JSON object."""

ALIASES: Final[Mapping[str, str]] = {
    "product": "label",
    "name": "label",
    "image_path": "image",
    "image_uri": "image",
    "image_url": "image",
    "path": "image",
    "url": "image",
    "file": "image",
    "bbox": "box",
    "product_id": "external_id",
    "image_external_id": "image_id",
    "is_active": "active",
}


def canonical(header: str) -> str:
    """A column's name as the tables have it: lower case, `_`, aliases replaced."""
    header = header.strip()
    for prefix in PRODUCT_MAPS:
        if header.casefold().startswith(prefix):  # the key itself keeps its case
            return prefix + header[len(prefix) :].strip()
    name = re.sub(r"[\s_-]+", "_", header.casefold())
    return ALIASES.get(name, name)


def is_known(column: str) -> bool:
    """Whether a canonical name is one of ours."""
    return column in OWN or column in PRODUCT or _map_of(column) is not None


def understand(columns: Sequence[str], row: Sequence[str]) -> Cells:
    """The cells of one row below these canonical columns; empty cells say nothing.

    Raises BadInput naming the column.
    """
    if any(cell.strip() for cell in row[len(columns) :]):
        raise BadInput(
            _("it has %(cells)s cells, more than the %(columns)s columns")
            % {"cells": len(row), "columns": len(columns)}
        )
    cells = Cells()
    for column, cell in zip(columns, row, strict=False):
        cell = cell.strip()
        if not cell or not is_known(column):
            continue
        try:
            _put(cells, column, cell)
        except BadInput as error:
            raise BadInput(f"{column}: {error.message}", field=column) from error
    return cells


def _put(cells: Cells, column: str, cell: str) -> None:
    if column == "label":
        cells.label = cell
    elif column == "image":
        cells.image = cell
    elif column == "image_id":
        cells.image_id = cell
    elif column == "box":
        cells.box = box(cell)
    elif (prefix := _map_of(column)) is not None:
        name, read = PRODUCT_MAPS[prefix]
        cells.product.setdefault(name, {})[column.removeprefix(prefix)] = read(cell)
    else:
        name, read = PRODUCT[column]
        cells.product[name] = read(cell)


def _map_of(column: str) -> str | None:
    return next((p for p in PRODUCT_MAPS if column.startswith(p) and column != p), None)
