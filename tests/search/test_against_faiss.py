"""The same scores and the same order as FAISS, which PaddleX uses."""

from __future__ import annotations

import numpy as np
import pytest

from recognition import search
from recognition.models import IndexType, Metric
from recognition.search import score

faiss = pytest.importorskip("faiss")
pytestmark = pytest.mark.django_db
CLOSE = 5e-4  # what half precision may cost


@pytest.mark.parametrize("metric", [Metric.IP, Metric.L2])
def test_scores_and_order_are_those_of_faiss_flat(filled, metric):
    made = filled(1500, dimension=512, questions=50, index_type=IndexType.FLAT, metric=metric)
    index = faiss.IndexFlatIP(512) if metric is Metric.IP else faiss.IndexFlatL2(512)
    index.add(made.vectors)
    scores, rows = index.search(made.questions, 10)
    found = search.nearest([made.space], made.questions, limit=10, per_product=False)
    for neighbours, wanted, order in zip(found.neighbours, scores, rows, strict=True):
        ours = np.array([score(neighbour.similarity, metric) for neighbour in neighbours])
        tolerance = CLOSE if metric is Metric.IP else 2 * CLOSE  # L2 is 2 - 2 cosine
        assert np.abs(ours - wanted).max() < tolerance
        for place, neighbour in enumerate(neighbours):
            row = int(order[place])
            apart = np.abs(np.delete(wanted, place) - wanted[place]).min()
            if apart > tolerance:
                assert neighbour.image_id == made.ids[row]
                assert neighbour.label == f"product {made.products[row]}"


def test_scores_are_close_to_float32_cosine(filled):
    made = filled(500, dimension=512, questions=50)
    found = search.nearest([made.space], made.questions, limit=500, per_product=False)
    row_of = {int(image): row for row, image in enumerate(made.ids)}
    for question, neighbours in zip(made.questions, found.neighbours, strict=True):
        exact = made.vectors @ question
        for neighbour in neighbours:
            assert abs(exact[row_of[neighbour.image_id]] - neighbour.similarity) < 1e-3
