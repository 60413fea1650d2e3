"""Stored pictures: written before their row, removed after it is gone for good.

Every row has a file of its own under a random name, so two rows never share one, no name can be
guessed, and what a killed process leaves behind is at worst a file without a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import structlog
from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import transaction
from django.utils import translation

from recognition.errors import TryAgain

log = structlog.get_logger(__name__)

_Answer = TypeVar("_Answer")

# Each may be a request to another machine, and a catalogue may have a million files.
_AT_ONCE = 16


@contextmanager
def storing() -> Iterator[list[str]]:
    """Yields a list for the names of files stored in the block; deletes them if it fails.

    It belongs inside the transaction that writes their rows: whatever comes to pass at the commit
    or behind it, the rows may be there, and then they need their files.
    """
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


def missing(names: Iterable[str | None]) -> set[str]:
    """Those names under which nothing is stored; the empty one is of no file. Raises TryAgain as
    `read` does."""
    named = [name for name in names if name]
    found = _at_once(default_storage.exists, named)
    return {name for name, is_there in zip(named, found, strict=True) if not is_there}


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
    _at_once(_remove_one, names)


def _remove_one(name: str) -> None:
    try:
        default_storage.delete(name)
    except (OSError, TryAgain) as error:
        log.warning("file_not_removed", name=name, reason=str(error))


def _at_once(act: Callable[[str], _Answer], names: Sequence[str]) -> list[_Answer]:
    """What `act` answers for each name, several at a time."""
    if not names:
        return []
    with ThreadPoolExecutor(
        min(_AT_ONCE, len(names)),
        initializer=translation.activate,  # a thread does not inherit it
        initargs=(translation.get_language(),),
    ) as pool:
        return list(pool.map(act, names))
