"""The int8 twin of a model: near the float one, and never mistaken for it."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from PIL import Image

from recognition.engine import loading
from recognition.engine import store as store_module
from recognition.engine.installed import INT8
from recognition.engine.runtime import Runtime
from recognition.engine.store import ModelStore
from recognition.engine.trial import trial_pictures
from recognition.errors import BadInput, Conflict, ModelUnavailable, SetupError
from recognition.services import pipeline_config
from tests.engine.conftest import CPU

needs_nncf = pytest.mark.skipif(
    importlib.util.find_spec("nncf") is None, reason="NNCF (the extra int8) is not installed"
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Files of some coloured shapes."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(5)
    paths = []
    for number in range(24):
        pixels = np.full((160, 200, 3), random.integers(0, 256, 3), np.uint8)
        for _ in range(6):
            top, left = random.integers(0, 120, 2)
            pixels[top : top + 60, left : left + 60] = random.integers(0, 256, 3)
        paths.append(folder / f"{number}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


@pytest.fixture(scope="module")
def own_store(starter_store, tmp_path_factory):
    """A store with the starter models, to be written to."""
    store = ModelStore(tmp_path_factory.mktemp("models"))
    for name in ("starter_det", "starter_rec"):
        model = starter_store.get(name)
        (store.root / name).symlink_to(model.directory)
    return store


@pytest.fixture(scope="module")
def twin(own_store, pictures):
    return own_store.quantise("starter_rec", pictures)


@needs_nncf
def test_it_is_a_model_of_its_own(own_store, twin, pictures):
    starter = own_store.get("starter_rec")
    assert (twin.name, twin.precision, twin.dimension) == ("starter_rec-int8", INT8, 512)
    assert twin.digest != starter.digest
    assert twin.paddlex_name == starter.paddlex_name
    assert twin.origin["of"] == starter.digest
    twin.verify()
    with pytest.raises(BadInput, match="no float network"):
        own_store.quantise(twin.name, pictures)


@needs_nncf
def test_its_vectors_are_near_those_of_the_float_one(own_store, twin, pictures):
    import cv2

    seen = [cv2.imread(str(path))[:, :, ::-1].copy() for path in pictures]
    ours, theirs = (
        loading.load_embedder(model, CPU) for model in (twin, own_store.get("starter_rec"))
    )
    assert ours.engine == "openvino"
    cosine = (ours.embed(seen) * theirs.embed(seen)).sum(axis=1)
    assert cosine.min() > 0.98 and cosine.max() < 1 - 1e-5, "near, and yet int8"


@needs_nncf
def test_a_worker_refuses_the_one_for_the_other(own_store, twin):
    runtime = Runtime(own_store, CPU, threads=1)
    with pytest.raises(ModelUnavailable, match="other weights"):
        runtime.embed(
            twin.name,
            trial_pictures(),
            expected_digest=own_store.get("starter_rec").digest,
        )
    runtime.embed(twin.name, trial_pictures(), expected_digest=twin.digest)
    assert [one.precision for one in runtime.describe()] == [INT8]


@needs_nncf
def test_a_twin_made_otherwise_does_not_take_its_place(own_store, twin, pictures):
    with pytest.raises(Conflict, match="installed with other weights"):
        own_store.quantise("starter_rec", pictures[:16])
    assert own_store.get(twin.name).digest == twin.digest


@needs_nncf
def test_paddlex_is_told_the_float_one(own_store, twin, settings):
    settings.SHITU_BATCH_SIZE = 16
    part = pipeline_config._part(own_store, twin.name)
    assert part.model_name == "PP-ShiTuV2_rec"
    assert part.model_dir == own_store.get("starter_rec").directory.resolve()


def test_too_few_pictures_are_refused(own_store, pictures):
    with pytest.raises(BadInput, match="15 pictures do not tell"):
        own_store.quantise("starter_det", pictures[:15])


def test_without_nncf_it_says_what_to_install(own_store, pictures, monkeypatch):
    monkeypatch.setattr(store_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SetupError, match="pip install nncf"):
        own_store.quantise("starter_det", pictures)


def test_a_twin_that_is_missing_says_how_it_is_made(own_store):
    with pytest.raises(ModelUnavailable, match="models quantise starter_other`"):
        own_store.get("starter_other-int8")
