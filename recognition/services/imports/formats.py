"""Which format a source is in, and its reader."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final

from django.core.files.storage import default_storage
from django.utils.translation import gettext as _

from recognition.errors import BadInput, TooLarge
from recognition.models import Catalogue, Job
from recognition.models.job import LOCAL_PATH
from recognition.services.imports import folders, items, manifest, paddlex, site_archive
from recognition.services.imports.lines import Place, Source
from recognition.services.imports.places import Archive, Below, Folder, Nowhere

LABELS: Final = "labels"
ITEMS: Final = "items"
GALLERY_LIST: Final = "gallery.txt"
MOST_LIST: Final = 2**30
_MANIFESTS: Final = (".csv", ".xlsx")
_PICTURES: Final = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"II*\0", b"MM\0*", b"\0\0\0")
"""How files begin that are no text: JPEG, PNG, GIF, WebP, TIFF, AVIF and HEIC."""
_LONGEST_MARK: Final = max(map(len, _PICTURES))


@contextmanager
def opened(job: Job) -> Iterator[Source]:
    """The source of an import job, open as long as the block runs. Raises BadInput, TooLarge."""
    with ExitStack() as stack:
        if path := job.options.get(LOCAL_PATH):
            yield _local(stack, Path(path), job.options.get(LABELS), job.catalogue)
        else:
            file = stack.enter_context(_stored(job))
            if job.options.get(ITEMS):
                yield Source(job.total, items.lines(file), fetches=True)
            else:
                yield _file(stack, file, job.source_name, Nowhere(), job.catalogue)


@contextmanager
def archive_head(source: Path | BinaryIO) -> Iterator[dict[str, Any] | None]:
    """What an export of this platform says about its catalogue; None for any other source."""
    with ExitStack() as stack:
        place: Place
        if isinstance(source, Path) and source.is_dir():
            place = Folder(source)
        else:
            file = stack.enter_context(_opened(source)) if isinstance(source, Path) else source
            if not zipfile.is_zipfile(file):
                yield None
                return
            archive = Archive(file, of_this_machine=isinstance(source, Path))
            place = stack.enter_context(closing(archive))
        name = _first(_lists(place), site_archive.CATALOGUE)
        yield None if name is None else site_archive.head(Below(place, _prefix(name)))


def folder_digest(path: Path) -> str:
    """SHA-256 of what decides on the lines of a folder: its names, size and time of its lists.

    Raises OSError.
    """
    folder, digest = Folder(path), sha256()
    for name in folder.names():
        digest.update(os.fsencode(name) + b"\0")
    for name in _lists(folder):
        found = (path / name).stat()
        digest.update(b"%d %d\0" % (found.st_size, found.st_mtime_ns))
    return digest.hexdigest()


def _local(stack: ExitStack, path: Path, labels: str | None, catalogue: Catalogue) -> Source:
    if labels is not None:
        place = Folder(path)
        if not path.is_dir():
            raise BadInput(_("there is no folder %(path)s") % {"path": path}, field="gallery")
        return _listed(stack, Path(labels), place)
    if path.is_dir():
        return _place(stack, Folder(path), catalogue)
    file = stack.enter_context(_opened(path))
    return _file(stack, file, path.name, Folder(path.parent), catalogue, of_this_machine=True)


def _listed(stack: ExitStack, labels: Path, place: Place) -> Source:
    """A list beside a folder: a gallery list, unless its name says that it is a manifest."""
    file = stack.enter_context(_opened(labels))
    if labels.suffix.lower() in _MANIFESTS:
        return _manifest(file, place)
    counted = paddlex.count(file)
    file.seek(0)
    return Source(counted, paddlex.lines(file, place))


def _file(
    stack: ExitStack,
    file: BinaryIO,
    name: str,
    beside: Place,
    catalogue: Catalogue,
    *,
    of_this_machine: bool = False,
) -> Source:
    """A ZIP, a workbook or a CSV file, by its bytes rather than by its name."""
    head = file.read(_LONGEST_MARK)
    file.seek(0)
    if not head.startswith(b"PK"):
        if head.startswith(_PICTURES):
            raise BadInput(
                _(
                    "this is a picture; put it into a ZIP, in a folder called as its product or "
                    "with a list"
                ),
                field="file",
            )
        if PurePosixPath(name).suffix.lower() == ".txt":
            raise BadInput(
                _("a gallery list came without its pictures; put both into one ZIP"), field="file"
            )
        return _manifest(file, beside)
    archive = stack.enter_context(closing(Archive(file, of_this_machine=of_this_machine)))
    if "xl/workbook.xml" in archive:
        return _manifest(file, beside)
    return _place(stack, archive, catalogue)


def _manifest(file: BinaryIO, place: Place) -> Source:
    file.seek(0)
    if file.read(2) == b"PK":
        file.seek(0)
        return Source(0, manifest.xlsx_lines(file, place), fetches=True)
    file.seek(0)
    counted = paddlex.count(file)
    file.seek(0)
    return Source(counted, manifest.csv_lines(file, place), fetches=True)


def _place(stack: ExitStack, place: Place, catalogue: Catalogue) -> Source:
    """What a folder or an archive holds; its list may lie in a folder at the top."""
    lists = _lists(place)
    name = _first(lists, site_archive.CATALOGUE) or _first(lists, GALLERY_LIST)
    if name is None and len(lists) > 1:
        raise BadInput(
            _("several lists, and no word which one: %(lists)s") % {"lists": ", ".join(lists)},
            field="file",
        )
    if name is None and lists:
        name = lists[0]
    if name is None:
        total = folders.count(place)
        if not total:
            raise BadInput(_("there are no files in it"), field="file")
        return Source(total, folders.lines(place))
    below = Below(place, _prefix(name))
    if name.endswith(site_archive.CATALOGUE):
        return Source(site_archive.total(below), site_archive.lines(below, catalogue))
    listing = _copied(stack, place, name)
    if name.endswith(GALLERY_LIST):
        counted = paddlex.count(listing)
        listing.seek(0)
        return Source(counted, paddlex.lines(listing, below))
    return _manifest(listing, below)


def _lists(place: Place) -> list[str]:
    """Every list at the top of the place or in a folder there, those at the top first."""
    found = [
        name
        for name in place.names()
        if name.count("/") <= 1
        and (
            PurePosixPath(name).name in (site_archive.CATALOGUE, GALLERY_LIST)
            or name.lower().endswith(_MANIFESTS)
        )
    ]
    return sorted(found, key=lambda name: (name.count("/"), name))


def _first(lists: list[str], wanted: str) -> str | None:
    return next((name for name in lists if PurePosixPath(name).name == wanted), None)


def _prefix(name: str) -> str:
    folder, slash, _ = name.rpartition("/")
    return folder + slash


def _copied(stack: ExitStack, place: Place, name: str) -> BinaryIO:
    """A list on disk, because readers go back and forth in it."""
    copy = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
    with closing(place.open(name)) as file:
        while chunk := file.read(1 << 20):
            copy.write(chunk)
            if copy.tell() > MOST_LIST:
                raise TooLarge(
                    _("%(name)s has more than %(most)s bytes")
                    % {"name": name, "most": f"{MOST_LIST:,}"},
                    field="file",
                )
    copy.seek(0)
    return copy


def _stored(job: Job) -> BinaryIO:
    try:
        return default_storage.open(str(job.file))  # type: ignore[return-value]
    except (OSError, ValueError) as error:
        raise BadInput(_("what was uploaded is no longer there; send it again")) from error


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise BadInput(
            _("%(path)s cannot be read: %(why)s") % {"path": path, "why": error.strerror},
            field="source",
        ) from error
