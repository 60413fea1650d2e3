"""Annotated pictures: boxes, plates, lettering, file names."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from recognition import drawing
from recognition.drawing import (
    AnnotatedBox,
    annotate,
    font,
    font_file,
    saved_json_name,
    saved_picture_name,
    to_jpeg,
)
from recognition.errors import BadInput, SetupError

GREY = (128, 128, 128)


def picture(width: int = 400, height: int = 300) -> Image.Image:
    return Image.new("RGB", (width, height), GREY)


def changed(before: Image.Image, after: Image.Image) -> np.ndarray:
    return (np.asarray(before) != np.asarray(after)).any(axis=2)


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[k : k + 2], 16) for k in (1, 3, 5))


def ink(text: str) -> np.ndarray:
    mask = Image.new("L", (80, 80))
    drawing.ImageDraw.Draw(mask).text((5, 5), text, fill=255, font=font(48))
    return np.asarray(mask)


@pytest.mark.parametrize("glyph", list("红牛强化型茗山乌龙茶阿姨牛肉面繁體日本語緑한국Aéü€"))
def test_every_script_we_promise_has_glyphs_of_its_own(glyph):
    tofu = ink("\U0001f9ff")  # an emoji is not in the font, so it shows the empty box
    assert ink(glyph).any()
    assert not np.array_equal(ink(glyph), tofu)


def test_different_characters_look_different():
    glyphs = "红牛强化型无糖"
    assert len({ink(glyph).tobytes() for glyph in glyphs}) == len(glyphs)


def test_shared_characters_have_their_simplified_chinese_form():
    assert font(20).getname()[0].endswith("SC")


def test_the_font_is_loaded_once_per_size():
    assert font(31) is font(31)


def test_the_licence_comes_with_the_font():
    [licence] = font_file().parent.parent.glob("noto_cjk_sans_otc-*.dist-info/licenses/LICENSE")
    assert "SIL OPEN FONT LICENSE" in licence.read_text(encoding="utf-8").upper()


def test_a_missing_font_package_is_named(monkeypatch):
    monkeypatch.setattr(drawing, "FONT_PACKAGE", "no_such_font_package")
    font_file.cache_clear()
    with pytest.raises(SetupError, match="pip install"):
        font_file()
    font_file.cache_clear()


def test_a_damaged_font_package_is_named(monkeypatch):
    monkeypatch.setattr(drawing, "FONT_FILE", "gone.ttc")
    font_file.cache_clear()
    with pytest.raises(SetupError, match="gone.ttc"):
        font_file()
    font_file.cache_clear()


@pytest.mark.parametrize("kind", ["match", "ambiguous", "unknown"])
def test_a_box_has_the_colour_of_its_kind(kind):
    drawn = annotate(picture(), [AnnotatedBox(50, 100, 250, 260, "茶 0.91", kind)])
    for corner in ((50, 100), (250, 100), (50, 260), (250, 260)):
        assert drawn.getpixel(corner) == rgb(drawing.COLOURS[kind])
    assert drawn.getpixel((150, 180)) == GREY  # inside stays free


def test_the_original_is_left_alone():
    before = picture()
    pixels = np.asarray(before).copy()
    boxes = [AnnotatedBox(10, 10, 100, 100, "tea")]
    annotate(before, boxes)
    annotate(pixels, boxes)
    assert not changed(before, picture()).any()
    assert not changed(Image.fromarray(pixels), picture()).any()


def test_pixels_and_pictures_are_drawn_alike():
    boxes = [AnnotatedBox(10, 60, 100, 200, "tea 0.80")]
    from_pixels = annotate(np.asarray(picture()), boxes)
    assert not changed(from_pixels, annotate(picture(), boxes)).any()


def test_text_is_written_beside_the_box_and_nowhere_else():
    box = AnnotatedBox(50, 100, 250, 260, "红岩 强化型 0.87")
    with_text = changed(picture(), annotate(picture(), [box]))
    without = changed(picture(), annotate(picture(), [AnnotatedBox(50, 100, 250, 260, "")]))
    plate = np.argwhere(with_text & ~without)
    (top, left), (bottom, right) = plate.min(axis=0), plate.max(axis=0)
    assert bottom < 100 and left == 50 and right < 400  # on top of the box, from its left edge
    assert top >= 60


def test_no_text_means_no_plate():
    drawn = changed(picture(), annotate(picture(), [AnnotatedBox(50, 100, 250, 260, " \n ")]))
    assert not drawn[:100].any()


@pytest.mark.parametrize(
    "corners",
    [
        (0, 0, 400, 300),
        (0, 0, 30, 8),
        (380, 290, 399, 299),
        (-90, -90, 900, 900),
        (395, 0, 399, 20),
    ],
)
def test_a_plate_stays_inside_the_frame(corners):
    """The plate would be the same size anywhere: nothing of it is cut off at the edges."""
    box = AnnotatedBox(*corners, "Green Tea 500 ml 0.91", "unknown")
    drawn = np.asarray(annotate(picture(), [box]))
    free = np.asarray(annotate(picture(), [AnnotatedBox(80, 100, 90, 110, box.text, "unknown")]))
    white = (255, 255, 255)
    assert (drawn == white).all(axis=2).sum() == (free == white).all(axis=2).sum() >= 10


def test_two_plates_at_the_same_place_do_not_cover_each_other():
    boxes = [
        AnnotatedBox(50, 100, 250, 260, "Green Tea"),
        AnnotatedBox(52, 101, 251, 262, "Oolong"),
    ]
    one, two = (changed(picture(), annotate(picture(), [b])) for b in boxes)
    both = np.asarray(annotate(picture(), boxes))
    letters = (both == 255).all(axis=2).sum()
    alone = sum((np.asarray(annotate(picture(), [b])) == 255).all(axis=2).sum() for b in boxes)
    assert one.any() and two.any()
    assert letters == alone


def test_long_text_ends_in_an_ellipsis_inside_the_frame():
    long = annotate(picture(), [AnnotatedBox(50, 100, 250, 260, "很长的名字" * 40)])
    assert long.size == (400, 300)
    shortened = drawing._shortened("很长的名字" * 40, font(11), 380)
    assert shortened.endswith("…") and font(11).getlength(shortened) <= 380


def test_line_breaks_become_spaces():
    broken = annotate(picture(), [AnnotatedBox(50, 100, 250, 260, "Green\nTea\t1\x00L")])
    spaced = annotate(picture(), [AnnotatedBox(50, 100, 250, 260, "Green Tea 1 L")])
    assert not changed(broken, spaced).any()


def test_letters_grow_with_the_picture():
    def plate_height(width, height):
        drawn = annotate(picture(width, height), [AnnotatedBox(9, height - 9, 50, height, "茶")])
        return np.flatnonzero(changed(picture(width, height), drawn).any(axis=1)).size

    assert plate_height(2000, 1500) > 2 * plate_height(400, 300)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.lists(
        st.builds(
            AnnotatedBox,
            *[st.floats(-500, 800)] * 4,
            st.text(max_size=30),
            st.sampled_from(["match", "ambiguous", "unknown"]),
        ),
        max_size=5,
    ),
)
def test_any_box_and_any_text_can_be_drawn(width, height, boxes):
    assert annotate(picture(width, height), boxes).size == (width, height)


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)],
)
def test_other_arrays_are_refused(pixels):
    with pytest.raises(BadInput, match="RGB uint8"):
        annotate(pixels, [])


def test_corners_must_be_numbers():
    with pytest.raises(BadInput, match="finite"):
        annotate(picture(), [AnnotatedBox(0, float("nan"), 1, 1, "")])


def test_a_kind_nobody_knows_is_refused():
    with pytest.raises(BadInput, match="maybe"):
        annotate(picture(), [AnnotatedBox(0, 0, 1, 1, "", "maybe")])


def test_the_jpeg_can_be_read_back_and_quality_matters():
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 255, (90, 120, 3), np.uint8))
    read = Image.open(io.BytesIO(to_jpeg(noise)))
    assert (read.format, read.size, read.mode) == ("JPEG", (120, 90), "RGB")
    assert len(to_jpeg(noise, quality=30)) < len(to_jpeg(noise, quality=95))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("photos/drink 1.jpg", "drink 1_res.jpg"),
        (Path("a/b.tar.PNG"), "b.tar_res.PNG"),
        ("红牛.webp", "红牛_res.webp"),
        ("clip.bin", "clip_res.png"),
        ("noending", "noending_res.png"),
    ],
)
def test_the_picture_is_named_as_paddlex_names_it(path, name):
    assert saved_picture_name(path) == name


def test_the_result_file_has_the_stem_of_the_input():
    assert saved_json_name("photos/drink 1.jpg") == "drink 1.json"
