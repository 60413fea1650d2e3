"""demo: from pictures to figures."""

from __future__ import annotations

import json
from contextlib import nullcontext

import pytest

from recognition.demo import DemoPicture, DemoSet
from recognition.evaluation import LabelledBox
from recognition.management.commands import demo
from recognition.services import showcase
from tests import factories

pytestmark = pytest.mark.usefixtures("own_worker", "boss")


@pytest.fixture
def small(shop, settings, monkeypatch) -> DemoSet:
    """A demo of three pictures, on a site that is set up."""
    settings.SHITU_FEATURE_MODEL, settings.SHITU_DETECTOR = "stub_rec", ""
    factories.feature_model()
    labels = ((1, "tea"), (2, "tea"), (3, "green coffee"))
    whole = (0.0, 0.0, 64.0, 48.0)
    shown = [DemoPicture(shop / f"{n}.png", (LabelledBox(label, whole),)) for n, label in labels]
    found = DemoSet(
        directory=shop,
        gallery_list=shop / "gallery.txt",
        gallery=tuple((shop / f"{n}.png", label) for n, label in labels),
        singles=tuple(shown[:2]),
        scenes=tuple(shown[2:]),
    )
    monkeypatch.setattr(showcase, "pictures", lambda: found)
    monkeypatch.setattr(demo, "worker_running", lambda stdout: nullcontext())
    monkeypatch.setattr(demo.setup, "set_up", lambda say: None)
    return found


def test_it_recognises_its_pictures_and_says_how_well_and_by_what(run, small, tmp_path):
    code, said, err = run("demo", "--output", tmp_path)
    assert code == 0, err
    for line in ("1.png", "3.png", "tea -> tea (1.00)", "green coffee -> green coffee (1.00)"):
        assert line in said
    for figure in ("ms in detect", "ms in search", "pictures per second", "answered with"):
        assert figure in said
    saved = json.loads((tmp_path / "1.json").read_text())
    assert saved["res"]["boxes"][0]["labels"][0] == "tea"
    assert {path.name for path in tmp_path.iterdir()} >= {"1_res.png", "2_res.png", "3_res.png"}
