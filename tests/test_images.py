"""What happens to a picture that is sent: kept, made upright RGB, or refused with a reason."""

from __future__ import annotations

import base64
import hashlib
import io
import resource
import struct
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from recognition import images
from recognition.errors import BadImage, BadInput, TooLarge

GROCERY = Path(__file__).parents[1] / ".." / "shared" / "data" / "grocery"
SMOOTH = np.add.outer(np.arange(40) * 3, np.arange(60) * 2).astype(np.uint8)  # 60 wide, 40 high


def scene(mode: str = "RGB") -> Image.Image:
    """60 x 40, every corner another colour, so that no turn or mirror image of it is the same."""
    colours = np.stack([SMOOTH, SMOOTH[::-1], SMOOTH[:, ::-1]], axis=-1)
    return Image.fromarray(colours).convert(mode)


def coded(image: Image.Image, format: str = "JPEG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def png(width: int, height: int, rows: bytes, *, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG written by hand, to have the kinds that Pillow does not write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def peak_memory() -> int:
    """The most bytes this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# Kept as sent


@pytest.mark.parametrize(
    ("data", "suffix"),
    [
        (coded(scene()), ".jpg"),
        (coded(scene(), progressive=True), ".jpg"),
        (coded(scene("L")), ".jpg"),
        (coded(scene(), "PNG"), ".png"),
        (coded(scene("P"), "PNG"), ".png"),
        (coded(scene("1"), "PNG"), ".png"),
        (coded(scene(), "WEBP"), ".webp"),
        (coded(scene(), "MPO", save_all=True, append_images=[scene()]), ".jpg"),
    ],
    ids=["jpeg", "progressive", "grey", "png", "palette", "1-bit", "webp", "phone-mpo"],
)
def test_a_plain_picture_keeps_its_bytes(data, suffix):
    picture = images.check(data)
    assert picture.data == data
    assert picture.suffix == suffix
    assert (picture.width, picture.height) == (60, 40)
    assert picture.checksum == hashlib.sha256(data).hexdigest()
    assert picture.pixels.dtype == np.uint8
    np.testing.assert_array_equal(picture.pixels, np.asarray(opened(data).convert("RGB")))


def test_a_file_object_does_as_well_as_bytes():
    data = coded(scene())
    assert images.check(io.BytesIO(data)) == images.check(data)


def test_a_picture_says_what_it_is_without_its_bytes():
    assert "checksum=" in repr(images.check(coded(scene())))
    assert "data=" not in repr(images.check(coded(scene())))


# Made upright RGB, without loss


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_exif_orientation_is_applied(format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format == "WEBP" else {"quality": 95}
    turned = {5, 6, 7, 8}
    # What the camera's sensor saw: the scene, turned the other way round.
    sensor = {
        1: lambda i: i,
        2: lambda i: i.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda i: i.transpose(Image.Transpose.ROTATE_180),
        4: lambda i: i.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda i: i.transpose(Image.Transpose.TRANSPOSE),
        6: lambda i: i.transpose(Image.Transpose.ROTATE_90),
        7: lambda i: i.transpose(Image.Transpose.TRANSVERSE),
        8: lambda i: i.transpose(Image.Transpose.ROTATE_270),
    }[orientation](scene())
    assert sensor.size == ((40, 60) if orientation in turned else (60, 40))

    data = coded(sensor, format, exif=exif, **options)
    picture = images.check(data)

    assert (picture.width, picture.height) == (60, 40)
    difference = np.abs(picture.pixels.astype(int) - np.asarray(scene()))
    assert difference.mean() < 4  # lossy formats; any wrong turn is over 30
    assert opened(picture.data).getexif().get(0x0112, 1) == 1  # nobody turns it a second time
    np.testing.assert_array_equal(images.decode(data), picture.pixels)


def test_a_turned_photo_is_stored_without_loss():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = coded(scene(), exif=exif)
    picture = images.check(data)
    assert picture.format == "PNG"
    assert picture.checksum == hashlib.sha256(data).hexdigest()
    np.testing.assert_array_equal(picture.pixels, np.rot90(np.asarray(opened(data)), -1))


def test_damaged_exif_does_not_lose_the_picture():
    data = coded(scene(), exif=b"Exif\0\0MM\0*\0\0\xff\xff")
    assert images.check(data).data == data


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_transparency_is_laid_on_white(format):
    picture_with_hole = scene("RGBA")
    picture_with_hole.paste((0, 0, 0, 0), (0, 0, 30, 40))
    options = {"lossless": True} if format == "WEBP" else {}
    pixels = images.check(coded(picture_with_hole, format, **options)).pixels
    assert (pixels[:, :30] == 255).all()
    np.testing.assert_array_equal(pixels[:, 30:], np.asarray(scene())[:, 30:])


def test_half_transparent_is_mixed_with_white():
    pixels = images.check(coded(Image.new("RGBA", (16, 16), (0, 0, 0, 128)), "PNG")).pixels
    assert (np.abs(pixels.astype(int) - 127) <= 1).all()


def test_a_palette_with_a_transparent_colour_is_laid_on_white():
    image = Image.new("P", (16, 16), 1)
    image.putpalette([0, 0, 0, 200, 30, 30])
    image.paste(0, (0, 0, 8, 16))
    picture = images.check(coded(image, "PNG", transparency=0))
    assert picture.pixels[0, 0].tolist() == [255, 255, 255]
    assert picture.pixels[0, 15].tolist() == [200, 30, 30]


def test_grey_with_alpha():
    pixels = images.check(coded(Image.new("LA", (16, 16), (77, 255)), "PNG")).pixels
    assert pixels.shape == (16, 16, 3)
    assert (pixels == 77).all()


def test_16_bit_grey_is_scaled_not_clipped():
    grey = (SMOOTH.astype(np.uint16) << 8) | 0x7F
    pixels = images.check(coded(Image.fromarray(grey), "PNG")).pixels
    np.testing.assert_array_equal(pixels[..., 0], SMOOTH)


def test_16_bit_colour_is_scaled_not_clipped():
    row = b"\0" + struct.pack(">3H", 0xFFFF, 0x8000, 0x01FF) * 16
    pixels = images.check(png(16, 16, row * 16, depth=16)).pixels
    assert pixels[3, 3].tolist() == [255, 128, 1]


def test_16_bit_pgm():
    rows = (SMOOTH.astype(np.uint16) << 8).astype(">u2").tobytes()
    pixels = images.check(b"P5 60 40 65535\n" + rows).pixels
    np.testing.assert_array_equal(pixels[..., 0], SMOOTH)


def test_a_cmyk_jpeg_becomes_rgb():
    picture = images.check(coded(scene("CMYK"), quality=95))
    assert picture.format == "PNG"
    assert opened(picture.data).mode == "RGB"
    assert np.abs(picture.pixels.astype(int) - np.asarray(scene())).mean() < 4


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_it_is_the_first_frame(format):
    red, blue = (Image.new("RGB", (16, 16), colour) for colour in ("red", "blue"))
    options = {"lossless": True} if format == "WEBP" else {}
    data = coded(red, format, save_all=True, append_images=[blue], duration=50, **options)
    assert opened(data).n_frames == 2
    picture = images.check(data)
    assert getattr(opened(picture.data), "n_frames", 1) == 1
    assert (picture.pixels == (255, 0, 0)).all()


def test_of_a_multi_page_tiff_it_is_the_first_page():
    data = coded(scene(), "TIFF", save_all=True, append_images=[Image.new("RGB", (9, 9))])
    np.testing.assert_array_equal(images.check(data).pixels, np.asarray(scene()))


@pytest.mark.parametrize("format", ["BMP", "TIFF", "PPM"])
def test_older_formats_are_stored_as_png(format):
    picture = images.check(coded(scene(), format))
    assert (picture.format, opened(picture.data).format) == ("PNG", "PNG")
    np.testing.assert_array_equal(picture.pixels, np.asarray(scene()))


def test_avif_is_stored_as_png():
    picture = images.check(coded(scene(), "AVIF", quality=90))
    assert picture.format == "PNG"
    assert np.abs(picture.pixels.astype(int) - np.asarray(scene())).mean() < 4


def test_a_colour_profile_is_carried_along_and_not_applied():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = images.check(coded(scene(), "TIFF", icc_profile=profile))
    assert opened(picture.data).info["icc_profile"] == profile
    np.testing.assert_array_equal(picture.pixels, np.asarray(scene()))


# Refused


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "0 bytes"),
        (b"   <!doctype html><html><body>403</body></html>", "text (SVG, HTML or XML)"),
        (b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "text (SVG"),
        (b"\xef\xbb\xbf<?xml version='1.0'?><svg/>", "text (SVG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 64, "HEIC"),
        (b"%PDF-1.7\n", "PDF"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0" * 64, "format that is accepted"),
        (b"just some words", "JPEG, PNG or WebP"),
        (coded(Image.new("RGB", (7, 100)), "PNG"), "at least 8"),
        (coded(Image.fromarray(np.ones((9, 9), np.float32)), "TIFF"), "pixel type F"),
    ],
    ids=["empty", "html", "svg", "svg-bom", "heic", "pdf", "jpeg2000", "text", "tiny", "float"],
)
def test_what_is_no_picture_of_ours_is_refused_with_the_reason(data, reason):
    with pytest.raises(BadImage) as refused:
        images.check(data, name="photo.jpg")
    assert reason in refused.value.message
    assert "'photo.jpg'" in refused.value.message
    assert refused.value.field == "image"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF"])
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_a_truncated_file_is_refused(format, part):
    data = coded(scene().resize((200, 120)), format)
    with pytest.raises(BadImage):
        images.check(data[: int(len(data) * part)])


@pytest.mark.parametrize("format", ["PNG", "WEBP", "AVIF", "TIFF"])
@pytest.mark.parametrize("part", [0.3, 0.5])
def test_a_file_whose_end_was_overwritten_is_refused(format, part):
    options = {"compression": "tiff_lzw"} if format == "TIFF" else {}
    data = coded(scene(), format, **options)
    start = int(len(data) * part)
    with pytest.raises(BadImage, match="damaged|not a picture"):
        images.check(data[:start] + b"\xff" * (len(data) - start))


def test_a_51_mb_file_is_refused_before_it_is_read_whole():
    class Endless(io.RawIOBase):
        asked = 0

        def read(self, size: int = -1) -> bytes:
            assert size >= 0
            self.asked += size
            return b"\xff" * size

    upload = Endless()
    with pytest.raises(TooLarge, match=r"20,971,520 bytes \(SHITU_MAX_IMAGE_BYTES\)"):
        images.check(upload)
    assert upload.asked == 20 * 1024 * 1024 + 1
    with pytest.raises(TooLarge):
        images.check(b"\xff" * 51_000_000)


def test_a_decompression_bomb_is_refused_from_its_header():
    """30,000 x 30,000 pixels in 110 kB."""
    bomb = png(30_000, 30_000, bytes(3751 * 30_000), depth=1, colour=0)
    assert len(bomb) < 200_000
    before = peak_memory()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pytest.raises(TooLarge, match="SHITU_MAX_IMAGE_PIXELS"):
            images.check(bomb)
    assert peak_memory() - before < 20_000_000


def test_more_pixels_than_the_limit_are_refused(settings):
    settings.SHITU_MAX_IMAGE_PIXELS = 60 * 40
    images.check(coded(scene()))
    settings.SHITU_MAX_IMAGE_PIXELS -= 1
    with pytest.raises(TooLarge, match="60 x 40 pixels; at most 2,399"):
        images.check(coded(scene()))


def test_a_tiff_with_tiles_far_larger_than_itself_is_refused():
    def entry(tag: int, value: int) -> bytes:
        return struct.pack("<HHII", tag, 4, 1, value)

    tags = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 322: 32768, 323: 32768}
    tags |= {324: 8, 325: 100}
    directory = b"".join(entry(tag, value) for tag, value in sorted(tags.items()))
    tiff = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + directory + bytes(300)
    with pytest.raises(BadImage, match="impossible tiles"):
        images.check(tiff)


def tiff(
    tags: dict[int, tuple[int, int, bytes]],
    *,
    order: str = "<",
    big: bool = False,
    inside: dict[int, tuple[int, int, bytes]] | None = None,
) -> bytes:
    """64 x 64 grey, with more tags: their type, how many values, and those in bytes. `inside` is an
    Exif directory of its own."""
    number, wide = ("Q", 8) if big else ("L", 4)
    values = b""

    def packed(what: str, *numbers: int) -> bytes:
        return struct.pack(order + what, *numbers)

    def directory(entries: dict[int, tuple[int, int, bytes]], at: int) -> bytes:
        nonlocal values
        behind = at + (8 if big else 2) + len(entries) * (4 + 2 * wide) + wide
        out, values = packed("Q" if big else "H", len(entries)), b""
        for tag, (kind, count, data) in sorted(entries.items()):
            out += packed("HH" + number, tag, kind, count)
            if len(data) > wide:
                out += packed(number, behind + len(values))
                values += data
            else:
                out += data.ljust(wide, b"\0")
        return out + packed(number, 0) + values

    def one(value: int) -> tuple[int, int, bytes]:
        return 4, 1, packed("L", value)

    pixels = 16 if big else 8
    own = {256: one(64), 257: one(64), 258: one(8), 259: one(1), 262: one(1), 277: one(1)}
    own |= {273: one(pixels), 278: one(64), 279: one(4096)} | tags
    head = (b"II" if order == "<" else b"MM") + packed("H", 43 if big else 42)
    head += packed("HHQ", 8, 0, 16 + 4096) if big else packed("L", 8 + 4096)
    start = head + bytes(4096)
    if inside is not None:
        at = len(start + directory(own | {34665: one(0)}, len(start)))
        own[34665] = one(at)
    whole = start + directory(own, len(start))
    return whole + directory(inside, len(whole)) if inside is not None else whole


@pytest.mark.parametrize(
    ("order", "big", "magic"),
    [
        ("<", False, b"II*\0"),
        (">", False, b"MM\0*"),
        ("<", True, b"II+\0"),
        ("<", False, b"II\0*"),  # wrong, and read
        (">", False, b"MM\0+"),  # called big, and read as if it were not
    ],
)
def test_a_tiff_of_endless_values_is_refused_before_pillow_sees_it(order, big, magic):
    """4 MB of places of strips took 26 s and a gigabyte, 8 MB of fractions 3 s."""

    def check(**options: object) -> images.Picture:
        data = tiff(order=order, big=big, **options)  # type: ignore[arg-type]
        return images.check(magic + data[4:])

    fractions = 5, 400_000, bytes(3_200_000)
    assert check(tags={}).width == 64
    started = time.perf_counter()
    for tags in (
        {273: (1, 400_000, bytes(400_000)), 278: (4, 1, struct.pack(order + "L", 1))},
        {273: (2, 400_000, bytes(400_000))},
        {324: (7, 400_000, bytes(400_000))},
        {259: (3, 400_000, bytes(800_000))},
        {282: fractions},
        {282: (5, 200_000, bytes(1_600_000)), 283: (5, 200_000, bytes(1_600_000))},
    ):
        with pytest.raises(BadImage, match="strips or other values"):
            check(tags=tags)
    with pytest.raises(BadImage, match="strips or other values"):
        check(tags={}, inside={33434: fractions})
    assert time.perf_counter() - started < 10
    assert check(tags={34675: (7, 400_000, bytes(400_000))}).width == 64  # a profile is one value
    assert check(tags={}, inside={33434: (5, 9, bytes(72))}).width == 64


def test_a_tiff_with_a_strip_for_every_row_is_read():
    rows = np.arange(4096, dtype=np.uint8).reshape(64, 64)
    places, sizes = (struct.pack("<64L", *of) for of in (range(8, 4104, 64), [64] * 64))
    every = {273: (4, 64, places), 278: (4, 1, struct.pack("<L", 1)), 279: (4, 64, sizes)}
    data = tiff(every)
    picture = images.check(data[:8] + rows.tobytes() + data[4104:])
    np.testing.assert_array_equal(picture.pixels[..., 0], rows)


def test_endless_exif_is_refused_or_left_out():
    """8 MB of fractions where one number is expected took 2.5 s."""
    fractions = tiff({274: (5, 400_000, bytes(3_200_000))})
    segments = [fractions[at : at + 60_000] for at in range(0, len(fractions), 60_000)]
    parts = [b"\xff\xe1" + struct.pack(">H", 8 + len(one)) + b"Exif\0\0" + one for one in segments]
    started = time.perf_counter()
    jpeg = coded(scene())
    with pytest.raises(BadImage, match="bytes of Exif"):
        images.check(jpeg[:2] + b"".join(parts) + jpeg[2:])
    with_it = coded(scene(), "PNG", exif=b"Exif\0\0" + fractions)
    assert images.check(with_it).data == with_it
    assert time.perf_counter() - started < 1.5


def progressive_with(scans: int) -> bytes:
    data = coded(scene(), progressive=True)
    last = data.rfind(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + data[-2:]


def test_a_jpeg_of_endless_scans_is_refused():
    """20 MB of repeated scans would take a processor hours."""
    images.check(progressive_with(20))
    started = time.perf_counter()
    with pytest.raises(BadImage, match="scans"):
        images.check(progressive_with(150_000))
    assert time.perf_counter() - started < 30


def test_20_mb_of_padding_in_a_jpeg_are_read_once():
    """40 kB of it took 9 s, in the square of its length."""
    data = coded(scene())
    middle = data.index(b"\xff\xda") + 14
    started = time.perf_counter()
    images.check(data[:middle] + b"\xff" * 19_000_000 + b"\0" + data[middle:])
    assert time.perf_counter() - started < 20


EXIF = b"\xff\xe1\0\x09Exif\0\0a"
"""A segment of one byte: Pillow copies all that came before it."""


@pytest.mark.parametrize(
    "segments",
    [
        EXIF * 1_700_000,
        b"\xff\xd9" + EXIF * 1_700_000,
        (b"\xff\xf0\xff\xff" + EXIF * 5_000) * 340,
        (b"\xff\xff\xff\0" + EXIF * 5_000) * 340,
    ],
    ids=["plain", "behind an end", "behind a marker without a length", "behind padding"],
)
def test_a_jpeg_of_endless_segments_is_refused_before_pillow_sees_it(segments):
    """4 MB of them took 11 s, in the square of their number."""
    data = coded(scene())
    images.check(data[:2] + EXIF * 900 + data[2:])
    started = time.perf_counter()
    with pytest.raises(BadImage, match="more than 1000 segments"):
        images.check(data[:2] + segments + data[2:])
    assert time.perf_counter() - started < 20


def run_length_bmp(width: int, height: int) -> bytes:
    rows = b"\1\1\0\0" * height + b"\0\1"
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(rows), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1078 + len(rows), 0, 0, 1078) + head + bytes(1024) + rows


@pytest.mark.parametrize(
    "data",
    [
        run_length_bmp(10_000, 5_000),
        b"P1 1000 1000\n" + b"#\n" * 9_000_000,
        b"P3 1000 1000 255\n" + b"#\n" * 9_000_000,
    ],
    ids=["bmp", "pbm", "ppm"],
)
def test_what_pillow_decodes_in_python_is_refused(data):
    """The BMP of 21 kB took 6 s, the comments minutes."""
    started = time.perf_counter()
    with pytest.raises(BadImage, match="run lengths"):
        images.check(data)
    assert time.perf_counter() - started < 4


def test_a_film_behind_a_phone_photo_is_not_counted_as_scans():
    data = coded(scene()) + b"\xff\xda\0\x02" * 1000
    assert images.check(data).data == data


MUTABLE = [
    coded(scene(), format)
    for format in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
]


@given(
    st.sampled_from(MUTABLE),
    st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_no_bytes_at_all_make_it_fail_otherwise(data, changes):
    damaged = bytearray(data)
    for place, byte in changes:
        damaged[place % len(damaged)] = byte
    try:
        picture = images.check(bytes(damaged))
    except (BadImage, TooLarge):
        return
    assert picture.pixels.shape == (picture.height, picture.width, 3)


# Decoding


def grocery_photos() -> list[Path]:
    photos = sorted(GROCERY.glob("images/**/*.jpg"))
    if not photos:
        pytest.skip("the grocery photos are not beside the project")
    return photos


def test_pixels_are_those_that_paddlex_sees():
    cv2 = pytest.importorskip("cv2")
    for photo in grocery_photos()[::10]:
        data = photo.read_bytes()
        theirs = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        np.testing.assert_array_equal(images.decode(data), theirs)


def test_threads_do_not_disturb_each_other():
    files = [coded(scene().rotate(angle), "PNG") for angle in range(0, 320, 10)]
    alone = [images.decode(file) for file in files]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(images.decode, files * 4))
    for position, pixels in enumerate(together):
        np.testing.assert_array_equal(pixels, alone[position % len(files)])


def test_a_stored_file_that_was_damaged_since_is_a_named_error():
    with pytest.raises(BadImage, match="damaged"):
        images.decode(coded(scene())[:300])


def test_a_thumbnail_is_a_small_upright_jpeg():
    exif = Image.Exif()
    exif[0x0112] = 6
    small = opened(images.thumbnail(coded(scene().resize((600, 400)), exif=exif), 30))
    assert (small.format, small.size) == ("JPEG", (20, 30))


def test_a_thumbnail_is_never_enlarged():
    assert opened(images.thumbnail(coded(scene("P"), "PNG"), 500)).size == (60, 40)


# base64


@given(st.binary(max_size=200), st.sampled_from(["", "data:image/png;base64,"]))
def test_base64_is_read_back(data, prefix):
    assert images.from_base64(prefix + base64.b64encode(data).decode()) == data
    assert images.from_base64(f" {prefix}\n" + base64.encodebytes(data).decode()) == data


@pytest.mark.parametrize("text", ["abc", "a*bc", "https://example.com/a.jpg", "äöü=", "data:,x"])
def test_what_is_not_base64_is_refused(text):
    with pytest.raises(BadImage, match="base64"):
        images.from_base64(text)


def test_base64_of_too_much_is_refused_undecoded(settings):
    settings.SHITU_MAX_IMAGE_BYTES = 300
    assert images.from_base64(base64.b64encode(bytes(300)).decode()) == bytes(300)
    with pytest.raises(TooLarge):
        images.from_base64("*" * 408)


# Boxes

edges = st.floats(allow_nan=True, allow_infinity=True) | st.integers(-(10**6), 10**6)
sides = st.integers(8, 5000)


@given(st.tuples(edges, edges, edges, edges), sides, sides)
def test_a_box_is_inside_the_picture_or_refused(box, width, height):
    try:
        left, top, right, bottom = images.check_box(box, width, height)
    except BadInput as refused:
        assert refused.field == "box"
        return
    assert 0 <= left <= right - 8 < right <= width
    assert 0 <= top <= bottom - 8 < bottom <= height


@given(st.data(), sides, sides)
def test_a_box_inside_the_picture_is_left_alone(data, width, height):
    left, top = data.draw(st.integers(0, width - 8)), data.draw(st.integers(0, height - 8))
    right = data.draw(st.integers(left + 8, width))
    bottom = data.draw(st.integers(top + 8, height))
    box = (left, top, right, bottom)
    assert images.check_box(box, width, height) == box
    assert (
        images.check_box(box, width, height)
        == images.check_box([edge + 0.75 for edge in box], width, height)
        or right == width
        or bottom == height
    )


def test_the_whole_picture_is_always_a_box():
    assert images.check_box((-5, -5, 1e9, 1e9), 8, 8) == (0, 0, 8, 8)
    assert images.check_box(np.array([0, 0, 20, 30.5], np.float32), 60, 40) == (0, 0, 20, 30)


@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 10),
        (0, 0, 10, 10, 10),
        (0, 0, float("nan"), 20),
        (0, 0, float("inf"), 20),
        ("0", "0", "20", "20"),
        (None, 0, 20, 20),
        (False, 0, 20, True),
        (20, 20, 0, 0),
        (5, 5, 5, 30),
        (60, 40, 90, 90),
        (0, 0, 7, 40),
    ],
)
def test_a_box_that_is_none_is_refused(box):
    with pytest.raises(BadInput, match="left, top, right, bottom"):
        images.check_box(box, 60, 40)
