from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from recognition.engine.engines import ENGINES
from recognition.engine.loading import load_embedder
from recognition.engine.networks import PaddleXEmbedder
from recognition.engine.trial import trial_pictures
from recognition.errors import BadInput, EngineFailed
from tests.engine.conftest import CPU


def noise(count):
    draw = np.random.default_rng(7).integers
    return [draw(0, 256, (90 + 7 * i, 130 - 5 * i, 3), np.uint8) for i in range(count)]


@pytest.fixture(scope="module")
def embedder(starter_store):
    return load_embedder(starter_store.get("starter_rec"), CPU)


def test_every_picture_gets_a_unit_vector(embedder):
    vectors = embedder.embed(noise(3))
    assert vectors.shape == (3, 512) and vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(3), abs=1e-5)


def test_a_picture_gets_the_same_vector_alone_and_in_a_batch(embedder):
    pictures = noise(9)
    together = embedder.embed(pictures)
    alone = np.concatenate([embedder.embed([picture]) for picture in pictures])
    assert (together * alone).sum(axis=1).min() > 0.99999
    assert (together @ together.T - np.eye(9)).max() < 0.9999, "all are different"


def test_no_pictures_give_no_vectors(embedder):
    assert embedder.embed([]).shape == (0, 512)


def test_colours_are_rgb(embedder):
    """A red picture is nearer to a darker red than to blue, and swapping channels is seen."""
    red, blue = np.zeros((2, 64, 64, 3), np.uint8)
    red[..., 0], blue[..., 2] = 230, 230
    picture = trial_pictures()[0]
    same, swapped = embedder.embed([picture, picture[..., ::-1]])
    assert same @ swapped < 0.95
    reference = np.load(REFERENCE)["vectors"].astype(np.float32)
    assert embedder.embed(trial_pictures())[0] @ reference[0] > 0.9999


REFERENCE = Path(__file__).with_name("starter_reference.npz")


def test_every_machine_builds_comparable_vectors(embedder):
    """A changed recipe (network, preprocessing, projection) must count `starter.RECIPE` up."""
    reference = np.load(REFERENCE)["vectors"].astype(np.float32)
    assert (embedder.embed(trial_pictures()) * reference).sum(axis=1).min() > 0.9999


@pytest.mark.parametrize("engine", [engine.name for engine in ENGINES if engine.exact])
def test_all_engines_agree(starter_store, embedder, engine):
    other = load_embedder(starter_store.get("starter_rec"), CPU, engine=engine)
    assert other.engine == engine
    pictures = [*trial_pictures(), *noise(4)]
    assert (other.embed(pictures) * embedder.embed(pictures)).sum(axis=1).min() > 0.9999


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime", "paddle_mkldnn"])
def test_threads_may_share_it(starter_store, engine):
    """PaddleX's predictor alone answers some of them wrongly."""
    shared = load_embedder(starter_store.get("starter_rec"), CPU, engine=engine)
    pictures = noise(8)
    expected = shared.embed(pictures)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda i: shared.embed([pictures[i % 8]])[0], range(40)))
    assert min(answers[i] @ expected[i % 8] for i in range(40)) > 0.9999


def test_it_leaves_numpys_printing_and_the_log_alone(embedder):
    embedder.embed(noise(1))
    assert np.get_printoptions()["threshold"] == 1000
    assert logging.getLogger("paddlex").handlers == []


def test_paddlex_still_mixes_up_the_vectors_of_a_batch(starter_store, embedder):
    """When this fails, PaddleX is mended: `_Network` may then use the public `predict`."""
    results = list(embedder._predictor.predict([p.copy() for p in trial_pictures()], batch_size=2))
    np.set_printoptions(threshold=1000, edgeitems=3)  # each result changed them
    assert [np.shape(result["feature"]) for result in results] == [(2, 512), (2, 512)]


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((60, 80), np.uint8), np.zeros((60, 80, 3)), np.zeros((60, 80, 4), np.uint8)],
    ids=["grey", "float", "with alpha"],
)
def test_what_is_no_picture_is_refused(embedder, wrong):
    with pytest.raises(BadInput, match="takes .height, width, 3. uint8, RGB"):
        embedder.embed([wrong])
    with pytest.raises(BadInput, match="empty"):
        embedder.embed([np.zeros((0, 10, 3), np.uint8)])


class Predictor:
    """Stands for a PaddleX predictor that answers every picture with the next of `vectors`."""

    def __init__(self, vectors):
        self.vectors = vectors
        self.batch_sampler = self
        self.batch_size = 1

    def __call__(self, pictures):
        return [pictures]

    def process(self, batch):
        return {"feature": self.vectors[: len(batch)]}


@pytest.mark.parametrize("bad", [np.nan, 0.0, np.inf, 0.5])
def test_a_vector_that_is_none_is_refused_with_its_picture(bad):
    vectors = np.eye(3, 4, dtype=np.float32)
    vectors[1] = (0, bad, 0, 0)
    embedder = PaddleXEmbedder(Predictor(vectors), SimpleNamespace(name="x"), ENGINES[0], CPU)
    with pytest.raises(EngineFailed, match="no usable vector for picture 1 of 3"):
        embedder.embed(noise(3))


def test_an_upstream_that_answers_with_a_list_is_understood():
    vectors = list(np.eye(3, 4, dtype=np.float32))
    embedder = PaddleXEmbedder(Predictor(vectors), SimpleNamespace(name="x"), ENGINES[0], CPU)
    assert np.array_equal(embedder.embed(noise(3)), np.eye(3, 4))


def test_the_self_test_notices_one_vector_for_all():
    same = np.tile(np.eye(1, 4, dtype=np.float32), (2, 1))
    installed = SimpleNamespace(name="x", dimension=4)
    with pytest.raises(EngineFailed, match="same vector"):
        PaddleXEmbedder(Predictor(same), installed, ENGINES[0], CPU).self_test()


def test_the_self_test_notices_mixed_up_batches():
    mixed = np.eye(2, 4, dtype=np.float32)  # alone, each picture gets the first row
    installed = SimpleNamespace(name="x", dimension=4)
    with pytest.raises(EngineFailed, match="another vector in a batch"):
        PaddleXEmbedder(Predictor(mixed), installed, ENGINES[0], CPU).self_test()
