"""Folders and archives of pictures. Nothing is ever unpacked, and nothing outside is opened."""

from __future__ import annotations

import os
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

from django.utils.translation import gettext as _

from recognition.errors import BadInput, TooLarge
from recognition.services.imports.lines import Place, printable

MOST_FILES: Final = 250_000
MOST_FILES_HERE: Final = 10_000_000
MOST_UNPACKED: Final = 200 * 2**30
MOST_RATIO: Final = 200  # pictures hardly shrink; a bomb does by a thousand
_RATIO_COUNTS_FROM: Final = 100 * 2**20
_DIRECTORY_ENTRY: Final = 46  # bytes in the central directory besides name and extras
_AVERAGE_ENTRY: Final = 400
_ARCHIVES: Final = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst")
_JUNK: Final = {"__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini"}
_UTF8_FLAG, _ENCRYPTED_FLAG = 0x800, 0x1


class Folder:
    """A directory on this machine, given by whoever may run commands here."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def open(self, name: str) -> BinaryIO:
        # An absolute path wins over the root, as in PaddleX, but it must lie below it.
        path = Path(os.path.normpath(self.root / name))
        if not path.is_relative_to(os.path.normpath(self.root)):
            raise BadInput(_("the path leaves the folder of pictures"), field="image")
        try:
            if not stat.S_ISREG(path.stat().st_mode):  # a pipe would wait for ever
                raise BadInput(_("it is a directory or a device, not a picture"), field="image")
            return path.open("rb")
        except FileNotFoundError as error:
            raise BadInput(_("there is no such file in the folder"), field="image") from error
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else _("impossible name")
            raise BadInput(
                _("the file cannot be opened: %(why)s") % {"why": why}, field="image"
            ) from error

    def names(self) -> Iterator[str]:
        for directory, folders, names in os.walk(self.root):
            folders[:] = sorted(name for name in folders if name not in _JUNK)
            for name in sorted(names):
                if name not in _JUNK:
                    yield Path(directory, name).relative_to(self.root).as_posix()


class Archive:
    """A ZIP somebody sent. Its directory is judged before any of it is unpacked.

    Raises BadInput when it is no ZIP or damaged, TooLarge for more than MOST_FILES files, for one
    that unpacks to more than MOST_UNPACKED bytes or to MOST_RATIO times its size, and for files
    that overlap (one kilobyte that unpacks to many). One `of_this_machine`, named by whoever may
    run commands here, may hold MOST_FILES_HERE and unpack to any size within the ratio. A single
    bad member is refused alone, when it is opened: outside paths, links, archives, encryption,
    names that are not UTF-8.
    """

    def __init__(self, file: BinaryIO, *, of_this_machine: bool = False) -> None:
        most_files = MOST_FILES_HERE if of_this_machine else MOST_FILES
        most_unpacked = None if of_this_machine else MOST_UNPACKED
        size = file.seek(0, os.SEEK_END)
        _refuse_long_directory(file, size, most_files)
        try:
            self._zip = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise BadInput(
                _("the archive is damaged or incomplete; make and send it again"), field="file"
            ) from error
        self._members: dict[str, zipfile.ZipInfo] = {}
        self._refused: dict[str, str] = {}
        self._judge(size, most_files, most_unpacked)

    def close(self) -> None:
        self._zip.close()

    def open(self, name: str) -> BinaryIO:
        name = _normal(name)
        if name in self._refused:
            raise BadInput(self._refused[name], field="image")
        try:
            return _Member(self._zip.open(self._members[name]))  # type: ignore[return-value]
        except KeyError as error:
            raise BadInput(_("there is no such file in the archive"), field="image") from error
        except (zipfile.BadZipFile, NotImplementedError, OSError) as error:
            raise _damaged_file() from error

    def names(self) -> Iterator[str]:
        """Refused members too: their line says why."""
        yield from self._members
        yield from self._refused

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def _judge(self, size: int, most_files: int, most_unpacked: int | None) -> None:
        infos = self._zip.infolist()
        if len(infos) > most_files:
            raise _too_many_files(most_files)
        unpacked = sum(info.file_size for info in infos)
        by_ratio = max(_RATIO_COUNTS_FROM, MOST_RATIO * size)
        if unpacked > by_ratio or (most_unpacked is not None and unpacked > most_unpacked):
            raise TooLarge(
                _(
                    "the archive of %(size)s bytes unpacks to %(unpacked)s bytes, which pictures "
                    "never do; send it without padding, or in parts"
                )
                % {"size": f"{size:,}", "unpacked": f"{unpacked:,}"},
                field="file",
            )
        self._refuse_overlaps(infos)
        for info in infos:
            name, reason = _judged(info)
            if info.is_dir() or _JUNK & set(PurePosixPath(name).parts):
                continue
            if not reason and (name in self._members or name in self._refused):
                reason = _("the archive has this name twice")
            if reason:
                self._refused[name] = reason
                self._members.pop(name, None)
            else:
                self._members[name] = info

    @staticmethod
    def _refuse_overlaps(infos: list[zipfile.ZipInfo]) -> None:
        end = 0
        for info in sorted(infos, key=lambda info: info.header_offset):
            if info.header_offset < end:
                raise BadInput(
                    _("files overlap inside the archive, which no packing program does"),
                    field="file",
                )
            end = info.header_offset + 30 + info.compress_size


class _Member:
    """A file of an archive whose damage shows as BadInput, while it is read."""

    def __init__(self, file: object) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        try:
            return self._file.read(size)  # type: ignore[attr-defined]
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
            raise _damaged_file() from error

    def close(self) -> None:
        self._file.close()  # type: ignore[attr-defined]

    def __enter__(self) -> _Member:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Nowhere:
    """The place of a list that came alone."""

    def open(self, name: str) -> BinaryIO:
        raise BadInput(
            _("the list came without pictures; put both into one ZIP, or give URLs"), field="image"
        )

    def names(self) -> Iterator[str]:
        return iter(())


class Below:
    """A place inside a place: the folder in which the list lies."""

    def __init__(self, place: Place, prefix: str) -> None:
        self._place, self._prefix = place, prefix

    def open(self, name: str) -> BinaryIO:
        return self._place.open(self._prefix + name)

    def names(self) -> Iterator[str]:
        for name in self._place.names():
            if name.startswith(self._prefix):
                yield name.removeprefix(self._prefix)


def _normal(name: str) -> str:
    # A Mac packs é as e and an accent, lists are mostly typed with the one letter.
    return unicodedata.normalize("NFC", name.replace("\\", "/").removeprefix("./"))


def _judged(info: zipfile.ZipInfo) -> tuple[str, str]:
    """Name of a member as it may be shown, and why it is refused, if it is."""
    # `orig_filename`, because zipfile cuts a name at NUL.
    name = info.orig_filename
    if not info.flag_bits & _UTF8_FLAG and not name.isascii():
        try:
            name = name.encode("cp437").decode()
        except UnicodeError:
            shown = _normal(printable(name))
            return shown, _("its name is not UTF-8; pack with UTF-8 names (7-Zip: -mcu=on)")
    name = _normal(name)
    parts = name.split("/")
    if "\0" in name or ".." in parts or not parts[0] or ":" in parts[0]:
        return printable(name), _("its name leads out of the archive")
    if stat.S_ISLNK(info.external_attr >> 16):
        return name, _("it is a link; pack the file itself")
    if name.lower().endswith(_ARCHIVES):
        return name, _("it is an archive inside the archive, which is not opened; unpack it first")
    if info.flag_bits & _ENCRYPTED_FLAG:
        return name, _("it is encrypted; pack it without a password")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return name, _("it is packed in an unusual way; pack it with the usual “deflate”")
    return name, ""


def _refuse_long_directory(file: BinaryIO, size: int, most_files: int) -> None:
    """Before zipfile reads it: a directory of millions of files would fill the memory.

    The end record is trusted no further than zipfile itself trusts it.
    """
    tail_size = min(size, 22 + 65_535 + 20 + 56)
    file.seek(size - tail_size)
    tail = file.read(tail_size)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22:
        raise BadInput(_("the file is not a ZIP archive, or only a part of one"), field="file")
    (length,) = struct.unpack_from("<L", tail, at + 12)
    record = tail[max(0, at - 76) : at - 20] if at >= 76 else b""
    if tail[at - 20 : at - 16] == b"PK\x06\x07" and record[:4] == b"PK\x06\x06":
        (length,) = struct.unpack_from("<Q", record, 40)
    file.seek(0)
    if length > most_files * _AVERAGE_ENTRY or length // _DIRECTORY_ENTRY > 8 * most_files:
        raise _too_many_files(most_files)


def _too_many_files(most: int) -> TooLarge:
    return TooLarge(
        _("the archive holds more than %(most)s files; send it in parts") % {"most": f"{most:,}"},
        field="file",
    )


def _damaged_file() -> BadInput:
    return BadInput(_("the file is damaged inside the archive"), field="image")
