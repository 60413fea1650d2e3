"""A folder for every product, named by its label, with the pictures in it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import PurePosixPath

from django.utils.translation import gettext as _

from recognition.services.imports.lines import Line, Place, printable


def lines(place: Place) -> Iterator[Line]:
    """A Line for every file, in the order of the place.

    The label is the name of the folder that holds the file, so `shop/tea/1.jpg` shows “tea”.
    """
    for number, name in enumerate(place.names(), start=1):
        path = PurePosixPath(name)
        if len(path.parts) < 2:
            why = _("it lies in no folder; put it into one named by its label")
            yield Line(number, printable(name), problem=why)
        else:
            yield Line(
                number,
                printable(name),
                label=path.parent.name,
                picture=partial(place.open, name),
                source_name=name,
            )


def count(place: Place) -> int:
    """How many lines that will be."""
    return sum(1 for _ in place.names())
