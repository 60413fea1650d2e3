"""`gallery.txt`: which picture shows which product, one line each, as PaddleX and PaddleClas do.

Reading never stops at a bad line: every line of the file gives exactly one `Entry` or `Problem`,
in order. Memory stays the same for any number of lines.

A line is `path label`. With a tab in it, the first tab divides; otherwise the first run of spaces
(so a label may hold spaces, and a path with spaces needs the tab). PaddleX itself knows a single
space only and stops at the first line that has more.
"""

from __future__ import annotations

import re
import sqlite3
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import BinaryIO, Final

from recognition.errors import BadInput

MAX_LABEL_LENGTH: Final = 255  # characters
MAX_PATH_LENGTH: Final = 4096  # bytes of UTF-8
MAX_LINE_LENGTH: Final = 8192  # bytes
_SHOWN: Final = 200  # characters of a bad line that are repeated in a report
_BOM: Final = "\ufeff"
_DRIVE: Final = re.compile(r"[A-Za-z]:[/\\]")
_SEPARATORS: Final = re.compile(r"[/\\]")

translate: Callable[[str], str] = str
"""Into the language of whoever asks. The site sets it; a client, which has no Django, is told in
English."""


def _(text: str) -> str:
    return translate(text)


class Severity(StrEnum):
    NOTE = "note"  # nothing is lost: a blank line, a line that was there before
    ERROR = "error"  # a picture or an id that was meant is not taken


@dataclass(frozen=True, slots=True)
class Entry:
    """One picture of one product. `note` says what is worth a look although it is accepted."""

    line_number: int
    path: str
    label: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Identifier:
    """One id of a list of images to remove."""

    line_number: int
    id: int


@dataclass(frozen=True, slots=True)
class Problem:
    """A line that is not taken: what it says (shortened, safe to print) and why."""

    line_number: int
    text: str
    reason: str
    severity: Severity


Line = Entry | Problem


def read_gallery_list(
    source: Iterable[bytes] | BinaryIO, *, allow_absolute: bool = False
) -> Iterator[Line]:
    """Each line of `source`, a binary file or chunks of bytes cut anywhere.

    UTF-8, with or without a BOM; lines end with LF or CRLF. Labels are normalised by `clean_label`;
    paths are left as written and must stay below the folder of pictures: no `..`, and absolute
    ones only with `allow_absolute` (PaddleX takes them always). A path that comes again with
    another label is taken, with a note: one photo may show two products. The same path and label
    again is a note of its own and is not taken.
    """
    with closing(_Seen()) as seen:
        for number, raw in enumerate(_lines(source), start=1):
            try:
                path, label = _parse(raw, allow_absolute=allow_absolute)
            except _Unusable as unusable:
                yield unusable.at(number, raw)
                continue
            same, other = seen.before(path, label, number)
            if same:
                why = _("the same as line %(line)s") % {"line": same}
                yield _Unusable(why, Severity.NOTE).at(number, raw)
            else:
                note = ""
                if other:
                    note = _("line %(line)s has this picture as %(label)s") % {
                        "line": other[0],
                        "label": repr(other[1]),
                    }
                yield Entry(number, path, label, note)


def read_ids(source: Iterable[bytes] | BinaryIO) -> Iterator[Identifier | Problem]:
    """Each line of a PaddleX `remove_ids` file: the first word is an id, the rest is ignored.

    A blank line, at which PaddleX fails, is a note.
    """
    for number, raw in enumerate(_lines(source), start=1):
        try:
            word = _text(raw).split()[0]
            if not re.fullmatch(r"[+-]?[0-9]{1,19}", word):
                raise _Unusable(_("%(word)s is not a whole number") % {"word": repr(word[:_SHOWN])})
            if not -(2**63) <= int(word) < 2**63:
                raise _Unusable(_("%(word)s is beyond 64 bits, so it is no id") % {"word": word})
            yield Identifier(number, int(word))
        except _Unusable as unusable:
            yield unusable.at(number, raw)


def write_gallery_list(rows: Iterable[tuple[str, str]]) -> Iterator[bytes]:
    """The lines of a gallery list, each with its LF, for `(path, label)` rows.

    Divided by a space where PaddleX can read it so, by a tab where path or label holds a space.
    What `read_gallery_list` (with `allow_absolute`) makes of them are the same paths and the
    labels after `clean_label`. Raises BadInput, naming the row, when one cannot be written.
    """
    for number, (path, label) in enumerate(rows, start=1):
        try:
            _check_path(path, allow_absolute=True)
            label = _cleaned(label)
            if path != path.strip() or path.startswith(_BOM):
                raise _Unusable(_("the path begins or ends with white space"))
        except _Unusable as unusable:
            raise BadInput(
                _("Row %(row)s cannot be written: %(why)s.")
                % {"row": number, "why": unusable.reason}
            ) from unusable
        divider = "\t" if " " in path or " " in label else " "
        yield f"{path}{divider}{label}\n".encode()


def clean_label(label: str) -> str:
    """`label` as it is stored: Unicode NFC, no white space around it.

    So that `é` typed on a Mac and on Windows is one product. Raises BadInput (`field="label"`)
    when it is empty, has a control character (a line break, a tab) or over 255 characters.
    """
    try:
        return _cleaned(label)
    except _Unusable as unusable:
        raise BadInput(
            _("Not a usable label: %(why)s.") % {"why": unusable.reason}, field="label"
        ) from unusable


class _Unusable(Exception):
    def __init__(self, reason: str, severity: Severity = Severity.ERROR) -> None:
        super().__init__(reason)
        self.reason, self.severity = reason, severity

    def at(self, line_number: int, raw: bytes) -> Problem:
        try:
            text = raw[: 4 * _SHOWN].decode()[:_SHOWN]
            shown = text if text.isprintable() else repr(text)[1:-1]
        except UnicodeDecodeError:
            shown = repr(raw[:_SHOWN])
        return Problem(line_number, shown, self.reason, self.severity)


class _Seen:
    """The pairs read so far, in a database that SQLite keeps on disk and forgets when closed.

    Exact, with line numbers, and of the same few megabytes for a million pairs.
    """

    def __init__(self) -> None:
        self._rows = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._rows.execute("PRAGMA synchronous = OFF")
        self._rows.execute("PRAGMA journal_mode = OFF")
        self._rows.execute(
            "CREATE TABLE seen (path TEXT, label TEXT, line INTEGER, PRIMARY KEY (path, label)) "
            "WITHOUT ROWID"
        )
        self._rows.execute("BEGIN")

    def before(self, path: str, label: str, line: int) -> tuple[int | None, tuple[int, str] | None]:
        """The line that had the same pair, or else one with this path and another label."""
        find = self._rows.execute
        same = find("SELECT line FROM seen WHERE path = ? AND label = ?", (path, label)).fetchone()
        if same:
            return same[0], None
        other = find("SELECT line, label FROM seen WHERE path = ? LIMIT 1", (path,)).fetchone()
        find("INSERT INTO seen VALUES (?, ?, ?)", (path, label, line))
        return None, other

    def close(self) -> None:
        self._rows.close()


def _lines(source: Iterable[bytes] | BinaryIO) -> Iterator[bytes]:
    """Lines without their LF; of one that is too long only enough to see that it is."""
    chunks = iter(partial(source.read, 65536), b"") if hasattr(source, "read") else iter(source)
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
        rest = rest[: MAX_LINE_LENGTH + 1]
    if rest:
        yield rest


def _text(raw: bytes) -> str:
    if len(raw) > MAX_LINE_LENGTH:
        raise _Unusable(_("longer than %(most)s bytes") % {"most": MAX_LINE_LENGTH})
    try:
        # Files put together by `cat` have a BOM in their middle.
        text = raw.decode().removeprefix(_BOM).rstrip()
    except UnicodeDecodeError as error:
        raise _Unusable(
            _("not UTF-8 (byte %(at)s); save the list as UTF-8") % {"at": error.start + 1}
        ) from error
    if not text:
        raise _Unusable(_("blank"), Severity.NOTE)
    return text


def _parse(raw: bytes, *, allow_absolute: bool) -> tuple[str, str]:
    text = _text(raw)
    path, divider, label = text.partition("\t") if "\t" in text else text.strip().partition(" ")
    path = path.strip()
    if not path:
        raise _Unusable(_("no path before the tab"))
    if not divider:
        raise _Unusable(_("no label: a line is a path, a space or tab, and a label"))
    _check_path(path, allow_absolute=allow_absolute)
    return path, _cleaned(label)


def _check_path(path: str, *, allow_absolute: bool) -> None:
    if not path or len(path.encode(errors="surrogatepass")) > MAX_PATH_LENGTH:
        raise _Unusable(_("the path is empty or over %(most)s bytes") % {"most": MAX_PATH_LENGTH})
    if control := _control_character(path):
        raise _Unusable(
            _("the path holds the control character %(character)s") % {"character": control}
        )
    parts = _SEPARATORS.split(path)
    if ".." in parts:
        raise _Unusable(_("the path leaves the folder of pictures ('..')"))
    if not allow_absolute and (not parts[0] or _DRIVE.match(path)):
        raise _Unusable(_("the path is absolute; write it relative to the folder of pictures"))


def _cleaned(label: str) -> str:
    label = unicodedata.normalize("NFC", label).strip()
    if not label:
        raise _Unusable(_("the label is empty"))
    if len(label) > MAX_LABEL_LENGTH:
        raise _Unusable(
            _("the label is longer than %(most)s characters") % {"most": MAX_LABEL_LENGTH}
        )
    if control := _control_character(label):
        raise _Unusable(
            _("the label holds the control character %(character)s") % {"character": control}
        )
    return label


def _control_character(text: str) -> str:
    """The first line or paragraph break, tab, NUL or other control, or half of a surrogate pair in
    `text`, as U+0009; empty when there is none."""
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
            return f"U+{ord(character):04X}"
    return ""
