"""An AVIF is judged by its frames: the container may say anything."""

from __future__ import annotations

import io
import struct
import time

import pytest
from PIL import Image

from recognition import avif, images
from recognition.errors import BadImage, TooLarge


def coded(width: int, height: int, **options: object) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(out, "AVIF", **options)
    return out.getvalue()


def that_says(data: bytes, width: int, height: int) -> bytes:
    """The same frames in a container that gives them another size."""
    changed = bytearray(data)
    struct.pack_into(">II", changed, data.index(b"ispe") + 8, width, height)
    return bytes(changed)


def with_stream(stream: bytes) -> bytes:
    """A picture of 64 x 64 with other frames in it; the stream lies at its end."""
    data = bytearray(coded(64, 64))
    place = data.index(b"mdat") + 4
    length = struct.pack(">II", place, len(data) - place)
    assert data.count(length) == 1
    struct.pack_into(">II", data, data.index(length), place, len(stream))
    struct.pack_into(">I", data, place - 8, 8 + len(stream))
    return bytes(data[:place]) + stream


def unit(kind: int, bits: str) -> bytes:
    bits += "0" * 64
    payload = int(bits[: len(bits) // 8 * 8], 2).to_bytes(len(bits) // 8)
    return bytes([kind << 3 | 2, len(payload)]) + payload


def sequence(width: int, height: int, *, is_reduced: bool) -> bytes:
    size = f"{15:04b}{15:04b}{width - 1:016b}{height - 1:016b}"
    if is_reduced:
        return unit(1, "0001100000" + size)
    points = f"00{0:05b}{0:012b}00000"
    return unit(1, "00010" + points + size + "00000000011")


KEY_FRAME = "000100" + "0"  # shown, no screen tools, and no size of its own


@pytest.mark.parametrize("options", [{}, {"subsampling": "4:4:4"}, {"quality": 100}])
def test_frames_have_the_size_of_the_picture(options):
    assert list(avif.frames(coded(300, 200, **options))) == [60_000]


def test_a_transparent_picture_has_two():
    out = io.BytesIO()
    Image.new("RGBA", (80, 40), (200, 30, 30, 90)).save(out, "AVIF")
    assert list(avif.frames(out.getvalue())) == [3200, 3200]
    assert images.check(out.getvalue()).width == 80


def test_frames_larger_than_the_picture_says_are_refused(settings):
    """3 kB that said 64 x 64 took half a gigabyte."""
    settings.SHITU_MAX_IMAGE_PIXELS = 100_000
    lying = that_says(coded(1000, 800), 64, 64)
    assert len(lying) < 1000
    with pytest.raises(TooLarge, match="SHITU_MAX_IMAGE_PIXELS"):
        images.check(lying)
    settings.SHITU_MAX_IMAGE_PIXELS = 800_000
    assert images.check(lying).width == 64


def test_many_frames_in_one_picture_count_together(settings):
    settings.SHITU_MAX_IMAGE_PIXELS = 10_000
    head, frame = sequence(100, 100, is_reduced=False), unit(6, KEY_FRAME)
    assert list(avif.frames(with_stream(head + 3 * frame))) == [10_000] * 3
    with pytest.raises(TooLarge, match="SHITU_MAX_IMAGE_PIXELS"):
        images.check(with_stream(head + 4 * frame))


def test_a_stream_that_begins_anew_counts_with_its_new_size():
    first, second = (sequence(side, side, is_reduced=True) for side in (64, 16_000))
    stream = first + unit(6, "0") + second + unit(3, "0") + first + unit(7, "0")
    assert list(avif.frames(with_stream(stream))) == [64 * 64, 16_000 * 16_000, 64 * 64]


@pytest.mark.parametrize(
    "frame",
    [
        KEY_FRAME[:-1] + "1",
        "00010111",  # with screen tools and whole motion
        "00110001",  # between others
        "011100",  # a switch
    ],
)
def test_a_frame_with_a_size_of_its_own_is_refused(frame):
    head = sequence(64, 64, is_reduced=False)
    assert list(avif.frames(with_stream(head + unit(6, KEY_FRAME)))) == [64 * 64]
    assert list(avif.frames(with_stream(head + unit(3, "1")))) == [0]  # an earlier one again
    with pytest.raises(BadImage, match="unusual"):
        images.check(with_stream(head + unit(6, frame)))


def test_a_film_is_refused_and_its_first_picture_is_not():
    red, blue = (Image.new("RGB", (64, 64), colour) for colour in ("red", "blue"))
    out = io.BytesIO()
    red.save(out, "AVIF", save_all=True, append_images=[blue], quality=100)
    film = out.getvalue()
    with pytest.raises(BadImage, match="film"):
        images.check(film)
    alone = film.replace(b"avis", b"avif", 2).replace(b"moov", b"free", 1)
    assert list(avif.frames(alone)) == [4096]  # whose sequence is not of one picture
    assert images.check(alone).pixels[9, 9].tolist()[0] > 240


def test_a_table_of_endless_items_is_refused_before_the_decoder_sees_it():
    """With 40,000 of them it took 1.5 s, in the square of their number."""
    data = coded(64, 64)
    start, meta = data.index(b"iinf") - 4, data.index(b"meta") - 4
    size, of_meta = (struct.unpack_from(">I", data, at)[0] for at in (start, meta))
    entries = b"".join(
        struct.pack(">I4sIIH4sc", 23, b"infe", 3 << 24, number, 0, b"av01", b"\0")
        for number in range(10, 400_000)
    )
    table = b"\1\0\0\0" + struct.pack(">I", 399_991) + data[start + 14 : start + size] + entries
    table = struct.pack(">I4s", 8 + len(table), b"iinf") + table
    grown = struct.pack(">I", of_meta + len(table) - size)
    began = time.perf_counter()
    with pytest.raises(BadImage, match="unusual"):
        images.check(data[:meta] + grown + data[meta + 4 : start] + table + data[start + size :])
    assert time.perf_counter() - began < 10


def test_endless_boxes_units_and_places_are_refused():
    box = struct.pack(">I4s", 8, b"free")
    data = coded(64, 64)
    assert images.check(data + box * 100).width == 64
    started = time.perf_counter()
    for endless in (
        data + box * 2_000_000,
        data[:32] + struct.pack(">I4sI", 12 + 16_000_000, b"meta", 0) + box * 2_000_000,
    ):
        with pytest.raises(BadImage, match="unusual"):
            images.check(endless)
    assert time.perf_counter() - started < 2
    head = sequence(64, 64, is_reduced=True)
    for stream in (head + b"\x12\0" * 9_000_000, head + unit(6, "0") * 10_000):
        with pytest.raises(BadImage, match="unusual"):
            images.check(with_stream(stream))
    data = bytearray(coded(64, 64))
    iloc = data.index(b"iloc")
    struct.pack_into(">H", data, iloc + 16, 60_000)  # the pieces of its one item
    with pytest.raises(BadImage, match="unusual"):
        images.check(bytes(data))


def test_endless_exif_is_refused():
    """Its one value is read when the file is opened; 8 MB of it took 2.5 s."""
    exif = b"Exif\0\0II*\0\x08\0\0\0\0\0" + bytes(2**20)
    with pytest.raises(BadImage, match="unusual"):
        images.check(coded(64, 64, exif=exif))
    assert images.check(coded(64, 64, exif=exif[:10_000])).width == 64
