"""A configuration for the site, for a catalogue, and back to PaddleX."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from recognition import pipeline_file, search
from recognition.errors import BadInput, Conflict, ModelUnavailable
from recognition.models import Catalogue, Role, State, View
from recognition.services import (
    catalogues,
    index_files,
    paddlex,
    pipeline_config,
    saved_indexes,
)
from tests import factories, processes


@pytest.fixture
def starters(db, starter_models):
    """The directories of the starter models, by name."""
    from recognition.services import feature_models

    feature_models.sync()
    return {name: starter_models.get(name).directory for name in ("starter_det", "starter_rec")}


@pytest.fixture
def write(tmp_path, starters):
    """`write(rec_topk=3)` is a pipeline file with the starter models and that in it."""

    def file(**keys) -> Path:
        parts = {
            "Detection": {
                "model_name": "PP-ShiTuV2_det",
                "model_dir": str(starters["starter_det"]),
            },
            "Recognition": {
                "model_name": "PP-ShiTuV2_rec",
                "model_dir": str(starters["starter_rec"]),
            },
        }
        path = tmp_path / "PP-ShiTuV2.yaml"
        path.write_text(json.dumps({"SubModules": parts, **keys}), encoding="utf-8")
        return path

    return file


def test_a_catalogue_gets_it(write, starters):
    catalogue = catalogues.create("drinks", owner=factories.user())
    config = pipeline_file.read(write(det_threshold=0.3, rec_threshold=0.6, rec_topk=3))
    pipeline_config.apply(config, catalogue)
    catalogue.refresh_from_db()
    assert (catalogue.det_threshold, catalogue.rec_threshold, catalogue.top_k) == (0.3, 0.6, 3)
    assert catalogue.detector == "starter_det"


def test_other_weights_than_the_vectors_were_made_with_are_refused(write):
    catalogue = factories.catalogue()
    with pytest.raises(Conflict, match="stub_rec"):
        pipeline_config.apply(pipeline_file.read(write(rec_topk=3)), catalogue)
    catalogue.refresh_from_db()
    assert catalogue.top_k == 5


def tuned(starters, tmp_path: Path, *, change: bool) -> pipeline_file.ModelConfig:
    """The starter feature model as somebody else's `model_dir`, or one that is nearly that."""
    directory = tmp_path / "tuned"
    shutil.copytree(starters["starter_rec"], directory)
    (directory / "shitu.json").unlink()
    if change:
        file = directory / "inference.yml"
        file.write_text(file.read_text().replace("bilinear", "area"))
    return pipeline_file.ModelConfig("PP-ShiTuV2_rec", directory)


def test_other_weights_are_not_even_installed(starters, starter_models, tmp_path):
    catalogue = catalogues.create("drinks", owner=factories.user())
    other = tuned(starters, tmp_path, change=True)
    config = pipeline_file.PipelineConfig(detection=other, recognition=other)
    before = starter_models.names()
    with pytest.raises(Conflict, match="starter_rec"):
        pipeline_config.apply(config, catalogue)
    assert starter_models.names() == before


def test_the_files_of_an_installed_model_are_that_model_wherever_they_lie(
    starters, starter_models, tmp_path
):
    """The starter models have an identity that their files do not tell."""
    part = tuned(starters, tmp_path, change=False)
    assert pipeline_config.installed(part, "embedder") == starter_models.get("starter_rec")
    catalogue = catalogues.create("drinks", owner=factories.user())
    detection = pipeline_file.ModelConfig("PP-ShiTuV2_det", starters["starter_det"])
    config = pipeline_file.PipelineConfig(detection=detection, recognition=part, rec_topk=3)
    assert pipeline_config.apply(config, catalogue).top_k == 3


def test_new_catalogues_of_a_site_get_it(write, settings):
    path = write(det_threshold=0.4, rec_threshold=0.3, rec_topk=9, Serving={"visualize": False})
    settings.SHITU_PIPELINE_CONFIG = str(path)
    options = pipeline_config.site_options()
    assert options == {
        "detector": "starter_det", "feature_model": "starter_rec",
        "det_threshold": 0.4, "rec_threshold": 0.3, "top_k": 9,
    }  # fmt: skip
    assert not pipeline_config.site_visualize()
    made = catalogues.create("x", owner=factories.user())
    assert (made.top_k, made.detector, made.index.feature_model.name) == (
        9, "starter_det", "starter_rec",
    )  # fmt: skip
    own = catalogues.create("y", owner=factories.user(), detector="", top_k=2)
    assert (own.top_k, own.detector, own.rec_threshold) == (2, "", 0.3)


def test_its_index_is_imported_once_and_asked_by_default(
    transactional_db, write, settings, tmp_path, monkeypatch
):
    for name, value in processes.environment(settings).items():
        monkeypatch.setenv(name, value)
    user = factories.user()
    source = catalogues.create("source", owner=user)
    images = [factories.add(source, label, seed) for seed, label in enumerate(("a", "b", "b"))]
    vectors = np.eye(3, source.index.feature_model.dimension, dtype=np.float32)
    search.store(source.index, [image.pk for image in images], [View.WHOLE] * 3, vectors)
    source.images.update(state=State.DONE)
    index_files.export_directory(source, tmp_path / "drink_index")

    settings.SHITU_PIPELINE_CONFIG = str(write(index="drink_index"))
    found = paddlex.find(user, None, Role.EDITOR)
    assert found != source
    assert paddlex.contents(found).labels == {0: "a", 1: "b", 2: "b"}
    assert paddlex.find(user, None, Role.VIEWER) == found
    settings.SHITU_PIPELINE_CONFIG = str(write(index="nowhere"))
    with pytest.raises(BadInput, match="nowhere is no saved index"):
        paddlex.find(user, None, Role.VIEWER)


def test_asked_for_by_two_at_once_it_is_imported_once(transactional_db, tmp_path, monkeypatch):
    user, index = factories.user(), tmp_path / "index"
    index.mkdir()
    (index / "vector.index").write_bytes(b"1")
    (index / "id_map.yaml").write_bytes(b"2")
    commands: list[str] = []

    def manage(command: str, option: str, *rest: str) -> None:
        commands.append(command)
        processes.until(lambda: processes.somebody_waits() or len(commands) > 1)
        factories.catalogue(owner=user, name=option.removeprefix("--catalogue="))

    def ask(_: int) -> Catalogue:
        try:
            return saved_indexes.imported(user, index)
        finally:
            connection.close()

    monkeypatch.setattr(saved_indexes, "_manage", manage)
    with ThreadPoolExecutor(2) as both:
        first, second = both.map(ask, range(2))
    assert first == second
    assert commands == ["import_index"]


def test_models_that_are_not_there_are_said(db, settings, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("rec_topk: 3")
    with pytest.raises(ModelUnavailable, match="PP-ShiTuV2_det is not installed"):
        pipeline_config.options(pipeline_file.read(path))
    path.write_text("SubModules: {Detection: {model_dir: nowhere}}")
    with pytest.raises(BadInput, match="nowhere holds no model"):
        pipeline_config.options(pipeline_file.read(path))
    settings.SHITU_PIPELINE_CONFIG = str(tmp_path / "missing.yaml")
    with pytest.raises(BadInput, match="missing.yaml"):
        pipeline_config.site()


def test_a_detector_is_no_feature_model(write, starters):
    parts = {"Recognition": {"model_name": "x", "model_dir": str(starters["starter_det"])}}
    parts["Detection"] = {"model_name": "x", "model_dir": str(starters["starter_det"])}
    with pytest.raises(BadInput, match="starter_det is not an embedder"):
        pipeline_config.options(pipeline_file.read(write(SubModules=parts)))


def test_fine_tuned_weights_are_installed_under_their_hash(
    starters, tmp_path, settings, monkeypatch
):
    settings.SHITU_MODELS_DIR = tmp_path / "models"
    part = tuned(starters, tmp_path, change=False)
    model = pipeline_config.installed(part, "embedder")
    assert model.name == f"PP-ShiTuV2_rec-{model.digest[:8]}"
    assert pipeline_config.installed(part, "embedder") == model
    # The same network with other preprocessing makes other vectors, so it is another model.
    settings_file = tmp_path / "tuned/inference.yml"
    settings_file.write_text(settings_file.read_text().replace("bilinear", "area"))
    other = pipeline_config.installed(part, "embedder")
    assert other.name != model.name and other.digest != model.digest


def command(*arguments: str) -> tuple[str, str]:
    out, err = StringIO(), StringIO()
    call_command("pipeline_config", *arguments, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def test_the_command_writes_what_is_in_effect(write, tmp_path):
    factories.user("ann")
    catalogue = catalogues.create("drinks", owner=factories.user())
    path = write(det_threshold=0.3, rec_topk=3, rec_treshold=1, SomeKey=5, device="gpu:1")
    text, said = command(str(path), "--catalogue", "drinks")
    assert "rec_treshold: unknown, changes nothing; is rec_threshold meant?" in said
    assert "SomeKey: unknown" in said
    assert "SHITU_DEVICE=gpu:1" in said
    catalogue.refresh_from_db()
    assert (catalogue.det_threshold, catalogue.top_k) == (0.3, 3)

    # There and back again: the written file changes nothing and is written the same.
    (tmp_path / "written.yaml").write_text(text, encoding="utf-8")
    again, said = command(str(tmp_path / "written.yaml"), "--catalogue", "drinks")
    assert again == text
    assert "unknown" not in said
    assert command("--catalogue", "drinks")[0] == text
    _, said = command("--output", str(tmp_path / "site.yaml"))
    assert pipeline_file.read(tmp_path / "site.yaml") == pipeline_config.effective()


def test_the_command_makes_a_catalogue_that_is_not_there(write):
    boss = factories.user("boss", is_superuser=True)
    text, said = command(str(write(rec_topk=3)), "--catalogue", "new")
    made = Catalogue.objects.get()
    assert (made.name, made.owner, made.top_k, made.detector) == ("new", boss, 3, "starter_det")
    assert "made the catalogue “new”" in said
    assert command("--catalogue", "new")[0] == text
    with pytest.raises(CommandError, match="no vector.index"):
        command(str(write(index="nowhere")), "--catalogue", "other", "--user", "boss")
    assert Catalogue.objects.get() == made


def test_the_command_gives_a_new_catalogue_the_metric_of_its_index(write, tmp_path):
    """Else the file's threshold, meant for distances, would be read as one of cosines."""
    factories.user("boss", is_superuser=True)
    source = catalogues.create("source", owner=factories.user(), metric="L2", index_type="Flat")
    image = factories.add(source, "tea", 1)
    vector = np.eye(1, source.index.feature_model.dimension, dtype=np.float32)
    search.store(source.index, [image.pk], [View.WHOLE], vector)
    source.images.update(state=State.DONE)
    index_files.export_directory(source, tmp_path / "index")
    _, said = command(str(write(index="index", rec_threshold=0.9)), "--catalogue", "new")
    made = Catalogue.objects.get(name="new")
    assert "1 vectors imported" in said
    assert (made.index.metric, made.index.index_type) == ("L2", "Flat")
    assert made.rec_threshold == 0.9


def test_the_command_changes_a_catalogue_for_its_managers_only(write):
    drinks = catalogues.create("drinks", owner=factories.user())
    factories.member(drinks, Role.EDITOR, "ed")
    with pytest.raises(CommandError, match="manager"):
        command(str(write(rec_topk=3)), "--catalogue", "drinks", "--user", "ed")
    drinks.refresh_from_db()
    assert drinks.top_k == 5


def test_the_command_names_what_is_wrong(write):
    with pytest.raises(CommandError, match="rec_topk"):
        command(str(write(rec_topk="many")))
    with pytest.raises(CommandError, match="no catalogue"):
        command("--catalogue", "nothing")


def test_paddlex_loads_what_is_written(starters, tmp_path):
    """Its own loader reads the file, and its predictors load the weights it names."""
    path = tmp_path / "PP-ShiTuV2.yaml"
    path.write_text(pipeline_file.write(pipeline_config.effective()), encoding="utf-8")
    code = f"""
import json
from paddlex.inference.pipelines import load_pipeline_config
from paddlex import create_model
config = load_pipeline_config({str(path)!r})
for part in config["SubModules"].values():
    create_model(part["model_name"], model_dir=part["model_dir"], device="cpu")
print(json.dumps(config))
"""
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"PADDLE_PDX_CACHE_HOME": str(tmp_path / "cache"), "PATH": ""},
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    config = json.loads(ran.stdout.splitlines()[-1])
    assert config["pipeline_name"] == "PP-ShiTuV2"
    assert config["SubModules"]["Recognition"]["model_dir"] == str(starters["starter_rec"])
    assert (config["det_threshold"], config["rec_threshold"], config["rec_topk"]) == (0.5, 0.5, 5)


def settings_of(path: Path, **environment: str) -> tuple[str, dict]:
    """SHITU_ENGINE and its options of a process that starts with this file."""
    code = (
        "import json; from shitu_site import settings as s; "
        "print(json.dumps([s.SHITU_ENGINE, s.SHITU_ENGINE_OPTIONS]))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={
            "PATH": "",
            "DATABASE_URL": "postgres://x",
            "REDIS_URL": "redis://x",
            "SHITU_SECRET_KEY": "x" * 40,
            "SHITU_VAR_DIR": str(path.parent),
            "SHITU_PIPELINE_CONFIG": str(path),
            **environment,
        },
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    engine, options = json.loads(ran.stdout.splitlines()[-1])
    return engine, options


def test_the_file_names_the_engine_of_the_workers_and_a_variable_wins(write):
    path = write(use_hpip=True, hpi_config={"backend": "openvino"})
    assert settings_of(path) == ("hpi", {"backend": "openvino"})
    assert settings_of(path, SHITU_ENGINE="paddle") == ("paddle", {}), "options of another engine"
    assert settings_of(path, SHITU_ENGINE_OPTIONS='{"auto_config": true}') == (
        "hpi",
        {"auto_config": True},
    )


@pytest.mark.parametrize("text", ["backend=openvino", "[1]"])
def test_options_that_are_no_json_object_stop_the_start(write, text):
    with pytest.raises(AssertionError, match="SHITU_ENGINE_OPTIONS must be a JSON object"):
        settings_of(write(), SHITU_ENGINE_OPTIONS=text)
