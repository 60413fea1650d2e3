"""The only place that opens untrusted bytes: limits, decoding, turning upright, checksum.

What is stored decodes to exactly the pixels that were checked. A plain picture keeps its bytes;
anything else (turned, transparent, CMYK, 16-bit grey, animated, GIF, BMP, TIFF, PPM, AVIF) is
stored once, lossless, as an upright RGB PNG, because a second lossy coding would move its vector.

Colour profiles are carried along and never applied: the networks were trained on, and PaddleX
reads, the plain values (`cv2.imdecode` with IMREAD_COLOR), and a profile is one more parser.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import math
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Real
from typing import BinaryIO, Final, Literal

import numpy as np
import numpy.typing as npt
from django.conf import settings
from django.utils.translation import gettext as _

# Imported by name, so that no picture ever makes Pillow load its other forty plugins.
from PIL import (  # noqa: F401
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from recognition import avif
from recognition.errors import BadImage, BadInput, TooLarge

Pixels = npt.NDArray[np.uint8]
StoredFormat = Literal["JPEG", "PNG", "WEBP"]

ACCEPTED: Final = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF", "PPM", "TIFF")
_SUFFIX: Final[dict[StoredFormat, str]] = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}
# Phones append gain maps and depth to a JPEG and call it MPO; every reader sees the first picture.
_KEPT: Final[dict[str | None, StoredFormat]] = {
    "JPEG": "JPEG",
    "MPO": "JPEG",
    "PNG": "PNG",
    "WEBP": "WEBP",
}
_KEPT_MODES: Final = {"1", "L", "P", "RGB"}
_MODES: Final = _KEPT_MODES | {"LA", "PA", "La", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"}

_ORIENTATION: Final = 0x0112
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What Pillow raises on bytes that are not what they claim to be; the last three come from AVIF
# decoding, TIFF tags of the wrong type and chunk headers.
_BROKEN: Final = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    struct.error,
)

_TILE_WIDTH, _TILE_LENGTH = 322, 323
_PLACES: Final = {273, 324}  # of strips, of tiles
_DIRECTORIES: Final = {34665, 34853, 40965}  # those inside that Pillow reads: Exif, GPS, Interop
_TIFF_SIZES: Final = {
    1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8,
}  # fmt: skip
_ONE_OBJECT: Final = {1, 2, 7}  # bytes and text, however many
# An image, its transparency, and one that shows it smaller or brighter.
_AVIF_FRAMES: Final = 3
_AVIF_BRANDS: Final = {b"avif", b"avis", b"mif1", b"msf1"}
# A real progressive JPEG has about ten scans. Each one costs a pass over the whole picture and as
# little as 75 bytes: 20 MB of them kept a processor busy for hours.
_MAX_SCANS: Final = 100
# Pillow joins Exif segments one by one, each time copying all before it: 4 MB of empty ones took
# 11 s. The segments of a real file hold up to 64 kB each.
_MAX_SEGMENTS: Final = 1000
# Values of its tags become objects in Python: 4 MB of places of strips took 26 s and a gigabyte.
_MAX_TIFF_VALUES: Final = 250_000
_MAX_EXIF: Final = avif.MOST_EXIF
# Those that Pillow and libjpeg take to have a length, and EOI. Any number of \xff may come before,
# and one is enough: with `+` a run of them that ends in \0 took time in its square.
_JPEG_MARKER: Final = re.compile(rb"\xff([^\x00\x01\xc8\xd0-\xd8\xf0-\xfd\xff])")
_START_OF_SCAN, _END_OF_IMAGE = b"\xda", b"\xd9"
# Decoded by Pillow in Python: 13 kB of run lengths took 5 s, 1 MB of comments in plain text 8 s.
_SLOW_CODECS: Final = {"bmp_rle", "ppm_plain"}

_DATA_URI: Final = re.compile(r"\s*data:[^,]{0,200};base64,", re.IGNORECASE)


@dataclass(frozen=True)
class Picture:
    """A picture that passed the check, as it is to be stored.

    `data` are the bytes sent when they already are an upright opaque JPEG, PNG or WebP, otherwise
    the same pixels as PNG. `width` and `height` are those of the upright picture, in pixels.
    `checksum` is the SHA-256 (hex) of the bytes *sent*, so that sending them again is recognised.
    """

    data: bytes = field(repr=False)
    format: StoredFormat
    width: int
    height: int
    checksum: str

    @property
    def suffix(self) -> str:
        return _SUFFIX[self.format]

    @cached_property
    def pixels(self) -> Pixels:
        """RGB uint8 (height, width, 3), decoded at first use."""
        return decode(self.data)


def check(source: bytes | BinaryIO, *, name: str = "") -> Picture:
    """The picture in `source`, or why it cannot be used.

    Of an animation (GIF, WebP, APNG) or a multi-page TIFF it is the first frame; transparency is
    laid on white; EXIF orientation is applied; CMYK goes to RGB without a profile and 16-bit to
    8-bit by its high byte, as OpenCV does. The limits are SHITU_MAX_IMAGE_BYTES,
    SHITU_MAX_IMAGE_PIXELS and SHITU_MIN_IMAGE_SIDE; pixels are counted before any is decoded.
    `name` (of the file) only makes the message better.

    Raises BadImage or TooLarge, with `field="image"`.
    """
    data = _limited(source, name)
    if data.startswith(b"\xff\xd8"):
        _refuse_endless_jpeg(data, name)
    elif data.startswith((b"II", b"MM")):
        _refuse_endless_tiff(data, name)
    elif data[4:8] == b"ftyp":
        _refuse_hidden_frames(data, name)
    size = (0, 0)

    def first(image: ImageFile.ImageFile) -> None:
        nonlocal size
        _refuse_excess(image, name)
        size = image.size
        if isinstance(image, JpegImagePlugin.JpegImageFile) and _is_kept(image):
            image.draft(image.mode, (1, 1))  # 1/8 needs all bytes all the same, and half the time

    image = _loaded(data, name, first=first)
    kept = _is_kept(image)
    if not kept:
        upright, stored = _upright_rgb(image, name), io.BytesIO()
        # Level 1: 8 % larger than the default and three times as fast.
        upright.save(stored, "PNG", compress_level=1, icc_profile=_profile(image))
        size = upright.size
    return Picture(
        data=data if kept else stored.getvalue(),
        format=_KEPT[image.format] if kept else "PNG",
        width=size[0],
        height=size[1],
        checksum=hashlib.sha256(data).hexdigest(),
    )


def _is_kept(image: ImageFile.ImageFile) -> bool:
    """Whether a picture is stored with the bytes it came with."""
    return (
        image.format in _KEPT
        and image.mode in _KEPT_MODES
        and _orientation(image) not in _TURNS
        and not image.has_transparency_data
        and (image.format == "MPO" or not getattr(image, "is_animated", False))
    )


def decode(data: bytes) -> Pixels:
    """Stored bytes as upright RGB uint8 (height, width, 3), a read-only array.

    No limits are applied: these bytes have passed `check`. Equal to `cv2.imdecode(IMREAD_COLOR)`
    with its channels turned round. Raises BadImage if the file was damaged since.
    """
    return np.asarray(_upright_rgb(_loaded(data)))


def thumbnail(data: bytes, side: int) -> bytes:
    """A JPEG of stored bytes, upright, neither side longer than `side` pixels, never enlarged."""
    # A JPEG is decoded at 1/2, 1/4 or 1/8 where that is enough; other formats have no draft.
    image = _loaded(data, first=lambda image: image.draft("RGB", (side, side)))
    small = _upright_rgb(image)
    small.thumbnail((side, side))
    jpeg = io.BytesIO()
    small.save(jpeg, "JPEG", quality=85, icc_profile=_profile(image))
    return jpeg.getvalue()


def from_base64(text: str) -> bytes:
    """Bytes of a picture sent as base64, with or without `data:image/...;base64,` and line breaks.

    Stricter than PaddleX, which skips foreign characters and so decodes a typing error to noise.
    Raises TooLarge before decoding, BadImage for anything that is not base64.
    """
    prefix = _DATA_URI.match(text)
    encoded = "".join(text[prefix.end() if prefix else 0 :].split())
    if len(encoded) * 3 // 4 - 2 > settings.SHITU_MAX_IMAGE_BYTES:
        raise _too_many_bytes("")
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadImage(
            _(
                "The picture is not valid base64 (%(why)s). Encode the whole file with the "
                "standard alphabet and padding, with or without a data:image/...;base64, prefix."
            )
            % {"why": error},
            field="image",
        ) from error


def check_box(box: Sequence[float], width: int, height: int) -> tuple[int, int, int, int]:
    """`(left, top, right, bottom)` as whole pixels inside a picture of `width` x `height`.

    Pixels of the upright picture; right and bottom are exclusive. Fractions are cut off, as PaddleX
    crops; what sticks out is clamped. Raises BadInput (`field="box"`) when it is not four finite
    numbers in order, or when what is inside the picture is under SHITU_MIN_IMAGE_SIDE.
    """
    if len(box) != 4 or not all(
        isinstance(edge, Real) and not isinstance(edge, bool) and math.isfinite(edge)
        for edge in box
    ):
        raise BadInput(
            _(
                "A box is four finite numbers: left, top, right, bottom, in pixels of the upright "
                "picture."
            ),
            field="box",
        )
    left, top = max(int(box[0]), 0), max(int(box[1]), 0)
    right, bottom = min(int(box[2]), width), min(int(box[3]), height)
    least = settings.SHITU_MIN_IMAGE_SIDE
    if right - left < least or bottom - top < least:
        raise BadInput(
            _(
                "The box has less than %(least)s x %(least)s pixels inside the picture of "
                "%(width)s x %(height)s. Give left, top, right, bottom, in pixels of the upright "
                "picture."
            )
            % {"least": least, "width": width, "height": height},
            field="box",
        )
    return left, top, right, bottom


def _limited(source: bytes | BinaryIO, name: str) -> bytes:
    limit = settings.SHITU_MAX_IMAGE_BYTES
    data = source if isinstance(source, bytes) else source.read(limit + 1)
    if len(data) > limit:
        raise _too_many_bytes(name)
    if not data:
        raise _bad(name, _("is empty (0 bytes). Send the file again."))
    return data


def _loaded(
    data: bytes, name: str = "", *, first: Callable[[ImageFile.ImageFile], object] | None = None
) -> ImageFile.ImageFile:
    """The decoded picture; whatever its bytes do wrong is a BadImage.

    `first` sees the picture when only its header has been read.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=ACCEPTED)
        if first:
            first(image)
        image.load()
    except UnidentifiedImageError as error:
        raise _bad(
            name,
            _("%(it_is)s. Send it as JPEG, PNG or WebP.") % {"it_is": _what_it_is(data)},
        ) from error
    except (Image.DecompressionBombError, MemoryError) as error:
        raise _too_many_pixels(name) from error
    except _BROKEN as error:
        raise _bad(
            name, _("is damaged or incomplete and cannot be decoded. Send the file again.")
        ) from error
    return image


def _refuse_excess(image: ImageFile.ImageFile, name: str) -> None:
    """Everything that would cost too much is refused here, from the header alone."""
    limit, least = settings.SHITU_MAX_IMAGE_PIXELS, settings.SHITU_MIN_IMAGE_SIDE
    if image.width * image.height > limit:
        raise _too_many_pixels(name, image.size)
    if min(image.size) < least:
        raise _bad(
            name,
            _(
                "has %(width)s x %(height)s pixels; each side needs at least %(least)s. "
                "Send a larger picture."
            )
            % {"width": image.width, "height": image.height, "least": least},
        )
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tile = image.tag_v2.get(_TILE_WIDTH, 0) * image.tag_v2.get(_TILE_LENGTH, 0)
        if tile > limit:  # libtiff unpacks whole tiles, however small the picture says it is
            raise _bad(name, _("is a TIFF with impossible tiles. Send it as JPEG, PNG or WebP."))
    if any(tile.codec_name in _SLOW_CODECS for tile in image.tile):
        raise _bad(
            name,
            _("is a BMP of run lengths or a PPM of plain text. Send it as JPEG, PNG or WebP."),
        )


def _refuse_endless_jpeg(data: bytes, name: str) -> None:
    """Counts the parts of a JPEG, on its bytes: Pillow's own look at the header may be too much."""
    segments, scans, exif, position = 0, 0, 0, 2
    while match := _JPEG_MARKER.search(data, position):
        position = match.end()
        if match[1] == _END_OF_IMAGE:
            if scans:  # phones append films, whose bytes are no scans
                return
            continue  # Pillow reads on until there is one
        scans += match[1] == _START_OF_SCAN
        segments += not scans
        if not scans and data[position + 2 : position + 8] == b"Exif\0\0":
            exif += int.from_bytes(data[position : position + 2])
        if scans > _MAX_SCANS:
            raise _bad(
                name,
                _("is a JPEG of more than %(most)s scans. Save it as a usual JPEG.")
                % {"most": _MAX_SCANS},
            )
        if segments > _MAX_SEGMENTS:
            raise _bad(
                name,
                _("is a JPEG of more than %(most)s segments. Save it as a usual JPEG.")
                % {"most": _MAX_SEGMENTS},
            )
        if exif > _MAX_EXIF:
            raise _bad(
                name,
                _("is a JPEG with more than %(most)s bytes of Exif. Save it without.")
                % {"most": f"{_MAX_EXIF:,}"},
            )
        position += int.from_bytes(data[position : position + 2])


def _refuse_endless_tiff(data: bytes, name: str) -> None:
    """Counts the values in the directories that Pillow reads when it opens or decodes the first
    page, as it finds them."""
    order: Literal["little", "big"] = "little" if data.startswith(b"II") else "big"
    is_big = data[2:3] == b"+"
    wide = 8 if is_big else 4

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], order)

    waiting, seen, values = [number(wide, wide)], set(), 0
    while waiting:
        at = waiting.pop()
        if at in seen:
            continue
        seen.add(at)
        entries = number(at, 8 if is_big else 2)
        start, step = at + (8 if is_big else 2), 4 + 2 * wide
        values += entries
        for entry in range(start, min(start + entries * step, len(data)), step):
            tag, kind, count = number(entry, 2), number(entry + 2, 2), number(entry + 4, wide)
            byte_size = count * _TIFF_SIZES.get(kind, 0)
            is_read = 0 < byte_size <= len(data)
            if is_read and (tag in _PLACES or kind not in _ONE_OBJECT):
                values += count
            if values > _MAX_TIFF_VALUES:
                raise _bad(
                    name,
                    _("is a TIFF of more than %(most)s strips or other values. Save it as PNG.")
                    % {"most": f"{_MAX_TIFF_VALUES:,}"},
                )
            if is_read and tag in _DIRECTORIES:
                place = entry + 4 + wide
                if byte_size > wide:
                    place = number(place, wide)
                waiting.append(number(place, _TIFF_SIZES[kind]))


def _refuse_hidden_frames(data: bytes, name: str) -> None:
    """Counts the pixels of an AVIF in its frames; the decoder makes room for those."""
    if data[8:12] not in _AVIF_BRANDS:
        return
    try:
        frames = list(avif.frames(data))
    except avif.Unusual as error:
        raise _bad(
            name,
            _("is a damaged AVIF, or an unusual one such as a film. Send it as JPEG, PNG or WebP."),
        ) from error
    limit = settings.SHITU_MAX_IMAGE_PIXELS
    if max(frames, default=0) > limit or sum(frames) > _AVIF_FRAMES * limit:
        raise _too_many_pixels(name)


def _orientation(image: Image.Image) -> int:
    try:
        exif = image.getexif()
        if len(image.info.get("exif", b"")) > _MAX_EXIF:  # and may be damaged
            return 1
        return exif.get(_ORIENTATION, 1)
    except _BROKEN:  # a damaged EXIF block says nothing about the direction; the pixels are fine
        return 1


def _profile(image: Image.Image) -> bytes | None:
    return image.info.get("icc_profile") if image.mode in ("RGB", "RGBA") else None


def _upright_rgb(image: Image.Image, name: str = "") -> Image.Image:
    from_netpbm = image.format == "PPM"
    turn = _TURNS.get(_orientation(image))
    if turn is not None:  # FLIP_LEFT_RIGHT is 0
        image = image.transpose(turn)
    if image.mode.startswith("I;16") or (image.mode == "I" and from_netpbm):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode not in _MODES:
        raise _bad(
            name,
            _(
                "has the pixel type %(mode)s, whose black and white are not defined. "
                "Save it with 8 bits a channel, as JPEG, PNG or WebP."
            )
            % {"mode": image.mode},
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def _what_it_is(data: bytes) -> str:
    """What people most often send in place of a picture, by its first bytes."""
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n")
    if start[4:8] == b"ftyp" and b"avi" not in start[8:32]:
        return _("is in a HEIC or film format, which is not accepted")
    if start.startswith(b"%PDF"):
        return _("is a PDF, not a picture")
    if start.startswith(b"<"):
        return _("is text (SVG, HTML or XML), whatever its name says, not a picture of pixels")
    return _("is not a picture in a format that is accepted (%(formats)s)") % {
        "formats": ", ".join(ACCEPTED)
    }


def _called(name: str) -> str:
    if not name:
        return _("The picture")
    return _("The picture %(name)s") % {"name": repr(name[-80:])}


def _bad(name: str, why: str) -> BadImage:
    said = _("%(picture)s %(why)s") % {"picture": _called(name), "why": why}
    return BadImage(said, field="image")


def _too_many_bytes(name: str) -> TooLarge:
    return TooLarge(
        _(
            "%(picture)s has more than %(most)s bytes (SHITU_MAX_IMAGE_BYTES). Send it with fewer "
            "pixels or more compression."
        )
        % {"picture": _called(name), "most": f"{settings.SHITU_MAX_IMAGE_BYTES:,}"},
        field="image",
    )


def _too_many_pixels(name: str, size: tuple[int, int] | None = None) -> TooLarge:
    if size:
        has = _("has %(width)s x %(height)s pixels") % {"width": size[0], "height": size[1]}
    else:
        has = _("unpacks to too many pixels")
    return TooLarge(
        _(
            "%(picture)s %(has)s; at most %(most)s in all are accepted (SHITU_MAX_IMAGE_PIXELS). "
            "Send it smaller."
        )
        % {
            "picture": _called(name),
            "has": has,
            "most": f"{settings.SHITU_MAX_IMAGE_PIXELS:,}",
        },
        field="image",
    )
