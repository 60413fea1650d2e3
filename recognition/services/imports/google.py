"""Google Product Search's bulk CSV, as it is.

`image-uri,image-id,product-set-id,product-id,product-category,product-display-name,labels,
bounding-poly`, without a header; https://cloud.google.com/vision/product-search/docs/csv-format
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final
from urllib.parse import quote

from django.utils.translation import gettext as _

from recognition.errors import BadInput
from recognition.services.imports.columns import Cells, around

COLUMNS: Final = (
    "image-uri",
    "image-id",
    "product-set-id",
    "product-id",
    "product-category",
    "product-display-name",
    "labels",
    "bounding-poly",
)
_BUCKETS: Final = "https://storage.googleapis.com/"


def is_header(row: Sequence[str]) -> bool:
    return [cell.strip().lower() for cell in row[:4]] == list(COLUMNS[:4])


def is_first_row(row: Sequence[str]) -> bool:
    """Whether a file that begins like this is Google's."""
    address = row[0].strip().lower() if row else ""
    return is_header(row) or (len(row) >= 4 and address.startswith(("gs://", "https://")))


def understand(names: Sequence[str], row: Sequence[str]) -> Cells:
    """One row. The label is the display name; where another product has that already the id is
    added, and where there is none it is the id.

    A bucket's address (`gs://`) becomes its public https one. `labels`, divided by commas or
    line breaks, become attributes; a key that comes several times becomes a list. Raises BadInput.
    """
    if len(row) > len(COLUMNS):
        raise BadInput(
            _(
                "it has %(cells)s cells, more than Google's %(columns)s; put labels and "
                "bounding-poly between quotation marks"
            )
            % {"cells": len(row), "columns": len(COLUMNS)}
        )
    cells = [cell.strip() for cell in row] + [""] * (len(COLUMNS) - len(row))
    image, image_id, product_set, product_id, category, name, labels, poly = cells
    if not image:
        raise BadInput(_("%(column)s is empty") % {"column": "image-uri"}, field="image-uri")
    if not product_id:
        raise BadInput(_("%(column)s is empty") % {"column": "product-id"}, field="product-id")
    if image.lower().startswith("gs://"):
        image = _BUCKETS + quote(image[5:])
    attributes = _attributes(labels)
    product: dict[str, Any] = {"external_id": product_id}
    if category:
        product["category"] = category
    if product_set:
        attributes |= {"product-set-id": product_set}
    if attributes:
        product["attributes"] = attributes
    return Cells(
        label=name,
        other_label=f"{name} ({product_id})" if name else product_id,
        image=image,
        image_id=image_id,
        box=around(poly) if poly else None,
        product=product,
    )


def _attributes(labels: str) -> dict[str, Any]:
    found: dict[str, list[str]] = {}
    try:
        pairs = list(chain.from_iterable(csv.reader(labels.splitlines())))
    except csv.Error as error:
        raise BadInput(
            _("not readable as CSV: %(why)s") % {"why": error}, field="labels"
        ) from error
    for pair in pairs:
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not pair.strip():
            continue
        if not key or not equals:
            raise BadInput(
                _("labels: “%(pair)s” is not key=value") % {"pair": pair}, field="labels"
            )
        found.setdefault(key, []).append(value)
    return {key: values if len(values) > 1 else values[0] for key, values in found.items()}
