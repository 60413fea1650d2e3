"""What may be asked about, and what may be in a gallery."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from recognition import inputs
from recognition.errors import BadInput
from tests import factories


def names(source) -> list[str | None]:
    return [item.path for item in inputs.items(source)]


def test_a_file_a_folder_and_lists_of_them(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("c.png", "b/a.JPG", "b/notes.txt", "a.webp"):
        (tmp_path / name).write_bytes(factories.png(0))
    folder = [str(tmp_path / name) for name in ("a.webp", "b/a.JPG", "c.png")]
    assert names(tmp_path) == folder
    assert names(str(tmp_path / "c.png")) == [folder[2]]
    assert names([tmp_path / "c.png", [str(tmp_path)]]) == [folder[2], *folder]
    [item] = inputs.items(tmp_path / "c.png")
    assert item.load() == factories.png(0)  # the file itself, not coded again


def test_urls_are_fetched_when_their_turn_comes():
    assert names("https://127.0.0.1:9/a.jpg?x=1") == ["https://127.0.0.1:9/a.jpg?x=1"]


def test_every_page_of_a_tiff(tmp_path):
    pages = [Image.new("RGB", (20, 10), colour) for colour in ("red", "lime", "blue")]
    pages[0].save(tmp_path / "a.tiff", save_all=True, append_images=pages[1:])
    found = list(inputs.items(tmp_path / "a.tiff"))
    assert [item.path for item in found] == [str(tmp_path / "a.tiff")] * 3
    assert [item.page for item in found] == [1, 2, 3]
    colours = [inputs.to_array(item.load())[0, 0].tolist() for item in found]
    assert colours == [[0, 0, 255], [0, 255, 0], [255, 0, 0]]


@given(
    arrays.arrays(
        np.uint8,
        st.one_of(
            st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([3, 4])),
            st.tuples(st.integers(1, 9), st.integers(1, 9)),
        ),
    )
)
def test_arrays_are_bgr_as_opencv_has_them(pixels):
    back = inputs.to_array(inputs.from_array(pixels))
    expected = np.stack([pixels] * 3, axis=2) if pixels.ndim == 2 else pixels[:, :, :3]
    np.testing.assert_array_equal(back, expected)


def test_an_array_is_sent_in_the_right_colours():
    red = np.zeros((4, 4, 3), np.uint8)
    red[:, :, 2] = 255
    [item] = inputs.items(red)
    assert Image.open(io.BytesIO(item.load())).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    "source",
    [None, 5, b"bytes", {"a": 1}, np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 2), np.uint8),
     np.zeros((1, 4, 4, 3), np.uint8)],
)  # fmt: skip
def test_what_is_no_picture_says_so_when_its_turn_comes(source):
    """PaddleX writes a line into its log and gives no result."""
    [item] = inputs.items(source)
    with pytest.raises(BadInput, match="is no picture"):
        item.load()
    with pytest.raises(BadInput, match="is no picture"):
        inputs.gallery([source], ["tea"])


def test_missing_files_and_empty_folders_say_so_when_their_turn_comes(tmp_path):
    (tmp_path / "empty").mkdir()
    missing, empty, endless = inputs.items([tmp_path / "a.jpg", tmp_path / "empty", "x" * 5000])
    with pytest.raises(FileNotFoundError, match=r"a\.jpg"):
        missing.load()
    with pytest.raises(BadInput, match=r"no picture in .*empty"):
        empty.load()
    with pytest.raises(OSError, match="too long"):
        endless.load()


def test_every_page_of_a_pdf_at_twice_its_points(tmp_path):
    pages = [Image.new("RGB", (36, 24), colour) for colour in ("red", "lime")]
    pages[0].save(tmp_path / "a.PDF", save_all=True, append_images=pages[1:], resolution=72)
    found = list(inputs.items(tmp_path))
    assert [(item.path, item.page) for item in found] == [
        (str(tmp_path / "a.PDF"), 1),
        (str(tmp_path / "a.PDF"), 2),
    ]
    rendered = [inputs.to_array(item.load()) for item in found]
    assert [pixels.shape for pixels in rendered] == [(48, 72, 3)] * 2
    assert rendered[0][24, 36, 2] > 200 > 60 > rendered[0][24, 36, 1]
    assert rendered[1][24, 36, 1] > 200 > 60 > rendered[1][24, 36, 2]


def test_a_broken_pdf_is_named(tmp_path):
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.4 and no more")
    [item] = inputs.items(tmp_path / "a.pdf")
    with pytest.raises(BadInput, match=r"a\.pdf cannot be read as a PDF"):
        item.load()


def test_galleries_come_as_a_list_file_or_as_lists(tmp_path):
    (tmp_path / "a.png").write_bytes(factories.png(1))
    (tmp_path / "gallery.txt").write_text("a.png green tea\n\na.png\tcola\n", encoding="utf-8")
    from_file = inputs.gallery(tmp_path, tmp_path / "gallery.txt")
    assert [(load(), label) for load, label in from_file] == [
        (factories.png(1), "green tea"),
        (factories.png(1), "cola"),
    ]
    pixels = np.zeros((4, 4, 3), np.uint8)
    from_lists = inputs.gallery([str(tmp_path / "a.png"), pixels], ["tea", 7])
    assert [label for _, label in from_lists] == ["tea", "7"]
    assert from_lists[0][0]() == factories.png(1)


def test_galleries_that_do_not_fit_are_refused(tmp_path):
    (tmp_path / "gallery.txt").write_text("../a.png tea\nb.png\n", encoding="utf-8")
    with pytest.raises(BadInput, match="line 1.*line 2"):
        inputs.gallery(tmp_path, tmp_path / "gallery.txt")
    with pytest.raises(BadInput, match="1 pictures and 2 labels"):
        inputs.gallery(["a.png"], ["a", "b"])
    with pytest.raises(BadInput, match="folder"):
        inputs.gallery(["a.png"], tmp_path / "gallery.txt")
    with pytest.raises(BadInput, match="list of their pictures"):
        inputs.gallery(str(tmp_path), ["a"])


def test_ids_come_as_a_list_or_a_file(tmp_path):
    (tmp_path / "ids.txt").write_text("1 tea\n\n7\n", encoding="utf-8")
    assert inputs.ids(str(tmp_path / "ids.txt")) == [1, 7]
    assert inputs.ids(np.array([3, 4])) == [3, 4]
    (tmp_path / "ids.txt").write_text("1\ntea\n", encoding="utf-8")
    with pytest.raises(BadInput, match="line 2"):
        inputs.ids(tmp_path / "ids.txt")
