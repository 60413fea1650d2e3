"""Lists of pictures and of ids, as PaddleX and people write them: what is taken, what is told."""

from __future__ import annotations

import io
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recognition import gallery_list
from recognition.errors import BadInput
from recognition.gallery_list import Entry, Identifier, Problem, Severity

GROCERY = Path(__file__).parents[1] / ".." / "shared" / "data" / "grocery"


def read(text: str | bytes, **options: bool) -> list[Entry | Problem]:
    data = text.encode() if isinstance(text, str) else text
    return list(gallery_list.read_gallery_list(io.BytesIO(data), **options))


def only(text: str | bytes, **options: bool) -> Entry | Problem:
    [line] = read(text, **options)
    return line


# Taken


@pytest.mark.parametrize(
    ("line", "path", "label"),
    [
        ("a/1.jpg tea", "a/1.jpg", "tea"),
        ("a/1.jpg\ttea", "a/1.jpg", "tea"),
        ("a/1.jpg green tea 500 ml", "a/1.jpg", "green tea 500 ml"),
        ("a/1.jpg   green  tea", "a/1.jpg", "green  tea"),
        ("my photos/1 2.jpg\tgreen tea", "my photos/1 2.jpg", "green tea"),
        ("a/1.jpg \t tea", "a/1.jpg", "tea"),
        ("  a/1.jpg tea  ", "a/1.jpg", "tea"),
        ("a/1.jpg tea\t", "a/1.jpg", "tea"),
        ("a/1.jpg tea\r", "a/1.jpg", "tea"),
        ("\ufeffa/1.jpg tea", "a/1.jpg", "tea"),
        ("图/1.jpg 东方树叶 茉莉花茶", "图/1.jpg", "东方树叶 茉莉花茶"),
        ("a.jpg cafe\u0301", "a.jpg", "caf\u00e9"),
        ("# comment", "#", "comment"),
        ("./a..b/c...jpg x", "./a..b/c...jpg", "x"),
    ],
)
def test_a_line_is_a_path_and_a_label(line, path, label):
    assert only(line) == Entry(1, path, label)


def test_windows_line_ends_and_a_bom():
    assert read(b"\xef\xbb\xbfa.jpg tea\r\nb.jpg milk\r\n") == [
        Entry(1, "a.jpg", "tea"),
        Entry(2, "b.jpg", "milk"),
    ]


def test_a_photo_of_two_products_is_taken_twice_with_a_note():
    assert read("a.jpg tea\na.jpg milk\n") == [
        Entry(1, "a.jpg", "tea"),
        Entry(2, "a.jpg", "milk", "line 1 has this picture as 'tea'"),
    ]


def test_the_grocery_list_has_no_problem():
    if not GROCERY.is_dir():
        pytest.skip("the grocery photos are not beside the project")
    with (GROCERY / "gallery.txt").open("rb") as file:
        lines = list(gallery_list.read_gallery_list(file))
    assert len(lines) == 360
    assert all(isinstance(line, Entry) and not line.note for line in lines)


# Told


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("a.jpg", "no label"),
        ("a.jpg   ", "no label"),
        ("\ttea", "no path"),
        ("../a.jpg tea", "leaves the folder"),
        ("a/../../b.jpg tea", "leaves the folder"),
        ("..\\a.jpg tea", "leaves the folder"),
        ("/etc/passwd tea", "absolute"),
        ("C:\\photos\\a.jpg tea", "absolute"),
        ("\\\\server\\a.jpg tea", "absolute"),
        ("a\0.jpg tea", "the path holds the control character U+0000"),
        ("a.jpg te\0a", "the label holds the control character U+0000"),
        ("a.jpg\tgreen\ttea", "U+0009"),
        ("a.jpg te\ra", "U+000D"),
        ("a.jpg te\u2028a", "U+2028"),
        ("a.jpg " + "x" * 256, "longer than 255"),
        ("x" * 4097 + " tea", "over 4096 bytes"),
        ("a.jpg " + "x" * 9000, "longer than 8192 bytes"),
        (b"caf\xe9.jpg tea", "not UTF-8 (byte 4)"),
        ("a.jpg tea\n".encode("utf-16"), "not UTF-8"),
    ],
)
def test_a_line_that_cannot_be_used_is_told_with_its_reason(line, reason):
    problem = read(line)[0]
    assert isinstance(problem, Problem)
    assert reason in problem.reason
    assert problem.severity is Severity.ERROR
    assert len(problem.text) < 1000
    assert problem.text.isprintable()


def test_bytes_that_are_no_text_are_shown_as_bytes():
    assert only(b"caf\xe9.jpg tea").text == r"b'caf\xe9.jpg tea'"


@pytest.mark.parametrize("blank", ["", "   ", "\t", "\r", "\u3000"])
def test_a_blank_line_is_a_note(blank):
    lines = read(f"a.jpg tea\n{blank}\nb.jpg milk\n")
    assert [type(line) for line in lines] == [Entry, Problem, Entry]
    assert (lines[1].line_number, lines[1].reason) == (2, "blank")
    assert lines[1].severity is Severity.NOTE


def test_a_line_again_is_a_note_that_names_the_first():
    lines = read("a.jpg tea\nb.jpg tea\na.jpg milk\na.jpg\ttea\na.jpg milk\n")
    assert [line.reason for line in lines if isinstance(line, Problem)] == [
        "the same as line 1",
        "the same as line 3",
    ]
    assert {line.severity for line in lines if isinstance(line, Problem)} == {Severity.NOTE}


def test_absolute_paths_are_taken_where_they_are_allowed():
    assert only("/photos/a.jpg tea", allow_absolute=True) == Entry(1, "/photos/a.jpg", "tea")
    assert isinstance(only("/photos/../a.jpg tea", allow_absolute=True), Problem)


def test_a_bad_line_does_not_harm_its_neighbours():
    lines = read(b"a.jpg tea\n\xff\xfe\nb.jpg " + b"x" * 100_000 + b"\nc.jpg milk")
    assert [type(line) for line in lines] == [Entry, Problem, Problem, Entry]
    assert [line.line_number for line in lines] == [1, 2, 3, 4]


def test_a_photo_on_every_line_does_not_slow_the_reader():
    lines = read("".join(f"a.jpg product {number}\n" for number in range(20_000)))
    assert sum(bool(line.note) for line in lines) == 19_999


def test_an_empty_list_has_no_lines():
    assert read(b"") == []


@given(st.binary(max_size=300) | st.text(max_size=100).map(str.encode), st.integers(1, 40))
def test_every_line_gives_one_answer_wherever_the_chunks_are_cut(data, size):
    chunks = [data[start : start + size] for start in range(0, len(data), size)]
    lines = list(gallery_list.read_gallery_list(chunks))
    assert lines == read(data)
    assert [line.line_number for line in lines] == list(range(1, len(lines) + 1))
    assert len(lines) == data.count(b"\n") + (not data.endswith(b"\n") and bool(data))


def test_memory_does_not_grow_with_the_list():
    """300,000 lines and one of 200 MB, in a process of its own so that its peak is its own."""
    program = """
import resource
from recognition.gallery_list import read_gallery_list

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

def chunks():
    for start in range(0, 300_000, 1000):
        numbers = range(start, start + 1000)
        yield "".join(f"folder/{n % 7}/{n}.jpg green tea {n % 5000}\\n" for n in numbers).encode()
    for _ in range(200):
        yield bytes(1_000_000)

before = peak()
print(sum(1 for line in read_gallery_list(chunks())), peak() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    lines, grown = map(int, done.stdout.split())
    assert lines == 300_001
    assert grown < 40  # MB


# Written

labels = st.text(max_size=300)
paths = st.text(max_size=60)


@given(st.lists(st.tuples(paths, labels), max_size=5))
def test_what_is_written_is_read_back(rows):
    try:
        written = b"".join(gallery_list.write_gallery_list(rows))
    except BadInput as refused:
        assert "Row" in refused.message
        return
    wanted = [(path, gallery_list.clean_label(label)) for path, label in rows]
    lines = read(written, allow_absolute=True)
    assert len(lines) == len(rows)
    taken = [(line.path, line.label) for line in lines if isinstance(line, Entry)]
    assert taken == list(dict.fromkeys(wanted))


@given(st.text(min_size=1, max_size=255))
def test_any_label_without_controls_can_be_written(label):
    controls = any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in label.strip())
    usable = (
        bool(label.strip()) and not controls and len(unicodedata.normalize("NFC", label)) <= 255
    )
    try:
        [line] = gallery_list.write_gallery_list([("a.jpg", label)])
    except BadInput:
        assert not usable
    else:
        assert usable
        assert only(line).label == gallery_list.clean_label(label)


@given(paths, labels)
def test_paddlex_reads_what_holds_no_space(path, label):
    """Its rule: strip the line, split at single spaces, exactly two parts."""
    path, label = path.replace(" ", ""), label.replace(" ", "")
    try:
        [line] = gallery_list.write_gallery_list([(path, label)])
    except BadInput:
        return
    assert line.decode().strip().split(" ") == [path, gallery_list.clean_label(label)]


@pytest.mark.parametrize("label", ["", "  ", "a\nb", "a\tb", "a\0b", "\ud800", "x" * 256])
def test_a_label_that_cannot_be_stored_is_refused(label):
    with pytest.raises(BadInput) as refused:
        gallery_list.clean_label(label)
    assert refused.value.field == "label"
    with pytest.raises(BadInput, match="Row 1"):
        list(gallery_list.write_gallery_list([("a.jpg", label)]))


@given(labels)
def test_a_clean_label_stays_as_it_is(label):
    try:
        clean = gallery_list.clean_label(label)
    except BadInput:
        return
    assert gallery_list.clean_label(clean) == clean


# Ids


def test_ids_are_the_first_word_of_each_line():
    lines = list(
        gallery_list.read_ids(
            [b"\xef\xbb\xbf12\n7 tea\r\n", b"\n-3\t x\n", b"12\nx1\n1.5\n9223372036854775808"]
        )
    )
    assert [line.id for line in lines if isinstance(line, Identifier)] == [12, 7, -3, 12]
    told = {line.line_number: line for line in lines if isinstance(line, Problem)}
    assert (told[3].reason, told[3].severity) == ("blank", Severity.NOTE)
    assert (told[6].reason, told[6].severity) == ("'x1' is not a whole number", Severity.ERROR)
    assert told[7].severity is Severity.ERROR
    assert "beyond 64 bits" in told[8].reason


@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_any_ids_are_read_back(ids):
    source = io.BytesIO(b"".join(b"%d\n" % id for id in ids))
    assert [line.id for line in gallery_list.read_ids(source)] == ids
