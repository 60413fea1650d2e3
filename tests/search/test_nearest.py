"""The nearest pictures: as many as exist, of living products, in one round trip."""

from __future__ import annotations

import numpy as np
import psycopg
import pytest

from bench import spaces
from bench.vectors import random_unit
from recognition import search
from recognition.errors import EngineFailed
from recognition.models import GalleryImage, Product, View
from recognition.search import Question

pytestmark = pytest.mark.django_db


@pytest.fixture
def round_trips(monkeypatch):
    """The statements sent by way of psycopg's own cursors, as the search does."""
    sent: list[str] = []
    execute = psycopg.Cursor.execute

    def counting(self, query, *args, **kwargs):
        if type(self) is psycopg.Cursor:
            sent.append(query)
        return execute(self, query, *args, **kwargs)

    monkeypatch.setattr(psycopg.Cursor, "execute", counting)
    return sent


def test_an_exact_search_is_arithmetic(filled):
    made = filled(400)
    found = search.nearest([made.space], made.questions, limit=7, per_product=False)
    for question, neighbours in zip(made.questions, found.neighbours, strict=True):
        wanted = made.nearest(question, 7)
        assert [n.image_id for n in neighbours] == wanted
        row = int(np.flatnonzero(made.ids == wanted[0])[0])
        assert neighbours[0].similarity == pytest.approx(made.vectors[row] @ question, abs=1e-3)
    assert "exact" in found.plan


def test_one_entry_per_product_with_its_best_picture(filled):
    made = filled(400)
    found = search.nearest([made.space], made.questions, limit=5)
    for question, neighbours in zip(made.questions, found.neighbours, strict=True):
        assert [n.label for n in neighbours] == [
            f"product {p}" for p in made.nearest_products(question, 5)
        ]
        assert neighbours[0].image_id == made.nearest(question, 1)[0]


def test_it_tells_all_about_a_neighbour(filled):
    made = filled(20)
    [[first]] = search.nearest([made.space], made.vectors[13:14], limit=1).neighbours
    image = GalleryImage.objects.get(pk=made.ids[13])
    assert first == search.Neighbour(
        image.pk,
        image.number,
        image.product_id,
        image.product.label,
        pytest.approx(1.0, abs=1e-3),
        View.WHOLE,
        made.space.catalogue_id,
    )
    assert first.similarity <= 1.0


def test_two_views_of_a_picture_are_one_picture(filled):
    made = filled(50)
    nearly = made.vectors + 0.01 * random_unit(50, 32, seed=4)
    nearly /= np.linalg.norm(nearly, axis=1, keepdims=True)
    search.store(made.space, made.ids.tolist(), [View.MAIN_BODY] * 50, nearly)
    [neighbours] = search.nearest(
        [made.space], made.questions[:1], limit=30, per_product=False
    ).neighbours
    assert len({n.image_id for n in neighbours}) == len(neighbours) == 30


@pytest.mark.parametrize("limit", [1, 5, 40, 100])
def test_as_many_products_as_exist(filled, limit):
    made = filled(400)  # 40 products
    found = search.nearest([made.space], made.questions, limit=limit)
    assert {len(neighbours) for neighbours in found.neighbours} == {min(limit, 40)}


def test_a_product_with_most_of_the_pictures_does_not_hide_the_others(filled):
    made = filled(60, views=1)  # 60 products with a picture each
    crowd = made.questions[:1] + 0.05 * random_unit(900, 32, seed=5)
    crowd = (crowd / np.linalg.norm(crowd, axis=1, keepdims=True)).astype(np.float32)
    [first] = Product.objects.filter(label="product 0")
    ids = spaces.add_images(made.space.catalogue, np.full(900, first.pk))
    search.store(made.space, ids.tolist(), [0] * 900, crowd)
    [neighbours] = search.nearest([made.space], made.questions[:1], limit=10).neighbours
    assert len(neighbours) == 10
    assert neighbours[0].label == "product 0"


def test_inactive_products_are_never_an_answer(filled):
    made = filled(400)
    Product.objects.filter(catalogue=made.space.catalogue).exclude(label="product 7").update(
        is_active=False
    )
    found = search.nearest([made.space], made.questions, limit=5)
    assert {n.label for neighbours in found.neighbours for n in neighbours} == {"product 7"}
    images = search.nearest([made.space], made.questions, limit=20, per_product=False)
    assert {len(neighbours) for neighbours in images.neighbours} == {10}


def test_a_new_label_and_a_new_product_show_at_once(filled):
    made = filled(40)
    question = made.vectors[:1]
    Product.objects.filter(label="product 0").update(label="renamed")
    assert search.nearest([made.space], question, limit=1).neighbours[0][0].label == "renamed"
    other = Product.objects.get(label="product 3")
    GalleryImage.objects.filter(pk=made.ids[0]).update(product=other)
    [[first]] = search.nearest([made.space], question, limit=1).neighbours
    assert (first.product_id, first.label) == (other.pk, "product 3")


def test_several_catalogues_at_once(filled):
    one, two, three = filled(100, seed=1), filled(100, seed=2), filled(100, seed=3)
    spaces_ = [one.space, two.space, three.space]
    found = search.nearest(spaces_, two.questions, limit=6, per_product=False)
    ids = np.concatenate([one.ids, two.ids, three.ids])
    vectors = np.concatenate([one.vectors, two.vectors, three.vectors])
    for question, neighbours in zip(two.questions, found.neighbours, strict=True):
        wanted = ids[np.argsort(-(vectors @ question), kind="stable")[:6]]
        assert [n.image_id for n in neighbours] == wanted.tolist()
    assert set(found.versions) == {space.catalogue_id for space in spaces_}


def test_products_of_the_same_name_in_two_catalogues_are_two(filled):
    one, two = filled(100, seed=1), filled(100, seed=1)
    [neighbours] = search.nearest([one.space, two.space], one.vectors[:1], limit=2).neighbours
    assert [n.label for n in neighbours] == ["product 0", "product 0"]
    assert {n.catalogue_id for n in neighbours} == {
        one.space.catalogue_id,
        two.space.catalogue_id,
    }


def test_a_batch_against_different_catalogues_is_one_round_trip(filled, round_trips):
    one, two = filled(100, seed=1), filled(200, dimension=48, seed=2)
    round_trips.clear()
    found = search.nearest_many(
        [
            Question([one.space], one.questions[:3], 2),
            Question([two.space], two.questions[:4], 3, per_product=False),
            Question([one.space], one.questions[3:4], 1),
        ]
    )
    assert len(round_trips) == 1
    assert [[len(n) for n in answer.neighbours] for answer in found] == [[2] * 3, [3] * 4, [1]]
    assert [list(answer.versions) for answer in found] == [
        [one.space.catalogue_id],
        [two.space.catalogue_id],
        [one.space.catalogue_id],
    ]
    assert [n.image_id for n in found[1].neighbours[2]] == two.nearest(two.questions[2], 3)


def test_an_answer_carries_the_version_it_was_read_at(filled):
    made = filled(20)
    version = made.space.catalogue.touch()
    catalogue = made.space.catalogue_id
    assert search.nearest([made.space], made.questions[:1], limit=1).versions == {
        catalogue: version
    }
    made.space.catalogue.touch()
    assert search.nearest([made.space], made.questions[:1], limit=1).versions == {
        catalogue: version + 1
    }


def test_an_empty_catalogue_answers_nothing_at_its_version():
    space = spaces.make_space(32)
    found = search.nearest([space], random_unit(2, 32), limit=5)
    assert found.neighbours == [[], []]
    assert found.versions == {space.catalogue_id: space.catalogue.version}


def test_no_vectors_no_neighbours(filled):
    made = filled(20)
    found = search.nearest([made.space], np.zeros((0, 32), dtype=np.float32), limit=5)
    assert found.neighbours == []
    assert made.space.catalogue_id in found.versions


def test_a_question_of_another_model_is_refused(filled):
    made = filled(20)
    with pytest.raises(EngineFailed, match="48 dimensions"):
        search.nearest([made.space], random_unit(1, 48), limit=5)


def test_models_side_by_side_never_mix(filled):
    made = filled(20)
    other = spaces.make_space(48)
    other.catalogue = made.space.catalogue
    other.save()
    vectors = random_unit(20, 48)
    search.store(other, made.ids.tolist(), [0] * 20, vectors)
    [[first]] = search.nearest([other], vectors[5:6], limit=1, per_product=False).neighbours
    assert first.image_id == made.ids[5]
    assert search.remove_space(other) == 20
    assert len(search.nearest([made.space], made.questions[:1], limit=99).neighbours[0]) == 2


@pytest.mark.parametrize("dimension", [1, 3, 2048, 4000])
def test_any_dimension_up_to_4000(filled, dimension):
    made = filled(30, dimension=dimension, views=2)
    [[first]] = search.nearest([made.space], made.vectors[4:5], limit=1).neighbours
    assert first.similarity == pytest.approx(1.0, abs=1e-3)
