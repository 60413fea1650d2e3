"""The demo's products and how a camera sees them."""

import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from recognition.demo import artwork, scenery
from recognition.demo.packs import View, sprite
from recognition.demo.products import PACKS


def test_labels_and_keys_are_unique():
    assert len({p.label for p in PACKS}) == len({p.key for p in PACKS}) == len(PACKS) >= 24
    assert all(re.fullmatch(r"[a-z-]+", p.key) for p in PACKS)


def test_the_products_are_a_fair_mix():
    """Many shapes, families that share a brand, Chinese labels and labels with spaces."""
    assert len({p.shape for p in PACKS}) >= 10
    families = Counter(p.brand for p in PACKS)
    assert sum(size >= 2 for size in families.values()) >= 6
    assert sum(bool(re.search(r"[\u4e00-\u9fff]", p.label)) for p in PACKS) >= 4
    assert sum(" " in p.label for p in PACKS) >= 20


@pytest.mark.parametrize("pack", PACKS, ids=lambda p: p.key)
def test_a_pack_is_cut_out_cleanly(pack):
    shown = sprite(pack, View())
    alpha = np.asarray(shown.getchannel("A"))
    assert shown.mode == "RGBA" and shown.height > 400
    assert (alpha > 250).mean() > 0.5
    assert (alpha > 100).any(axis=0)[[0, -1]].all() and (alpha > 100).any(axis=1)[[0, -1]].all()


def test_no_two_designs_are_alike():
    fronts = [np.asarray(artwork.front(p, 60, 90), dtype=float) for p in PACKS]
    for i, one in enumerate(fronts):
        for other in fronts[:i]:
            assert np.abs(one - other).mean() > 12


@pytest.mark.parametrize(
    "key", ["lumi-whole-milk", "fizzo-orange", "orchard-honey", "grano-choco-rings"]
)
def test_turning_a_pack_shows_another_side_of_it(key):
    [pack] = [p for p in PACKS if p.key == key]
    left, right = (sprite(pack, View(yaw)).resize((80, 120)).convert("RGB") for yaw in (-0.4, 0.2))
    assert np.abs(np.asarray(left, float) - np.asarray(right, float)).mean() > 2


def test_a_sprite_may_be_changed_without_harm():
    sprite(PACKS[0], View()).paste((0, 0, 0, 0), (0, 0, 999, 999))
    assert np.asarray(sprite(PACKS[0], View()).getchannel("A")).max() == 255


@pytest.mark.parametrize("turn", [-15, 0, 15])
@pytest.mark.parametrize("pack", PACKS[::5], ids=lambda p: p.key)
def test_the_box_is_where_the_pixels_are(pack, turn):
    """Without a shadow, what differs from the empty frame is the pack and nothing else."""
    shown = scenery.posed(sprite(pack, View(0.2)), 300, turn, (0.08, -0.06))
    empty = Image.new("RGB", (640, 640), (255, 0, 255))
    frame = empty.copy()
    box = scenery.put(frame, shown, 40, 30, shadow=0.0, side=1.0)
    ys, xs = np.nonzero((np.asarray(frame) != np.asarray(empty)).any(axis=2))
    seen = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    assert np.abs(np.subtract(box, seen)).max() <= 2


def test_posing_turns_and_scales():
    upright = scenery.posed(sprite(PACKS[3], View()), 300, 0, (0, 0))
    tilted = scenery.posed(sprite(PACKS[3], View()), 300, 15, (0, 0))
    assert abs(upright.height - 300) <= 2
    assert tilted.width > upright.width


@pytest.mark.parametrize("ground", [scenery.studio, *scenery.SURFACES], ids=lambda g: g.__name__)
def test_every_ground_fills_the_frame_and_follows_its_seed(ground):
    one, two, other = (
        np.asarray(ground((200, 150), np.random.default_rng(seed))) for seed in (1, 1, 2)
    )
    assert one.shape == (150, 200, 3) and one.dtype == np.uint8
    assert np.array_equal(one, two) and not np.array_equal(one, other)


@pytest.mark.parametrize("cover", [scenery.sticker, scenery.glare, scenery.foreground])
def test_covering_is_light(cover):
    frame = Image.new("RGB", (600, 600), (120, 120, 120))
    before = np.asarray(frame).astype(int)
    cover(frame, (200, 100, 380, 500), np.random.default_rng(2))
    changed = (np.abs(np.asarray(frame).astype(int) - before).max(axis=2) > 60)[100:500, 200:380]
    assert 0 < changed.mean() < 0.2
