"""What every reader makes of its format: lines, and the places where their pictures lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

MOST_TEXT = 500


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an import as its reader found it.

    It adds a picture (`picture` opens its bytes), or only tells about a product (`product` holds
    fields of Product), or both. `problem` says why nothing can come of it, `note` why nothing has
    to (a blank line). `box` is in pixels; `vector_id` the id the picture had where it comes from;
    `vectors` its embeddings, by view, when they are of the weights the catalogue uses.
    """

    number: int
    text: str
    label: str = ""
    picture: Callable[[], BinaryIO] | None = None
    source_name: str = ""
    box: Sequence[float] | None = None
    box_was_detected: bool = False
    product: Mapping[str, Any] = field(default_factory=dict)
    vector_id: int | None = None
    vectors: Mapping[int, npt.NDArray[np.float32]] = field(default_factory=dict)
    problem: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """An opened import: how many lines about (0: not known), and the lines in input order."""

    total: int
    lines: Iterator[Line]


class Place(Protocol):
    """Where the pictures of a list lie: a folder, an archive, or nowhere."""

    def open(self, name: str) -> BinaryIO:
        """The file called `name`, relative to this place. Raises BadInput with the reason."""
        ...

    def names(self) -> Iterator[str]:
        """Every file in it, relative, with `/`, in a fixed order."""
        ...


def printable(text: str) -> str:
    """Text as it may be stored and shown: no NUL, no halves of surrogate pairs, not too long."""
    return text[:MOST_TEXT].encode(errors="backslashreplace").decode().replace("\0", "\\0")
