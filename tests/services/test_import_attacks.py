"""Archives that want to harm: refused, with the reason."""

from __future__ import annotations

import io
import struct
import unicodedata
import zipfile

import pytest

from recognition.errors import BadInput, TooLarge
from recognition.services.imports import places
from recognition.services.imports.places import Archive
from tests.factories import png
from tests.services.test_import import imported, labels, outcome, packed, reasons


def archive(*members: tuple[zipfile.ZipInfo | str, bytes], compress: int = 0) -> io.BytesIO:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compress) as zipped:
        for info, data in members:
            zipped.writestr(info, data)
    out.seek(0)
    return out


def refusal(file: io.BytesIO, name: str) -> str:
    with pytest.raises(BadInput) as caught:
        Archive(file).open(name)
    return caught.value.message


@pytest.mark.parametrize(
    "name", ["../evil.png", "a/../../evil.png", "/etc/evil.png", "C:/evil.png", "..\\evil.png"]
)
def test_paths_that_lead_out(name):
    assert "leads out" in refusal(archive((name, png(1))), name)


def test_links():
    link = zipfile.ZipInfo("link.png")
    link.external_attr = 0o120777 << 16
    assert "link" in refusal(archive((link, b"/etc/passwd")), "link.png")


@pytest.mark.parametrize("name", ["more.zip", "more.tar.gz", "more.7z", "more.RAR"])
def test_archives_in_the_archive(name):
    assert "archive inside the archive" in refusal(archive((name, b"PK")), name)


def test_encrypted_members():
    data = bytearray(archive(("a.png", png(1))).getvalue())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    assert "encrypted" in refusal(io.BytesIO(bytes(data)), "a.png")


def test_unusual_compression():
    packed_so = archive(("a.png", png(1)), compress=zipfile.ZIP_LZMA)
    assert "deflate" in refusal(packed_so, "a.png")


def test_names_that_are_not_utf8():
    data = archive(("tea/xx.png", png(1))).getvalue().replace(b"xx", b"\xb2\xe8")
    [name] = Archive(io.BytesIO(data)).names()
    assert "not UTF-8" in refusal(io.BytesIO(data), name)


def test_utf8_names_without_the_flag_are_read():
    data = archive(("tea/xx.png", png(1))).getvalue().replace(b"xx", "é".encode())
    assert list(Archive(io.BytesIO(data)).names()) == ["tea/é.png"]


def test_a_name_with_an_accent_of_its_own_is_the_name_with_one_letter():
    apart = unicodedata.normalize("NFD", "tea/Grün.png")
    for packed_as, asked in [(apart, "tea/Grün.png"), ("tea/Grün.png", apart)]:
        place = Archive(archive((packed_as, png(1))))
        assert list(place.names()) == ["tea/Grün.png"]
        with place.open(asked) as member:
            assert member.read() == png(1)


def test_a_name_that_comes_twice():
    with pytest.warns(UserWarning, match="Duplicate"):
        twice = archive(("a.png", png(1)), ("a.png", png(2)))
    assert "twice" in refusal(twice, "a.png")
    assert list(Archive(twice).names()) == ["a.png"]


def test_a_bomb_by_its_ratio():
    bomb = archive(("a.png", bytes(200 * 2**20)), compress=zipfile.ZIP_DEFLATED)
    with pytest.raises(TooLarge, match="unpacks to"):
        Archive(bomb)


def test_a_bomb_of_overlapping_members():
    data = archive(("a.png", bytes(1000)), ("b.png", bytes(1000))).getvalue()
    directory = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 4)
    overlapping = bytearray(data)
    struct.pack_into("<L", overlapping, directory + 42, 0)  # b.png begins where a.png begins
    with pytest.raises(BadInput, match="overlap"):
        Archive(io.BytesIO(bytes(overlapping)))


def test_a_member_that_lies_about_its_size():
    data = bytearray(archive(("a.png", bytes(5_000_000)), compress=8).getvalue())
    directory = data.index(b"PK\x01\x02")
    struct.pack_into("<L", data, directory + 24, 10)  # "unpacks to 10 bytes"
    with (
        pytest.raises(BadInput, match="damaged"),
        Archive(io.BytesIO(bytes(data))).open("a.png") as member,
    ):
        member.read()


def test_too_many_members(monkeypatch):
    monkeypatch.setattr(places, "MOST_FILES", 3)
    many = archive(*((f"{n}.png", b"") for n in range(4)))
    with pytest.raises(TooLarge, match="more than 3 files"):
        Archive(many)


def test_a_file_of_this_machine_may_hold_more(monkeypatch):
    monkeypatch.setattr(places, "MOST_FILES", 3)
    monkeypatch.setattr(places, "MOST_UNPACKED", 3)
    monkeypatch.setattr(places, "MOST_FILES_HERE", 5)
    held = [(f"{n}.png", bytes(10)) for n in range(6)]
    assert len(list(Archive(archive(*held[:5]), of_this_machine=True).names())) == 5
    with pytest.raises(TooLarge, match="more than 5 files"):
        Archive(archive(*held), of_this_machine=True)


def test_a_bomb_on_this_machine_is_one_too():
    bomb = archive(("a.png", bytes(200 * 2**20)), compress=zipfile.ZIP_DEFLATED)
    with pytest.raises(TooLarge, match="unpacks to"):
        Archive(bomb, of_this_machine=True)


def test_a_directory_too_long_to_read(monkeypatch):
    many = archive(*((f"{n}.png", b"") for n in range(400)))
    monkeypatch.setattr(places, "MOST_FILES", 3)
    monkeypatch.setattr(zipfile, "ZipFile", None)  # it must not come so far
    with pytest.raises(TooLarge):
        Archive(many)


@pytest.mark.parametrize(
    "data", [b"", b"PK", b"PK\x03\x04 and no end", b"PK\x05\x06" + b"\xff" * 18]
)
def test_damaged_archives(data):
    with pytest.raises(BadInput):
        Archive(io.BytesIO(data))


@pytest.mark.django_db
def test_a_bad_member_does_not_stop_the_others(catalogue):
    job = imported(
        catalogue,
        packed(
            {"tea/1.png": png(1), "tea/../../2.png": png(2), "tea/3.zip": b"PK", "x/4.png": png(4)}
        ),
    )
    assert labels(catalogue) == ["tea", "x"]
    assert [result for _, result in outcome(job)] == ["ok", "ok", "error", "error"]
    assert "leads out" in reasons(job)[3] and "archive inside" in reasons(job)[4]


@pytest.mark.django_db
def test_a_damaged_upload_fails_the_job_with_a_reason(catalogue):
    job = imported(catalogue, io.BytesIO(packed({"tea/1.png": png(1)}).getvalue()[:-30]))
    assert job.state == "failed" and "ZIP" in job.error
