"""Tables for people start no formula in a spreadsheet, and their texts can be had back."""

from __future__ import annotations

import csv
import io
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from recognition.models import Job, JobLine
from recognition.services import jobs, spreadsheet

TRIGGERS = "=+-@\t\r\n＝＋－＠"
DOCS = Path(__file__).resolve().parents[2] / "docs" / "api.md"
# Mostly of the characters that matter, sometimes anything.
texts = st.text(st.sampled_from(TRIGGERS + "';,\"a 1")) | st.text(st.characters(codec="utf-8"))


def documented_way_back(text: str) -> str:
    """What docs/api.md tells to do, run as it stands there."""
    [block] = [
        block
        for block in re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
        if "FORMULA = " in block
    ]
    scope: dict[str, re.Pattern[str]] = {}
    exec(block, scope)  # noqa: S102
    return scope["FORMULA"].sub("", text)


@given(st.lists(texts, min_size=1, max_size=4), st.sampled_from(",;\t"))
@example(["=1+1", "x;=1+1", "\t=1", "'=1", "a\n@SUM(A1)", 'a;"=1+1;'], ";")
def test_no_cell_begins_a_formula_whatever_divides_the_cells(row, delimiter):
    table = "".join(spreadsheet.lines(["first"], [row]))
    for cells in csv.reader(io.StringIO(table, newline=""), delimiter=delimiter):
        for cell in cells:
            assert not cell.lstrip("\t\r\n").startswith(tuple("=+-@＝＋－＠")), (cell, table)
            assert delimiter != "," or not cell.startswith(tuple(TRIGGERS)), (cell, table)


@given(texts)
@example("'=1")
@example("''=1;'+2\t'\";'\"=")
def test_every_text_can_be_had_back(text):
    assert documented_way_back(spreadsheet.cell(text)) == text


@given(st.lists(texts, min_size=1, max_size=4))
def test_a_table_is_read_as_it_was_written(row):
    table = "".join(spreadsheet.lines(["first"], [row]))
    _, *found = csv.reader(io.StringIO(table, newline=""))
    assert [[documented_way_back(cell) for cell in cells] for cells in found] == [row]


@pytest.mark.parametrize("text", ["green tea", "a-b", "1 = 1", "it's", "-".join("ab"), "é; b", ""])
def test_a_harmless_text_stays_as_it_is(text):
    assert spreadsheet.cell(text) == text


def test_values_of_other_kinds():
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    row = [None, {}, {"a": ["é"]}, -5, 1.5, moment]
    assert [spreadsheet.cell(value) for value in row] == [
        "",
        "",
        '{"a": ["é"]}',
        -5,
        1.5,
        "2026-01-02T00:00:00+00:00",
    ]


def test_a_long_table_comes_in_pieces():
    pieces = list(spreadsheet.lines(["text"], ([f"line {number}"] for number in range(20_000))))
    assert len(pieces) > 3
    assert max(map(len, pieces)) < 70_000
    assert len("".join(pieces).splitlines()) == 20_001


@pytest.mark.django_db
def test_the_report_of_a_job_starts_none(catalogue):
    job = Job.objects.create(catalogue=catalogue, kind=Job.Kind.IMPORT)
    for number, text in enumerate(['=HYPERLINK("http://evil")', "a.png\ttea", "x;@SUM(A1)"], 1):
        JobLine.objects.create(job=job, number=number, text=text, result="error", reason="-2 px")
    rows = list(csv.reader(io.StringIO("".join(jobs.report(job)), newline="")))[1:]
    assert [row[4] for row in rows] == ['\'=HYPERLINK("http://evil")', "a.png\ttea", "x;'@SUM(A1)"]
    assert {row[2] for row in rows} == {"'-2 px"}
