"""PaddleX's own: a gallery list, and the pictures it names."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import BinaryIO

from recognition.gallery_list import Entry, Severity, read_gallery_list
from recognition.services.imports.lines import Line, Place, printable


def lines(listing: BinaryIO, place: Place) -> Iterator[Line]:
    """A Line for every line of the gallery list `listing`."""
    # A place judges absolute paths itself: PaddleX takes them, an archive cannot have them.
    for item in read_gallery_list(listing, allow_absolute=True):
        if isinstance(item, Entry):
            yield Line(
                item.line_number,
                printable(f"{item.path}\t{item.label}"),
                label=item.label,
                picture=partial(place.open, item.path),
                source_name=item.path,
            )
        elif item.severity == Severity.NOTE:
            yield Line(item.line_number, printable(item.text), note=item.reason)
        else:
            yield Line(item.line_number, printable(item.text), problem=item.reason)


def count(listing: BinaryIO) -> int:
    """How many lines that will be."""
    newlines, last = 0, b"\n"
    while chunk := listing.read(1 << 20):
        newlines += chunk.count(b"\n")
        last = chunk[-1:]
    return newlines + (last != b"\n")
