"""As many pictures at a time as fit the memory of a worker."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

MOST_PIXELS = 64_000_000
"""Each takes 3 bytes decoded, and as much again twice on the way into the network."""


class _Sized(Protocol):
    """A row of a picture: it knows the size without opening the file."""

    width: int
    height: int


Row = TypeVar("Row", bound=_Sized)


def portions(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """The rows in order, in parts of at most `MOST_PIXELS` together; a larger picture is alone."""
    part: list[Row] = []
    pixels = 0
    for row in rows:
        size = row.width * row.height
        if part and pixels + size > MOST_PIXELS:
            yield part
            part, pixels = [], 0
        part.append(row)
        pixels += size
    if part:
        yield part
