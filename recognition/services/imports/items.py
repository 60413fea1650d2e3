"""Pictures of one API call, by URL or in base64, as JSON lines until a worker has done them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, Final

from recognition import images
from recognition.fetch import fetch_picture
from recognition.services.imports.lines import Line, printable

Item = Mapping[str, Any]
"""`label`, `url` or `image` (base64), and if wanted `name`, `external_id`, `box` in pixels."""

_IN_MEMORY: Final = 8 * 2**20


def written(items: Sequence[Item]) -> BinaryIO:
    """The items as a file, to be read by `lines`."""
    file = SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115
    for item in items:
        file.write(json.dumps(item).encode() + b"\n")
    file.seek(0)
    return file  # type: ignore[return-value]


def called(items: Sequence[Item]) -> str:
    """What a list of jobs calls them: the first URL, and how many pictures follow."""
    first = next((item["url"] for item in items if "url" in item), "")
    return f"{first[:200]} (+{len(items) - 1})" if len(items) > 1 else first


def lines(file: BinaryIO) -> Iterator[Line]:
    """A Line for every item; the first has the number 1."""
    for number, text in enumerate(iter(file.readline, b""), 1):
        item: Item = json.loads(text)
        name = item.get("name") or item.get("url", "")
        yield Line(
            number,
            printable(f"{item.get('url') or name or 'base64'}\t{item['label']}"),
            label=item["label"],
            external_id=item.get("external_id", ""),
            picture=partial(_open, item),
            source_name=name,
            box=item.get("box"),
        )


def _open(item: Item) -> BinaryIO:
    if "url" in item:
        return io.BytesIO(fetch_picture(item["url"]))
    return io.BytesIO(images.from_base64(item["image"]))
