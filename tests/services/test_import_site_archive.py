"""catalogue.json and embeddings.json of an export, read as a stream: whatever is in them."""

from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recognition.errors import BadInput, TooLarge
from recognition.services import imports
from recognition.services.imports import site_archive
from tests.services.test_import import packed

HEAD = b'{"format": "shitu-catalogue", "version": 1, '


class Place:
    """One file, whatever it is asked for."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def open(self, name: str) -> io.BytesIO:
        return io.BytesIO(self._data)

    def names(self) -> Iterator[str]:
        return iter(())


@contextmanager
def little_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 12 * 2**20
    finally:
        tracemalloc.stop()


def items(data: bytes, name: str = "products") -> list[object]:
    return list(site_archive._items(Place(data), name))


plain = st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.text(max_size=20)
plain |= st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=20,
)


def depth(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, dict | list) + max(map(depth, inner), default=0)


@given(st.lists(values, max_size=5), st.lists(values, max_size=5), st.booleans())
def test_items_are_what_json_says_they_are(products, images, swapped):
    whole = {"a": [1, {"b": []}], "products": products, "c": {"d": {}}, "images": images}
    if swapped:
        whole = dict(reversed(whole.items()))
    data = json.dumps(whole, ensure_ascii=False).encode()
    if max(map(depth, products + images), default=0) > site_archive.MOST_DEPTH - 2:
        with pytest.raises(TooLarge):
            items(data)
    else:
        assert items(data) == json.loads(data)["products"]
        assert items(data, "images") == json.loads(data)["images"]


@given(st.text(max_size=9), values)
def test_the_head_is_what_json_says_it_is(name, value):
    whole = {"format": "shitu-catalogue", "version": 1, "catalogue": {name: value}, "counts": {}}
    if depth(value) <= site_archive.MOST_DEPTH - 2:
        found = site_archive.head(Place(json.dumps(whole | {"products": []}).encode()))
        assert found == json.loads(json.dumps(whole))


@pytest.mark.parametrize("value", ["5", "[1]", "null", '"text"'])
@pytest.mark.parametrize("name", ["catalogue", "counts"])
def test_a_head_of_other_kinds_of_values_is_damaged(name, value):
    data = HEAD + f'"{name}": {value}, "products": []}}'.encode()
    with pytest.raises(BadInput, match="damaged"):
        site_archive.head(Place(data))


@pytest.mark.parametrize(
    "data",
    [
        b'{"x":' + b"[" * 3000,  # for which 22 MB of paths were kept; for 65,536 gigabytes
        b'{"x":' + b'{"a":' * 3000,
        HEAD + b'"catalogue": {' + b",".join(b'"%d": 1' % n for n in range(200_000)) + b"}}",
        b"{" + b",".join(b'"%d": 1' % n for n in range(200_000)) + b"}",
        b'{"x": [' + b"1," * 700_000 + b"1]}",
        b'{"x": "' + b"a" * 20_000_000 + b'"}',
        b"[" + b"[]," * 400_000 + b"[]]",
    ],
    ids=["lists", "objects", "settings", "names", "numbers", "text", "no object"],
)
def test_a_head_without_end_is_given_up(data):
    sent = packed({"catalogue.json": data})
    with little_memory(), pytest.raises(TooLarge, match="larger or deeper than any export"):
        imports.settings_of(sent)


@pytest.mark.parametrize(
    "item",
    [
        b'{"label": "a", "attributes": [' + b"[]," * 300_000 + b"[]]}",
        b'{"label": "a", "attributes": ' + b"[" * 3000,
        b'{"label": "a", "names": {' + b",".join(b'"%d": 1' % n for n in range(100_000)) + b"}}",
        b'{"label": "' + b"a" * 20_000_000 + b'"}',
    ],
    ids=["lists", "depth", "names", "text"],
)
@pytest.mark.parametrize("name", ["products", "images", "else"])
def test_an_item_without_end_is_given_up(item, name):
    """100 kB of a ZIP were 35 million lists."""
    data = b'{"%s": [{"label": "tea"}, %b]}' % (name.encode(), item)
    with little_memory(), pytest.raises(TooLarge, match="larger or deeper than any export"):
        items(data)


def test_many_items_are_no_large_one():
    """The bounds are of one item: all of them together may have any size."""
    one = {"label": "tea", "attributes": {str(n): list(range(100)) for n in range(20)}}
    data = b'{"products": [%b]}' % b",".join([json.dumps(one).encode()] * 600)
    assert len(data) > site_archive.MOST_ITEM
    with little_memory():
        assert all(item == one for item in site_archive._items(Place(data), "products"))


def test_a_product_may_have_all_the_attributes_there_may_be():
    one = {"label": "tea", "attributes": {str(n): ["x"] * 100 for n in range(200)}}
    one["names"] = {str(n): "name" for n in range(200)}
    assert items(json.dumps({"products": [one]}).encode()) == [one]


def test_vectors_of_an_image_are_read_and_only_those_that_it_can_have_are_kept():
    row = np.full(4, 0.5, np.float32)
    read: list[int] = []

    def vectors() -> Iterator[np.ndarray]:
        for number in range(10_000):
            read.append(number)
            yield row

    rows = vectors()
    item = {"path": "a.png", "label": "tea"}
    line = site_archive._image(1, item | {"vectors": [0, 1]}, Place(b""), rows)
    assert sorted(line.vectors) == [0, 1] and len(read) == 2
    line = site_archive._image(2, item | {"vectors": list(range(5000))}, Place(b""), rows)
    assert not line.vectors and not line.problem and len(read) == 5002
    line = site_archive._image(3, item | {"vectors": [[]]}, Place(b""), rows)
    assert "no list of numbers" in line.problem and len(read) == 5003


def test_brackets_in_brackets_are_no_description_of_vectors(catalogue):
    with pytest.raises(BadInput, match="damaged"):
        site_archive._vectors(Place(b"[" * 500_000), catalogue)
