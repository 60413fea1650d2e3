"""CSV and XLSX: one row, one picture (or one product without a picture)."""

from __future__ import annotations

import csv
import io
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import Any, BinaryIO, Final

import openpyxl
from django.utils.translation import gettext as _
from openpyxl.utils.exceptions import InvalidFileException

from recognition.errors import BadInput, RecognitionError, TooLarge
from recognition.fetch import fetch_picture
from recognition.services.imports import columns, google
from recognition.services.imports.lines import Line, Place, printable

Row = tuple[int, list[str] | str]
"""Number of a row, and its cells, or the reason why there are none."""

Reader = Callable[[Sequence[str], Sequence[str]], columns.Cells]

MOST_CELL: Final = 131_072
MOST_LINE: Final = 1 << 20
MOST_SHARED_TEXT: Final = 256 * 2**20  # openpyxl keeps it in memory
_DELIMITERS: Final = ",;\t"


def csv_lines(file: BinaryIO, place: Place) -> Iterator[Line]:
    """A Line for every row of a CSV file: UTF-8, divided by comma, semicolon or tab.

    Google Product Search's bulk CSV is known by its first row, with or without a header. Raises
    BadInput when the file is in no form we know.
    """
    first = file.readline(MOST_LINE)
    _refuse_other_encodings(first)
    text = first.decode("utf-8-sig", "surrogateescape")
    if google.is_first_row(_split(text, ",")):
        rows = _csv_rows(first, file, ",")
        yield from _lines(rows, google.COLUMNS, google.understand, place, google.is_header)
        return
    delimiter = max(
        _DELIMITERS,
        key=lambda mark: sum(map(columns.is_known, map(columns.canonical, _split(text, mark)))),
    )
    yield from _with_header(_csv_rows(first, file, delimiter), place)


def xlsx_lines(file: BinaryIO, place: Place) -> Iterator[Line]:
    """The same for the first sheet of an XLSX workbook; formulas give their last value."""
    _refuse_bombs(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about styles and validations nobody asked for
        try:
            book = openpyxl.load_workbook(file, read_only=True, data_only=True, keep_links=False)
        except (*_DAMAGE, InvalidFileException) as error:
            raise _damaged_workbook() from error
        try:
            if not book.worksheets:
                raise BadInput(_("the workbook has no sheet with cells"), field="file")
            yield from _with_header(_sheet_rows(book.worksheets[0]), place)
        finally:
            book.close()


def _with_header(rows: Iterator[Row], place: Place) -> Iterator[Line]:
    number, header = next(rows, (0, []))
    names = [] if isinstance(header, str) else [columns.canonical(cell) for cell in header]
    if not {"label", "external_id"} & set(names) or len(set(names) - {""}) != len(
        [name for name in names if name]
    ):
        raise BadInput(
            _(
                "the first row does not name the columns: one must be “label” or “external_id”, "
                "one “image” (a path or URL), none may come twice"
            ),
            field="file",
        )
    lost = [name for name in names if name and not columns.is_known(name)]
    if lost:
        note = _("not stored: %(columns)s") % {"columns": ", ".join(lost)}
        yield Line(number, printable(", ".join(header)), note=note)
    yield from _lines(rows, names, columns.understand, place)


def _lines(
    rows: Iterator[Row],
    names: Sequence[str],
    understand: Reader,
    place: Place,
    is_header: Callable[[Sequence[str]], bool] = lambda row: False,
) -> Iterator[Line]:
    for number, row in rows:
        if isinstance(row, str):
            yield Line(number, "", problem=row)
            continue
        shown = printable(", ".join(row))
        if is_header(row):
            continue
        if not any(cell.strip() for cell in row):
            yield Line(number, "", note=_("blank"))
            continue
        try:
            yield _line(number, shown, understand(names, row), place)
        except RecognitionError as error:
            yield Line(number, shown, problem=error.message)


def _line(number: int, shown: str, cells: columns.Cells, place: Place) -> Line:
    return Line(
        number,
        shown,
        label=cells.label,
        other_label=cells.other_label,
        external_id=cells.image_id,
        picture=partial(_open, cells.image, place) if cells.image else None,
        source_name=cells.image,
        box=cells.box,
        product=cells.product,
    )


def _open(name: str, place: Place) -> BinaryIO:
    if name.lower().startswith(("http://", "https://")):
        return io.BytesIO(fetch_picture(name))
    return place.open(name)


def _split(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return []


def _csv_rows(first: bytes, rest: BinaryIO, delimiter: str) -> Iterator[Row]:
    """Rows with the number of the line they begin on; a bad one does not stop the others."""
    reader = csv.reader(_texts(first, rest), delimiter=delimiter)
    while True:
        number = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield number, _("not readable as CSV: %(why)s") % {"why": error}
            continue
        if any("\udc80" <= character <= "\udcff" for cell in row for character in cell):
            yield number, _("not UTF-8; save the list as CSV UTF-8")
        else:
            yield number, row


def _texts(first: bytes, rest: BinaryIO) -> Iterator[str]:
    yield first.decode("utf-8-sig", "surrogateescape")
    while line := rest.readline(MOST_LINE):
        yield line.decode("utf-8", "surrogateescape")


def _refuse_other_encodings(start: bytes) -> None:
    if not start.strip():
        raise BadInput(_("the list is empty, or begins with a blank line"), field="file")
    if start.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in start[:200]:
        raise BadInput(_("the list is not UTF-8; save it as “CSV UTF-8” or as XLSX"), field="file")


def _sheet_rows(sheet: Any) -> Iterator[Row]:
    rows = sheet.iter_rows(values_only=True)
    number = 0
    while True:
        number += 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except _DAMAGE as error:
            raise _damaged_workbook() from error
        yield number, [_cell(value) for value in row]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # Excel has no whole numbers
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    return str(value)[:MOST_CELL]


# What openpyxl raises on a file that is not what it claims to be.
_DAMAGE: Final = (
    zipfile.BadZipFile,
    zlib.error,
    SyntaxError,  # ParseError of XML
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    OSError,
    EOFError,
    AssertionError,
)


def _refuse_bombs(file: BinaryIO) -> None:
    try:
        with zipfile.ZipFile(file) as book:
            text = sum(info.file_size for info in book.infolist() if "sheets/" not in info.filename)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise _damaged_workbook() from error
    if text > MOST_SHARED_TEXT:
        raise TooLarge(_("the workbook unpacks to too much; send it as CSV"), field="file")
    file.seek(0)


def _damaged_workbook() -> BadInput:
    return BadInput(
        _("the workbook is damaged or not XLSX; save it as XLSX or “CSV UTF-8”"), field="file"
    )
