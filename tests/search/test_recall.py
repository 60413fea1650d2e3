"""An index knows how much it finds, and looks harder when that is too little."""

from __future__ import annotations

import numpy as np
import pytest

from recognition import search
from recognition.models import IndexType, RecallSample, VectorIndex
from recognition.search import recall
from recognition.services import indexes
from recognition.services.indexes import effort

pytestmark = pytest.mark.django_db


def test_a_fresh_index_is_measured(shelf):
    [sample] = RecallSample.objects.filter(space=shelf.space)
    assert (sample.k, sample.questions, sample.vectors) == (10, 10, 4000)
    assert 0.9 <= sample.recall <= 1
    assert sample.indexed_ms > 0
    assert sample.exact_ms > 0


@pytest.mark.parametrize(
    ("index_type", "field"), [(IndexType.HNSW32, "ef_search"), (IndexType.IVF, "probes")]
)
def test_too_little_recall_makes_it_look_harder(shelf, ivf_shelf, index_type, field, monkeypatch):
    made = shelf if index_type is IndexType.HNSW32 else ivf_shelf
    VectorIndex.objects.filter(pk=made.space.pk).update(**{field: 1})
    monkeypatch.setattr(effort, "RECALL_QUESTIONS", 40)
    monkeypatch.setattr(recall, "_BLUR", 3.0)  # questions far from everything are hard
    sample = indexes.measure_recall(made.space.pk)
    made.space.refresh_from_db()
    assert sample.recall < made.space.recall_target
    assert sample.effort == 1
    assert sample.raised_to == getattr(made.space, field) > 1
    assert sample.recall_after >= made.space.recall_target
    again = indexes.measure_recall(made.space.pk)
    assert again.effort == sample.raised_to
    assert again.recall > sample.recall


def test_one_question_missed_by_chance_does_not_make_it_look_harder_for_ever(shelf, monkeypatch):
    """Small samples are taken every few hours, and each may be unlucky."""
    before = shelf.space.ef_search
    asked, real = [], recall.sample

    def sample(space, questions, exact, *, k):
        found, took = real(space, questions, exact, k=k)
        asked.append(len(questions))
        return (0.9 if len(questions) == 10 else found), took

    monkeypatch.setattr(recall, "sample", sample)
    found = indexes.measure_recall(shelf.space.pk)
    shelf.space.refresh_from_db()
    assert asked[:2] == [10, 50]
    assert (found.questions, found.raised_to) == (50, None)
    assert found.recall >= 0.99
    assert shelf.space.ef_search == before


def test_the_recall_it_states_is_the_recall_there_is(shelf):
    VectorIndex.objects.filter(pk=shelf.space.pk).update(ef_search=1)
    shelf.space.refresh_from_db()

    def share(limit: int, *, per_product: bool) -> float:
        found, right = (
            search.nearest(
                [shelf.space], shelf.questions, limit=limit, per_product=per_product, exact=exact
            ).neighbours
            for exact in (False, True)
        )
        hits = sum(
            len({one.image_id for one in got} & {one.image_id for one in wanted})
            for got, wanted in zip(found, right, strict=True)
        )
        return hits / (limit * len(shelf.questions))

    images, products = share(10, per_product=False), share(5, per_product=True)
    exact, _ = recall.truth(shelf.space, shelf.questions)
    stated, _ = recall.sample(shelf.space, shelf.questions, exact, k=10)
    assert stated == pytest.approx(min(images, products), abs=0.01)
    assert stated < 1


def test_what_is_right_for_images_may_not_be_for_products(shelf, monkeypatch):
    """Whoever asks for products is answered less well by the same graph, and so that counts."""
    exact, _ = recall.truth(shelf.space, shelf.questions)
    answers = recall._answers

    def blind(space, asked, *, limit, per_product, exact=False):
        found, took = answers(space, asked, limit=limit, per_product=per_product, exact=exact)
        return [one[1:] if per_product else one for one in found], took

    assert recall.sample(shelf.space, shelf.questions, exact, k=10)[0] > 0.9
    monkeypatch.setattr(recall, "_answers", blind)
    assert recall.sample(shelf.space, shelf.questions, exact, k=10)[0] == pytest.approx(
        0.8, abs=0.02
    )


def test_questions_lie_near_the_vectors_but_are_not_them(filled):
    made = filled(400)
    asked = recall.questions(made.space, 30)
    assert asked.shape == (30, 32)
    assert np.linalg.norm(asked, axis=1) == pytest.approx(1, abs=1e-5)
    best = (asked @ made.vectors.T).max(axis=1)
    assert 0.8 < best.mean() < 0.98


def test_without_an_index_there_is_nothing_to_measure(filled):
    made = filled(40)
    assert indexes.measure_recall(made.space.pk) is None
    assert RecallSample.objects.filter(space=made.space).count() == 0


def test_every_index_is_measured_in_turn(shelf):
    assert indexes.measure_all() == 2
    assert RecallSample.objects.filter(space=shelf.space).count() == 2
