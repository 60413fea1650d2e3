"""Stored pictures: written before their row, removed after it is gone for good.

Every row has a file of its own under a random name, so two rows never share one, no name can be
guessed, and what a killed process leaves behind is at worst a file without a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import structlog
from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import transaction

from recognition.errors import TryAgain

log = structlog.get_logger(__name__)

# Removing a file may be a request to another machine, and a catalogue may have a million.
_REMOVED_AT_ONCE = 16


@contextmanager
def storing() -> Iterator[list[str]]:
    """Yields a list for the names of files stored in the block; deletes them if it fails."""
    names: list[str] = []
    try:
        yield names
    except BaseException:
        _remove(names)
        raise


def keep(name: str, data: bytes) -> str:
    """Store `data` under `name`; returns the name the storage chose."""
    return default_storage.save(name, ContentFile(data))


def read(name: str | None) -> bytes:
    """The bytes stored under `name`. Raises FileNotFoundError, also for the empty name of an image
    that came without a picture; TryAgain when a storage elsewhere does not answer."""
    if not name:
        raise FileNotFoundError("there is no picture, only a vector")
    with default_storage.open(name) as file:
        return file.read()


def signed_url(name: str, *, kind: str, save_as: str = "") -> str | None:
    """An address of the storage's own, from which whoever has it fetches `name` for
    SHITU_S3_URL_SECONDS; None when it has none to offer, and the file is to be sent from here.

    For people who were found to be allowed to see it. `kind` is the content type, `save_as` the
    name under which it is offered for saving.
    """
    sign = getattr(default_storage, "signed_url", None)
    seconds = settings.SHITU_S3_URL_SECONDS
    return sign(name, seconds, kind=kind, save_as=save_as) if sign and seconds else None


def remove_on_commit(names: Iterable[str]) -> None:
    """Delete files once the transaction that removes their rows has committed."""
    names = [name for name in names if name]
    transaction.on_commit(lambda: _remove(names))


def _remove(names: Sequence[str]) -> None:
    """Their rows are gone, or never came: what cannot be deleted is for the log, and no error."""
    if names:
        with ThreadPoolExecutor(min(_REMOVED_AT_ONCE, len(names))) as pool:
            list(pool.map(_remove_one, names))


def _remove_one(name: str) -> None:
    try:
        default_storage.delete(name)
    except (OSError, TryAgain) as error:
        log.warning("file_not_removed", name=name, reason=str(error))
