"""Stored pictures: written before their row, removed after it is gone for good.

Every row has a file of its own under a random name, so two rows never share one, no name can be
guessed, and what a killed process leaves behind is at worst a file without a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import transaction


@contextmanager
def storing() -> Iterator[list[str]]:
    """Yields a list for the names of files stored in the block; deletes them if it fails."""
    names: list[str] = []
    try:
        yield names
    except BaseException:
        for name in names:
            default_storage.delete(name)
        raise


def keep(name: str, data: bytes) -> str:
    """Store `data` under `name`; returns the name the storage chose."""
    return default_storage.save(name, ContentFile(data))


def read(name: str | None) -> bytes:
    """The bytes stored under `name`. Raises FileNotFoundError, also for the empty name of an image
    that came without a picture."""
    if not name:
        raise FileNotFoundError("there is no picture, only a vector")
    with default_storage.open(name) as file:
        return file.read()


def remove_on_commit(names: Iterable[str]) -> None:
    """Delete files once the transaction that removes their rows has committed."""
    names = [name for name in names if name]

    def remove() -> None:
        for name in names:
            default_storage.delete(name)

    transaction.on_commit(remove)
