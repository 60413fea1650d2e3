"""How many pixels the frames inside an AVIF have, whatever its container says of them.

libavif believes the container, decodes each frame at the size that it has itself, and only then
scales it: 3 kB that called themselves 64 x 64 took half a gigabyte. And it looks through its tables
in the square of their length.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

MOST_EXIF: Final = 2**20  # bytes; its values become objects, and a camera writes 64 kB at most
_MOST_TABLES: Final = 256 * 2**10  # bytes; a grid of 700 tiles has 40 kB
_MOST_PARTS: Final = 10_000
_SEQUENCE_HEADER: Final = 1
_FRAMES: Final = {3, 6, 7}  # header, header with content, header once more: dav1d takes it for one
_KEY_FRAME, _SWITCH_FRAME = 0, 3
_ADAPTIVE: Final = 2


class Unusual(Exception):
    """It is damaged, or of a kind that is not followed: a film, frames that change their size."""


class _Sequence(NamedTuple):
    """What an AV1 sequence header says of the frames behind it."""

    pixels: int
    is_reduced: bool  # its one frame has no size of its own
    screen_tools: int
    integer_motion: int


def frames(data: bytes) -> Iterator[int]:
    """The pixels of every frame, also of those that nothing shows. Raises Unusual."""
    parts = 0
    for stream in _streams(data):
        sequence = None
        for kind, unit in _units(stream):
            parts += 1
            if parts > _MOST_PARTS:
                raise Unusual
            if kind == _SEQUENCE_HEADER:
                sequence = _sequence(_Bits(unit))
            elif kind in _FRAMES and sequence:
                yield _frame(_Bits(unit), sequence)


def _boxes(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Kind and content of each box; the last one may be cut short."""
    for _box in range(_MOST_PARTS):
        if len(data) < 8:
            return
        size, start = int.from_bytes(data[:4]), 8
        if size == 1:
            size, start = int.from_bytes(data[8:16]), 16
        elif size == 0:
            size = len(data)
        if size < start:
            raise Unusual
        yield bytes(data[4:8]), data[start:size]
        data = data[size:]
    raise Unusual


def _streams(data: bytes) -> Iterator[bytes]:
    """What every item of AV1 holds."""
    for kind, box in _boxes(memoryview(data)):
        if kind == b"moov":
            raise Unusual
        if kind == b"meta":
            yield from _streams_of(box[4:], memoryview(data))


def _streams_of(meta: memoryview, data: memoryview) -> Iterator[bytes]:
    boxes = list(_boxes(meta))
    properties = [one for kind, box in boxes if kind == b"iprp" for one in _boxes(box)]
    profiles = [
        len(one)
        for kind, box in properties
        if kind == b"ipco"
        for of, one in _boxes(box)
        if of == b"colr"
    ]
    inside = [box for kind, box in boxes if kind == b"idat"]
    if len(inside) > 1 or len(meta) - sum(map(len, inside)) - sum(profiles) > _MOST_TABLES:
        raise Unusual
    kinds = [one for kind, box in boxes if kind == b"iinf" for one in _kinds(box)]
    coded = {item for item, kind in kinds if kind == b"av01"}
    exif = {item for item, kind in kinds if kind == b"Exif"}
    left, parts = 2 * len(data), 0
    for kind, box in boxes:
        if kind != b"iloc":
            continue
        for item, extents in _located(_Fields(box), data, inside[0] if inside else data[:0]):
            size = sum(map(len, extents))
            parts += len(extents)
            if item in exif and size > MOST_EXIF:
                raise Unusual
            if item in coded:
                left -= size
                if left < 0 or parts > _MOST_PARTS:  # the same bytes again and again
                    raise Unusual
                yield b"".join(extents)


def _kinds(box: memoryview) -> Iterator[tuple[int, bytes]]:
    """Number and kind of every item."""
    for kind, entry in _boxes(box[6 if box[:1] == b"\0" else 8 :]):
        if kind == b"infe":
            wide = 2 if entry[:1] == b"\2" else 4
            yield int.from_bytes(entry[4 : 4 + wide]), bytes(entry[6 + wide : 10 + wide])


class _Fields:
    def __init__(self, data: memoryview) -> None:
        self._data = data

    def take(self, size: int) -> int:
        if size > len(self._data):
            raise Unusual
        taken, self._data = self._data[:size], self._data[size:]
        return int.from_bytes(taken)


def _located(
    fields: _Fields, data: memoryview, inside: memoryview
) -> Iterator[tuple[int, list[memoryview]]]:
    """Number of every item, and the pieces it lies in."""
    version, _flags, sizes = fields.take(1), fields.take(3), fields.take(2)
    offset_size, length_size, base_size = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index_size = sizes & 15 if version else 0
    wide = 2 if version < 2 else 4
    for _item in range(fields.take(wide)):
        item = fields.take(wide)
        method = fields.take(2) & 15 if version else 0
        if method > 1:
            raise Unusual
        source = inside if method else data
        fields.take(2)
        base, pieces = fields.take(base_size), fields.take(2)
        if pieces > _MOST_PARTS:
            raise Unusual
        extents = []
        for _piece in range(pieces):
            fields.take(index_size)
            offset, length = base + fields.take(offset_size), fields.take(length_size)
            extents.append(source[offset : offset + length] if length else source[offset:])
        yield item, extents


def _units(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and beginning of every unit (OBU) of a stream."""
    at = 0
    while at < len(stream):
        head = stream[at]
        at += 2 if head & 4 else 1
        size = len(stream) - at
        if head & 2:
            size = shift = 0
            for byte in stream[at : at + 8]:
                at += 1
                size |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
        yield head >> 3 & 15, stream[at : at + min(size, 256)]
        at += size


class _Bits:
    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data), 8 * len(data)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise Unusual
        return self._value >> self._left & (1 << count) - 1


def _sequence(bits: _Bits) -> _Sequence:
    bits.take(4)  # profile, still picture
    is_reduced = bool(bits.take(1))
    if is_reduced:
        bits.take(5)  # level
    else:
        if bits.take(1):  # times, of films
            raise Unusual
        has_delays = bits.take(1)
        for _point in range(bits.take(5) + 1):
            bits.take(12)
            if bits.take(5) > 7:
                bits.take(1)
            if has_delays and bits.take(1):
                bits.take(4)
    of_width, of_height = bits.take(4) + 1, bits.take(4) + 1
    size = (bits.take(of_width) + 1) * (bits.take(of_height) + 1)
    if is_reduced:
        return _Sequence(size, True, 0, 0)
    if bits.take(1):  # numbers of frames, of films
        raise Unusual
    bits.take(7)
    if bits.take(1):  # order hints
        bits.take(2)
    screen_tools = _ADAPTIVE if bits.take(1) else bits.take(1)
    integer_motion = _ADAPTIVE
    if screen_tools:
        integer_motion = _ADAPTIVE if bits.take(1) else bits.take(1)
    return _Sequence(size, False, screen_tools, integer_motion)


def _frame(bits: _Bits, sequence: _Sequence) -> int:
    """Its pixels; raises Unusual when it has another size than its sequence."""
    if sequence.is_reduced:
        return sequence.pixels
    if bits.take(1):  # an earlier one is shown
        return 0
    kind, is_shown = bits.take(2), bits.take(1)
    if not is_shown:
        bits.take(1)
    if not (kind == _KEY_FRAME and is_shown) and kind != _SWITCH_FRAME:
        bits.take(1)
    bits.take(1)
    tools = bits.take(1) if sequence.screen_tools == _ADAPTIVE else sequence.screen_tools
    if tools and sequence.integer_motion == _ADAPTIVE:
        bits.take(1)
    if kind == _SWITCH_FRAME or bits.take(1):
        raise Unusual
    return sequence.pixels
