"""Tables for people: CSV that opens in a spreadsheet, and starts no formula there.

A spreadsheet takes a cell that begins with = + - @ for a formula, whoever wrote it: an uploaded
label could fetch an address or start a program (OWASP: CSV injection). An apostrophe goes in front
of it, which spreadsheets show but never run; also behind `;`, tab and line break inside a text,
because a spreadsheet set to another separator than the comma begins a cell there.

What has apostrophes there already gets one more, so the text can be had back: take one off
where `'`, perhaps quotation marks, and such a character begin a cell (docs/api.md has the line).
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from django.core.serializers.json import DjangoJSONEncoder

# Tabs and line breaks in front are trimmed by some programs, full-width forms read as plain ones,
# and a quotation mark behind a separator is taken for the beginning of a quoted cell.
_STARTS_A_FORMULA: Final = re.compile("(?<![^;\t\r\n])(?=['\"]*[=+\\-@\t\r\n＝＋－＠])")
_PIECE: Final = 32_768


def cell(value: Any) -> Any:
    """A value as it may stand in a table: text harmless, None empty, moments as ISO 8601, objects
    and lists as JSON; numbers stay numbers."""
    if value is None or value == {}:
        return ""
    if isinstance(value, dict | list):
        value = json.dumps(value, cls=DjangoJSONEncoder, ensure_ascii=False)
    elif hasattr(value, "isoformat"):
        value = value.isoformat()
    return _STARTS_A_FORMULA.sub("'", value) if isinstance(value, str) else value


def lines(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """A table as CSV in pieces of bounded size, however many rows there are."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(header)
    for row in rows:
        writer.writerow([cell(value) for value in row])
        if out.tell() > _PIECE:
            yield out.getvalue()
            out.seek(0)
            out.truncate()
    yield out.getvalue()
