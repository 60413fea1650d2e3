"""The whole loop with real networks, real commands and a real worker: export the training set, add
the trained network, embed with it, compare, switch, drop.

Training itself needs GPUs and hours; its result is stood in for by the starter network with its
last layer spoilt, which must show in the comparison.
"""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from django.core.management import call_command

from recognition import images
from recognition.engine.store import ModelStore
from recognition.models import FeatureModel, VectorIndex
from recognition.services import feature_models, gallery_adding, queries, showcase


def spoil(parameters: Path, noise: float) -> None:
    """Add noise to the largest matrix of a Paddle parameter file (its 1280 x 512 projection).

    The file is, for each tensor: 4 bytes version, 8 bytes of zero, 4 bytes version, 4 bytes length
    of a description that ends with the shape, the description, the numbers.
    """
    data = bytearray(parameters.read_bytes())
    at, spoilt = 0, 0
    while at < len(data):
        (length,) = struct.unpack_from("<i", data, at + 16)
        description = data[at + 20 : at + 20 + length]
        shape = _shape(bytes(description))
        start, count = at + 20 + length, int(np.prod(shape)) if shape else 1
        if shape == [1280, 512]:
            matrix = np.frombuffer(data, np.float32, count, start)
            random = np.random.default_rng(0)
            changed = matrix + noise * matrix.std() * random.standard_normal(count, np.float32)
            data[start : start + 4 * count] = changed.astype("<f4").tobytes()
            spoilt += 1
        at = start + 4 * count
    assert spoilt == 1
    parameters.write_bytes(data)


def _shape(description: bytes) -> list[int]:
    """The dimensions in a TensorDesc: field 1 is the type, every field 2 a dimension (varint)."""
    assert description[:2] == b"\x08\x05", "not float32"
    at, shape = 2, []
    while at < len(description):
        assert description[at] == 0x10
        value, shift, at = 0, 0, at + 1
        while True:
            value |= (description[at] & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if not description[at - 1] & 0x80:
                break
        shape.append(value)
    return shape


@pytest.fixture
def models(settings, starter_models, tmp_path, monkeypatch) -> ModelStore:
    """A models directory of this test's own, with the starter models."""
    root = tmp_path / "models"
    root.mkdir()
    for name in ("starter_det", "starter_rec"):
        shutil.copytree(starter_models.root / name, root / name)
    settings.SHITU_MODELS_DIR = root
    monkeypatch.setenv("SHITU_MODELS_DIR", str(root))
    from recognition.services.runtime import get_runtime

    get_runtime.cache_clear()
    yield ModelStore(root)
    get_runtime.cache_clear()


def test_the_loop(models, worker, starter_catalogue, tmp_path, capsys):
    demo = showcase.pictures()
    catalogue = starter_catalogue()
    worker()
    gallery_adding.add_images(
        catalogue,
        [
            gallery_adding.NewImage(label, images.check(path.read_bytes()))
            for path, label in demo.gallery
        ],
        by=None,
    )
    from tests.test_main_job import wait_until_embedded

    wait_until_embedded(catalogue)
    of = {"catalogue": catalogue.name, "user": catalogue.owner.username}
    call_command("export_training_set", **of, output=str(tmp_path / "set"), train=0.6)

    trained = tmp_path / "best_model" / "inference"
    trained.mkdir(parents=True)
    for file in ("inference.yml", "inference.json", "inference.pdiparams"):
        shutil.copy(models.root / "starter_rec" / file, trained / file)
    spoil(trained / "inference.pdiparams", noise=4.0)
    call_command("models", "add", "trained_rec", "--role", "embedder", "--dir", str(trained))
    assert FeatureModel.objects.filter(installed=True).count() == 2

    call_command("reembed", **of, feature_model="trained_rec")
    assert f"{catalogue.images.count()} of {catalogue.images.count()}" in capsys.readouterr().out
    call_command("compare_models", **of, training_set=str(tmp_path / "set"))
    told = capsys.readouterr().out
    print(told)
    figures = {
        line.split()[0]: float(line.split("Recall@1 ")[1].split("%")[0])
        for line in told.splitlines()
        if "Recall@1" in line
    }
    assert figures.keys() == {"starter_rec", "trained_rec"}
    assert figures["trained_rec"] < figures["starter_rec"]

    call_command("reembed", **of, feature_model="trained_rec", switch=True, drop=True)
    [space] = VectorIndex.objects.filter(catalogue=catalogue).select_related("feature_model")
    assert space.feature_model.name == "trained_rec"
    catalogue.refresh_from_db()
    picture = images.check(demo.gallery[0][0].read_bytes())
    query = queries.submit(
        catalogue, picture, by=None, options=queries.Options(boxes=[], rec_threshold=-1.0)
    )
    queries.require_answer(query)
    query.refresh_from_db()
    assert query.answered_with["feature_model"]["name"] == "trained_rec"
    assert query.detections.get().matches.get(rank=0).label == demo.gallery[0][1]
    assert feature_models.installed("starter_rec"), "the old network stays installed"
