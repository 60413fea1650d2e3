"""Search spaces full of generated vectors, and thresholds low enough to index them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from bench import spaces
from bench.vectors import Vectors, clustered
from recognition.models import IndexType, Metric, VectorIndex
from recognition.search import physical, planner
from recognition.services import indexes
from recognition.services.indexes import effort


@dataclass
class Filled:
    """A space and what was put into it; row i of `vectors` is image `ids[i]`."""

    space: VectorIndex
    ids: np.ndarray
    products: np.ndarray
    vectors: Vectors
    questions: Vectors

    def nearest(self, question: Vectors, k: int, keep: np.ndarray | None = None) -> list[int]:
        """The k nearest image ids by plain arithmetic, among rows where `keep` holds."""
        scores = self.vectors @ question
        if keep is not None:
            scores = np.where(keep, scores, -2)
        order = np.argsort(-scores, kind="stable")[:k]
        return [int(self.ids[row]) for row in order if scores[row] > -2]

    def nearest_products(
        self, question: Vectors, k: int, keep: np.ndarray | None = None
    ) -> list[int]:
        """The product numbers of the k nearest products."""
        scores = self.vectors @ question
        if keep is not None:
            scores = np.where(keep, scores, -2)
        order = [row for row in np.argsort(-scores, kind="stable") if scores[row] > -2]
        return list(dict.fromkeys(int(self.products[row]) for row in order))[:k]


def _ask_the_same(patch: pytest.MonkeyPatch) -> None:
    """Samples of recall are drawn anew each time; here they are the same in every run."""
    real = np.random.default_rng
    patch.setattr(np.random, "default_rng", lambda seed=0: real(seed))


@pytest.fixture
def low_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A space is indexed from 600 vectors on, and left to the index from 300 passing ones on."""
    _ask_the_same(monkeypatch)
    monkeypatch.setattr(planner, "BUILD_FROM", 600)
    monkeypatch.setattr(planner, "DROP_BELOW", 300)
    monkeypatch.setattr(planner, "EXACT_PASSING", 300)
    monkeypatch.setattr(planner, "LOOK_FROM", 600)
    monkeypatch.setattr(effort, "RECALL_QUESTIONS", 10)


def _fill(
    count: int = 400,
    *,
    dimension: int = 32,
    views: int = 10,
    questions: int = 20,
    seed: int = 0,
    index_type: IndexType = IndexType.HNSW32,
    metric: Metric = Metric.IP,
) -> Filled:
    data = clustered(count, questions, dimension=dimension, views=views, seed=seed)
    space = spaces.make_space(dimension, index_type=index_type, metric=metric)
    ids = spaces.fill(space, data.vectors, data.products)
    return Filled(space, ids, data.products, data.vectors, data.questions)


@pytest.fixture
def filled() -> Callable[..., Filled]:
    """`filled(count, ...)` makes a catalogue with one search space and that many pictures."""
    return _fill


@pytest.fixture
def indexed(low_thresholds) -> Callable[..., Filled]:
    """As `filled`, with an index in use. Needs `django_db(transaction=True)`."""

    def make(count: int = 700, **options) -> Filled:
        made = _fill(count, **options)
        # A hurried graph is good enough at this size.
        VectorIndex.objects.filter(pk=made.space.pk).update(ef_construction=64)
        assert indexes.tend(made.space.pk) is indexes.Tended.BUILT
        made.space.refresh_from_db()
        return made

    return make


@pytest.fixture(scope="module")
def shelves(django_db_setup, django_db_blocker) -> Iterator[dict[IndexType, Filled]]:
    """An HNSW and an IVF space of 1,000 products with 4 pictures each, built once for a file.

    They are committed; what a test changes in them is rolled back with it.
    """
    with django_db_blocker.unblock(), pytest.MonkeyPatch.context() as patch:
        _ask_the_same(patch)
        patch.setattr(planner, "BUILD_FROM", 600)
        patch.setattr(planner, "LOOK_FROM", 600)
        patch.setattr(effort, "RECALL_QUESTIONS", 10)
        made = {}
        for index_type in (IndexType.HNSW32, IndexType.IVF):
            shelf = _fill(4000, views=4, questions=60, index_type=index_type)
            VectorIndex.objects.filter(pk=shelf.space.pk).update(ef_construction=64, lists=50)
            assert indexes.tend(shelf.space.pk) is indexes.Tended.BUILT
            made[index_type] = shelf
    yield made
    with django_db_blocker.unblock():
        for shelf in made.values():
            for index in physical.existing(shelf.space.pk):
                physical.drop(index.name)
            shelf.space.catalogue.delete()


@pytest.fixture
def shelf(shelves, low_thresholds, db) -> Filled:
    """The HNSW one, ready to be asked."""
    found = shelves[IndexType.HNSW32]
    found.space = VectorIndex.objects.select_related("catalogue", "feature_model").get(
        pk=found.space.pk
    )
    return found


@pytest.fixture
def ivf_shelf(shelves, low_thresholds, db) -> Filled:
    """The IVF one, likewise."""
    found = shelves[IndexType.IVF]
    found.space = VectorIndex.objects.select_related("catalogue", "feature_model").get(
        pk=found.space.pk
    )
    return found


@pytest.fixture(autouse=True)
def no_index_outlives_its_test(request: pytest.FixtureRequest):
    """Rows go with the test, indexes have to be dropped."""
    yield
    marker = request.node.get_closest_marker("django_db")
    if marker and marker.kwargs.get("transaction"):
        for index in physical.existing():
            physical.drop(index.name)
