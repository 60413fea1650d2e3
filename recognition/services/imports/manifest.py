"""CSV and XLSX: one row, one picture (or one product without a picture)."""

from __future__ import annotations

import csv
import io
import re
import warnings
import zipfile
import zlib
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from itertools import count
from typing import IO, Any, BinaryIO, Final

from django.utils.translation import gettext as _
from openpyxl.cell.text import Text
from openpyxl.reader.excel import ExcelReader
from openpyxl.utils.exceptions import InvalidFileException
from openpyxl.xml.constants import SHARED_STRINGS, SHEET_MAIN_NS
from openpyxl.xml.functions import iterparse

from recognition.errors import BadInput, RecognitionError, TooLarge
from recognition.fetch import fetch_picture
from recognition.services.imports import columns, google
from recognition.services.imports.lines import MOST_TEXT, Line, Place, printable
from recognition.services.imports.places import MOST_RATIO, Archive

Row = tuple[int, list[str] | str]
"""Number of a row, and its cells, or the reason why there are none."""

Reader = Callable[[Sequence[str], Sequence[str]], columns.Cells]

MOST_CELL: Final = 131_072
MOST_LINE: Final = 1 << 20
MOST_RECORD: Final = 4 * 2**20  # bytes of one row of a CSV file
MOST_ROWS: Final = 1_048_576  # of a sheet, as in Excel
MOST_XML: Final = 16 * 2**20  # bytes that openpyxl keeps at once; styles of a book are long
MOST_TAGS: Final = 500_000
MOST_ATTRIBUTES: Final = 1_500_000  # 65,000 styles have a dozen each
MOST_TEXTS: Final = 4_000_000  # that cells share
MOST_SHARED_TEXT: Final = 256 * 2**20  # bytes of them; kept in memory
MOST_SHEETS: Final = 2**30
_RATIO_COUNTS_FROM: Final = 16 * 2**20
_SHEET: Final = re.compile(r"xl/worksheets/[^/]+\.xml", re.IGNORECASE)
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
            reader = _Reader(file, read_only=True, data_only=True, keep_links=False)
            reader.archive = _Book(file)
            reader.read()
            reader.archive.is_loaded = True
            book = reader.wb
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
        note = _("not stored: %(columns)s") % {"columns": _shown(lost)}
        yield Line(number, _shown(header), note=note)
    yield from _lines(rows, names, columns.understand, place)


def _lines(
    rows: Iterator[Row],
    names: Sequence[str],
    understand: Reader,
    place: Place,
    is_header: Callable[[Sequence[str]], bool] = lambda row: False,
) -> Iterator[Line]:
    nothing = True
    for number, row in rows:
        if not isinstance(row, str) and is_header(row):
            continue
        nothing = False
        if isinstance(row, str):
            yield Line(number, "", problem=row)
            continue
        if not any(cell.strip() for cell in row):
            yield Line(number, "", note=_("blank"))
            continue
        shown = _shown(row)
        try:
            yield _line(number, shown, understand(names, row), place)
        except RecognitionError as error:  # which may repeat a long cell
            yield Line(number, shown, problem=printable(error.message))
    if nothing:
        raise BadInput(_("the list has no rows below its header"), field="file")


def _shown(row: Sequence[str]) -> str:
    """A row for the report, of no more cells and characters than it shows."""
    return printable(", ".join(cell[:MOST_TEXT] for cell in row[:MOST_TEXT]))


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
    texts = _Texts(first, rest)
    reader = csv.reader(texts, delimiter=delimiter)
    while True:
        texts.begin_record()
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


class _Texts:
    """Lines of a CSV file. Raises BadInput in a record of more than MOST_RECORD bytes: within
    quotation marks nobody can tell where the next one begins."""

    def __init__(self, first: bytes, rest: BinaryIO) -> None:
        self._first, self._rest = first.removeprefix(BOM_UTF8), rest
        self._line = self._begin = self._size = 0

    def begin_record(self) -> None:
        self._begin, self._size = self._line + 1, 0

    def __iter__(self) -> _Texts:
        return self

    def __next__(self) -> str:
        if self._size > MOST_RECORD:
            raise BadInput(
                _(
                    "the row that begins in line %(line)s has more than %(most)s bytes; its "
                    "closing quotation mark may be missing"
                )
                % {"line": self._begin, "most": f"{MOST_RECORD:,}"},
                field="file",
            )
        line, self._first = self._first or self._rest.readline(MOST_LINE), b""
        if not line:
            raise StopIteration
        self._line += 1
        self._size += len(line)
        return line.decode("utf-8", "surrogateescape")


def _refuse_other_encodings(start: bytes) -> None:
    if not start.strip():
        raise BadInput(_("the list is empty, or begins with a blank line"), field="file")
    if start.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in start[:200]:
        raise BadInput(_("the list is not UTF-8; save it as “CSV UTF-8” or as XLSX"), field="file")


def _sheet_rows(sheet: Any) -> Iterator[Row]:
    """Rows that are not blank: a sheet may name its millionth row and none before."""
    sheet.reset_dimensions()  # some programs write A1, whatever there is
    part = sheet._get_source()
    sheet._get_source = lambda: part
    rows = sheet.iter_rows(values_only=True)
    for number in count(1):
        part.begin()
        try:
            row = next(rows)
        except StopIteration:
            return
        except _DAMAGE as error:
            raise _damaged_workbook() from error
        if number > MOST_ROWS:
            raise BadInput(
                _("the sheet names a row above %(most)s, the last that Excel knows")
                % {"most": f"{MOST_ROWS:,}"},
                field="file",
            )
        cells = [_cell(value) for value in row]
        if any(cell.strip() for cell in cells):
            yield number, cells


class _Reader(ExcelReader):
    """Reads the texts that cells share one by one: openpyxl's own keeps an element for each, and
    whatever else stands between them."""

    def read_strings(self) -> None:
        kind = self.package.find(SHARED_STRINGS)
        if kind is not None:
            with self.archive.open(kind.PartName[1:]) as part:
                for text in _texts(part):
                    self.shared_strings.append(text)
                    if len(self.shared_strings) > MOST_TEXTS:
                        raise _unpacks_to_too_much()


def _texts(part: Any) -> Iterator[str]:
    events = iterparse(part, ("start", "end"))
    _start, root = next(events)
    depth = 0
    for event, element in events:
        depth += 1 if event == "start" else -1
        if event == "end" and depth == 0:
            if element.tag == f"{{{SHEET_MAIN_NS}}}si":
                text: Any = Text.from_tree(element)
                yield text.content.replace("x005F_", "")  # as openpyxl does
            root.clear()
            part.begin()


class _Book(zipfile.ZipFile):
    """A workbook of which openpyxl keeps only so much at once, and whose sheets are empty until it
    is loaded: openpyxl looks into all of them for their size then, if need be to the end."""

    is_loaded = False

    def open(self, name: Any, *args: Any, **options: Any) -> Any:
        if not self.is_loaded and isinstance(name, str) and _SHEET.fullmatch(name):
            return io.BytesIO(b"<worksheet/>")
        return _Part(super().open(name, *args, **options))


class _Part:
    """The XML of a part of a workbook. Raises TooLarge for more than MOST_XML bytes, MOST_TAGS tags
    or MOST_ATTRIBUTES attributes until one says `begin` again: openpyxl keeps them all."""

    def __init__(self, part: IO[bytes]) -> None:
        self._part = part
        self.begin()

    def begin(self) -> None:
        self._size = self._tags = self._attributes = 0

    def read(self, size: int = -1) -> bytes:
        data = self._part.read(MOST_XML + 1 if size < 0 else size)
        self._size += len(data)
        self._tags += data.count(b"<")
        self._attributes += data.count(b"=")
        if self._size > MOST_XML or self._tags > MOST_TAGS or self._attributes > MOST_ATTRIBUTES:
            raise _unpacks_to_too_much()
        return data

    def close(self) -> None:
        self._part.close()

    def __enter__(self) -> _Part:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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
    Archive(file)  # a directory too long to be read
    size = file.seek(0, io.SEEK_END)
    sheets = others = 0
    try:
        with zipfile.ZipFile(file) as book:
            for info in book.infolist():
                if _SHEET.fullmatch(info.filename):
                    sheets += info.file_size
                else:
                    others += info.file_size
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise _damaged_workbook() from error
    if (
        sheets > MOST_SHEETS
        or others > MOST_SHARED_TEXT
        or sheets + others > max(_RATIO_COUNTS_FROM, MOST_RATIO * size)
    ):
        raise _unpacks_to_too_much()
    file.seek(0)


def _unpacks_to_too_much() -> TooLarge:
    return TooLarge(_("the workbook unpacks to too much; send it as CSV"), field="file")


def _damaged_workbook() -> BadInput:
    return BadInput(
        _("the workbook is damaged or not XLSX; save it as XLSX or “CSV UTF-8”"), field="file"
    )
