"""The int8 twin of a network, calibrated on pictures of this site."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from django.conf import settings

from recognition.engine.installed import InstalledModel
from recognition.engine.store import ModelStore
from recognition.models import Catalogue, State
from recognition.services import files, showcase

PICTURES = 300
T = TypeVar("T")


def quantise(
    name: str, *, catalogue: Catalogue | None = None, count: int = PICTURES
) -> InstalledModel:
    """Make `NAME-int8` from an installed model and install it.

    Calibrated on at most `count` gallery pictures of the catalogue, spread over it, or of the demo
    when there is none. Errors as `ModelStore.quantise`.
    """
    with _pictures(catalogue, count) as paths:
        return ModelStore(settings.SHITU_MODELS_DIR).quantise(name, paths)


@contextmanager
def _pictures(catalogue: Catalogue | None, count: int) -> Iterator[list[Path]]:
    if catalogue is None:
        demo = showcase.pictures()
        shown = [path for path, _ in demo.gallery]
        yield _spread([*shown, *(one.path for one in (*demo.singles, *demo.scenes))], count)
        return
    images = catalogue.images.exclude(state=State.FAILED).exclude(file="").order_by("pk")
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number, stored in enumerate(
            _spread(list(images.values_list("file", flat=True)), count)
        ):
            paths.append(Path(folder, str(number)))
            paths[-1].write_bytes(files.read(stored))
        yield paths


def _spread(things: Sequence[T], count: int) -> list[T]:
    """At most `count` of them, evenly over the whole."""
    if len(things) <= count:
        return list(things)
    return [things[number * len(things) // count] for number in range(count)]
