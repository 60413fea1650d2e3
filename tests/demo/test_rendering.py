"""Rendering of the demo pictures: what is written, that it repeats, and that the truth is true."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recognition.demo import load_demo, render_demo, rendering
from recognition.demo.products import PACKS
from recognition.errors import SetupError


@pytest.fixture
def few(monkeypatch):
    """A small set where only the rules about files are looked at."""
    monkeypatch.setattr(rendering, "PACKS", PACKS[::8])
    monkeypatch.setattr(rendering, "VIEWS", 2)
    monkeypatch.setattr(rendering, "TESTS", 1)
    monkeypatch.setattr(rendering, "SCENES", 1)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rendering, "PACKS", PACKS[::4])
        patch.setattr(rendering, "SCENES", 5)
        return render_demo(tmp_path_factory.mktemp("demo") / "set")


def digests(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_it_writes_gallery_test_pictures_scenes_and_truth(demo):
    assert len(demo.gallery) == 6 * rendering.VIEWS
    assert len(demo.singles) == 6 * rendering.TESTS
    assert len(demo.scenes) == 5
    assert {path.name for path in demo.directory.iterdir()} == {
        "gallery", "test", "scenes", "gallery.txt", "truth.json", "demo.json"
    }  # fmt: skip
    pictures = [path for path, _ in demo.gallery] + [p.path for p in demo.singles + demo.scenes]
    for path in pictures:
        with Image.open(path) as picture:
            assert (picture.format, picture.mode) == ("JPEG", "RGB")
            assert 640 <= max(picture.size) <= 960


def test_the_gallery_list_has_paddlex_form(demo):
    """`path label`, the path relative and without a space; the label may hold spaces."""
    for line in demo.gallery_list.read_text(encoding="utf-8").splitlines():
        path, label = line.split(" ", 1)
        assert (demo.directory / path).is_file()
        assert label == label.strip() and label in demo.labels
    assert any(" " in label for label in demo.labels)


def test_the_truth_is_valid_json_with_boxes_inside_the_frames(demo):
    truth = json.loads((demo.directory / "truth.json").read_text(encoding="utf-8"))
    for name, entries in truth.items():
        with Image.open(demo.directory / name) as picture:
            width, height = picture.size
        for entry in entries:
            x1, y1, x2, y2 = entry["box"]
            assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
            assert entry["label"] in demo.labels


def test_singles_hold_one_product_and_scenes_two_to_six_different_ones(demo):
    assert all(len(picture.truth) == 1 for picture in demo.singles)
    for picture in demo.scenes:
        labels = [region.label for region in picture.truth]
        assert 2 <= len(labels) <= 6
        assert len(set(labels)) == len(labels)


def test_products_in_scenes_are_a_third_of_the_frame_high_and_hardly_overlap(demo):
    for picture in demo.scenes:
        boxes = [region.box for region in picture.truth]
        for x1, y1, x2, y2 in boxes:
            assert y2 - y1 >= 720 / 3
            covered = sum(
                max(0, min(x2, b[2]) - max(x1, b[0])) * max(0, min(y2, b[3]) - max(y1, b[1]))
                for b in boxes
                if b != (x1, y1, x2, y2)
            )
            assert covered <= 0.15 * (x2 - x1) * (y2 - y1)


def test_no_two_pictures_are_alike(demo):
    jpegs = {name: d for name, d in digests(demo.directory).items() if name.endswith(".jpg")}
    assert len(set(jpegs.values())) == len(jpegs)
    gallery = {name: _small(demo.directory / name) for name in jpegs if "gallery" in name}
    for picture in demo.singles:
        asked = _small(picture.path)
        assert min(np.abs(asked - seen).mean() for seen in gallery.values()) > 8


def _small(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.resize((32, 32)), dtype=np.float32)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(few, tmp_path):
    one = digests(render_demo(tmp_path / "one", seed=3).directory)
    two = digests(render_demo(tmp_path / "two", seed=3).directory)
    other = digests(render_demo(tmp_path / "other", seed=4).directory)
    assert one == two
    assert not set(one.values()) & {d for n, d in other.items() if n != "gallery.txt"}


def test_a_finished_set_is_left_as_it_is(demo, monkeypatch):
    monkeypatch.setattr(rendering, "_render", lambda *_: pytest.fail("rendered again"))
    assert render_demo(demo.directory) == demo == load_demo(demo.directory)


def test_a_set_of_another_seed_or_version_is_replaced(few, tmp_path, monkeypatch):
    directory = tmp_path / "set"
    before = digests(render_demo(directory, seed=3).directory)
    assert digests(render_demo(directory, seed=4).directory) != before
    monkeypatch.setattr(rendering, "VERSION", rendering.VERSION + 1)
    calls = []
    render = rendering._render
    monkeypatch.setattr(rendering, "_render", lambda *args: (calls.append(1), render(*args)))
    render_demo(directory, seed=4)
    assert calls == [1]


def test_an_interrupted_rendering_leaves_nothing_behind(few, tmp_path, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(rendering, "scene", stopped)
    with pytest.raises(KeyboardInterrupt):
        render_demo(tmp_path / "set")
    assert list(tmp_path.iterdir()) == []


def test_files_of_somebody_else_are_never_replaced(tmp_path):
    (tmp_path / "holiday.txt").write_text("mine")
    with pytest.raises(SetupError, match="other files"):
        render_demo(tmp_path)
    assert (tmp_path / "holiday.txt").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match="cannot be written"):
        render_demo(tmp_path / "file" / "set")


def test_loading_what_is_not_there_says_so(tmp_path):
    with pytest.raises(SetupError, match="no finished demo"):
        load_demo(tmp_path / "nothing")


def test_every_product_stands_in_some_scene():
    casts = rendering._casts(rendering._rng(7, "casts"))
    assert len(casts) == rendering.SCENES
    assert {len(cast) for cast in casts} == {2, 3, 4, 5, 6}
    assert {pack for cast in casts for pack in cast} == set(PACKS)
