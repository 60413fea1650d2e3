"""A device whose memory does not suffice: batches shrink, and only what can never fit fails."""

from __future__ import annotations

import numpy as np
import pytest

from recognition.engine.runtime import Runtime, is_out_of_memory
from recognition.engine.stub import StubDetector, StubEmbedder, StubStore
from recognition.errors import EngineFailed
from recognition.models import RecognitionQuery, State
from recognition.services import answering, indexing, queries
from tests import factories

WORDS = [
    "ResourceExhaustedError: Out of memory error on GPU 0. Cannot allocate 2.1GB memory",
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : BFCArena::AllocateRawInternal Available memory",
    "[ONNXRuntimeError] : 1 : FAIL : Failed to allocate memory for requested buffer of size 12",
    "CUDA error(2), out of memory. cudaErrorMemoryAllocation",
    "CUDNN_STATUS_ALLOC_FAILED",
    "[GPU] CL_OUT_OF_RESOURCES",
    "std::bad_alloc",
    "OpenCV(4.10.0) error: (-4:Insufficient memory) Failed to allocate 800 bytes",
]


def pictures(count: int, size: int = 8) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (size, size, 3), dtype=np.uint8) for _ in range(count)]


class Small(StubEmbedder):
    """Has memory for so many pixels at a time."""

    def __init__(self, pixels: int) -> None:
        self.pixels, self.sizes = pixels, []

    def embed(self, pictures):
        self.sizes.append(len(pictures))
        if sum(picture.shape[0] * picture.shape[1] for picture in pictures) > self.pixels:
            raise RuntimeError("ResourceExhaustedError: Out of memory error on GPU 0.")
        return super().embed(pictures)


def runtime_with(network) -> Runtime:
    return Runtime(
        StubStore(),
        load_embedder=lambda *_, **__: network,
        load_detector=lambda *_, **__: network,
    )


@pytest.mark.parametrize("words", WORDS)
def test_the_words_of_every_engine_are_known(words):
    assert is_out_of_memory(RuntimeError(words))


def test_other_errors_are_not_taken_for_it():
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shape mismatch"))


def test_the_batch_is_halved_until_it_fits_and_stays_so_for_now():
    network = Small(3 * 64)
    runtime = runtime_with(network)
    asked = pictures(8)
    vectors = runtime.embed("stub_rec", asked, batch_size=8)
    assert network.sizes == [8, 4, 2, 2, 2, 2]
    assert np.array_equal(vectors, StubEmbedder().embed(asked))
    runtime.embed("stub_rec", asked[:4], batch_size=8)
    assert network.sizes[6:] == [2, 2]


def test_a_batch_grows_back_when_the_memory_is_free_again():
    network = Small(4 * 64)
    runtime = runtime_with(network)
    runtime.embed("stub_rec", pictures(8), batch_size=8)
    assert network.sizes == [8, 4, 4]
    network.pixels = 8 * 64  # somebody else is gone
    for _ in range(8):
        runtime.embed("stub_rec", pictures(8), batch_size=8)
    network.sizes.clear()
    runtime.embed("stub_rec", pictures(16), batch_size=8)
    assert network.sizes == [8, 8]


def test_a_batch_that_does_not_fit_is_tried_less_and_less():
    network = Small(4 * 64)
    runtime = runtime_with(network)
    for _ in range(200):
        runtime.embed("stub_rec", pictures(8), batch_size=8)
    attempts = [at for at, size in enumerate(network.sizes) if size == 8]
    waited = np.diff(attempts).tolist()
    assert len(attempts) < 7
    assert all(later > 1.9 * earlier for earlier, later in zip(waited, waited[1:], strict=False))


def test_a_picture_that_never_fits_fails_with_its_size_and_the_others_do_not():
    runtime = runtime_with(Small(64))
    with pytest.raises(EngineFailed, match="memory of cpu .* stub_rec on a picture of 9x9"):
        runtime.embed("stub_rec", pictures(1, 9))
    assert runtime.embed("stub_rec", pictures(3)).shape == (3, 64)


def test_what_is_no_lack_of_memory_is_not_tried_again():
    class Broken(StubEmbedder):
        calls = 0

        def embed(self, pictures):
            self.calls += 1
            raise RuntimeError("shape mismatch")

    network = Broken()
    with pytest.raises(RuntimeError, match="shape mismatch"):
        runtime_with(network).embed("stub_rec", pictures(4))
    assert network.calls == 1


def test_a_detector_is_halved_too():
    class Small(StubDetector):
        def detect(self, pictures, *, threshold):
            if len(pictures) > 2:
                raise MemoryError
            return super().detect(pictures, threshold=threshold)

    asked = pictures(5)
    found = runtime_with(Small()).detect("stub_det", asked, threshold=0)
    assert found == StubDetector().detect(asked, threshold=0)


@pytest.fixture
def small_device(monkeypatch):
    """Room for four of the usual test pictures (64 x 48) at a time."""
    runtime = runtime_with(Small(4 * 64 * 48))
    for module in (answering, indexing):
        monkeypatch.setattr(module, "get_runtime", lambda: runtime)


@pytest.mark.django_db
def test_only_the_image_that_is_too_large_fails(catalogue, small_device):
    from recognition.services import gallery_adding

    for seed in range(6):
        factories.add(catalogue, "tea", seed)
    large = gallery_adding.add_image(
        catalogue, "tea", factories.picture(9, (640, 480)), by=catalogue.owner
    ).image
    indexing.embed_waiting(catalogue.pk)
    states = dict(catalogue.images.values_list("pk", "state"))
    assert states.pop(large.pk) == State.FAILED
    assert set(states.values()) == {State.DONE}
    large.refresh_from_db()
    assert "640x480" in large.error


@pytest.mark.django_db
def test_only_the_question_that_is_too_large_fails(catalogue, small_device):
    fine = [queries.submit(catalogue, factories.picture(n), by=None) for n in range(3)]
    large = queries.submit(catalogue, factories.picture(9, (640, 480)), by=None)
    while answering.answer_waiting():
        pass
    states = {one.pk: one.state for one in RecognitionQuery.objects.all()}
    assert states.pop(large.pk) == State.FAILED
    assert [states[one.pk] for one in fine] == [State.DONE] * 3
