"""What every reader makes of its format: lines, and the places where their pictures lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt
from django.utils.translation import gettext as _

from recognition.images import Picture
from recognition.models import GalleryImage, LineResult

MOST_TEXT = 500


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an import as its reader found it.

    It adds a picture (`picture` opens its bytes), or only tells about a product (`product` holds
    fields of Product), or both. `label` may be empty where `product` has an external id; a product
    is called `other_label` when it is new and `label` is empty or another's. `problem` says why
    nothing can come of the line, `note` why nothing has to (a blank line).

    `external_id` is of the picture, and so is `box`, in pixels. From an export come `vector_id`,
    the `checksum` of what was once uploaded, and `vectors`, the embeddings by view, when they are
    of the very weights that the catalogue uses.
    """

    number: int
    text: str
    label: str = ""
    other_label: str = ""
    external_id: str = ""
    picture: Callable[[], BinaryIO] | None = None
    source_name: str = ""
    box: Sequence[float] | None = None
    box_was_detected: bool = False
    product: Mapping[str, Any] = field(default_factory=dict)
    vector_id: int | None = None
    checksum: str = ""
    vectors: Mapping[int, npt.NDArray[np.float32]] = field(default_factory=dict)
    problem: str = ""
    note: str = ""


@dataclass(slots=True)
class Checked:
    """A line on its way into the catalogue: what it will be, and in the end what it became."""

    line: Line
    label: str = ""
    product: dict[str, Any] = field(default_factory=dict)
    picture: Picture | None = None
    result: LineResult = LineResult.OK
    reason: str = ""
    image: GalleryImage | None = None

    @property
    def size(self) -> int:
        return len(self.picture.data) if self.picture else 0

    def refuse(self, reason: str) -> None:
        self.result, self.reason, self.picture = LineResult.ERROR, reason, None

    def told_nothing_new(self) -> None:
        """About its product, which is all that a line without a picture is for."""
        if self.picture is None:
            self.result, self.reason = LineResult.DUPLICATE, _("the product is like that already")


@dataclass(frozen=True, slots=True)
class Source:
    """An opened import: how many lines about (0: not known), and the lines in input order.

    `fetches` says that pictures may be fetched from elsewhere, which is mostly waiting.
    """

    total: int
    lines: Iterator[Line]
    fetches: bool = False


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
