"""Vectors go in whole, once, and never for a picture that is gone."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from django.db import connection, connections, transaction

from bench.vectors import random_unit
from recognition import search
from recognition.errors import EngineFailed
from recognition.models import Embedding, GalleryImage, View
from recognition.search import wire

pytestmark = pytest.mark.django_db


def stored(space) -> dict[tuple[int, int], np.ndarray]:
    with wire.cursor() as cur:
        cur.execute(
            "SELECT image_id, view, halfvec_send(emb) FROM recognition_embedding"
            " WHERE space_id = %s",
            [space.pk],
            binary=True,
        )
        return {(i, v): wire.read_halves([emb])[0] for i, v, emb in cur.fetchall()}


@pytest.mark.parametrize("count", [3, 450], ids=["by insert", "by copy"])
def test_it_writes_what_it_was_given(filled, count):
    made = filled(count)
    there = stored(made.space)
    assert len(there) == count
    for row, image in enumerate(made.ids):
        assert np.abs(there[int(image), View.WHOLE] - made.vectors[row]).max() < 1e-3


@pytest.mark.parametrize("count", [3, 450], ids=["by insert", "by copy"])
def test_it_replaces_what_was_there(filled, count):
    made = filled(count)
    other = random_unit(count, 32, seed=9)
    assert search.store(made.space, made.ids.tolist(), [0] * count, other) == count
    there = stored(made.space)
    assert len(there) == count
    assert np.abs(there[int(made.ids[1]), 0] - other[1]).max() < 1e-3


def test_the_last_of_two_for_one_picture_counts(filled):
    made = filled(3)
    both = random_unit(2, 32, seed=1)
    search.store(made.space, [int(made.ids[0])] * 2, [0, 0], both)
    assert np.abs(stored(made.space)[int(made.ids[0]), 0] - both[1]).max() < 1e-3


def test_two_views_are_two_vectors(filled):
    made = filled(3)
    search.store(made.space, [int(made.ids[0])], [View.MAIN_BODY], made.vectors[1:2])
    assert len(stored(made.space)) == 4


@pytest.mark.parametrize(
    ("vectors", "says"),
    [
        (random_unit(1, 31), "32 dimensions"),
        (random_unit(2, 32), "1 vectors"),
        (np.full((1, 32), np.nan, dtype=np.float32), "length nan"),
        (np.full((1, 32), np.inf, dtype=np.float32), "length inf"),
        (np.zeros((1, 32), dtype=np.float32), "length 0"),
        (2 * random_unit(1, 32), "length 2"),
    ],
)
def test_it_refuses_what_cannot_be_a_feature(filled, vectors, says):
    made = filled(3)
    with pytest.raises(EngineFailed, match=says):
        search.store(made.space, [int(made.ids[0])], [0], vectors)


def test_a_removed_picture_is_skipped(filled):
    made = filled(3)
    GalleryImage.objects.filter(pk=made.ids[0]).delete()
    assert search.store(made.space, made.ids.tolist(), [0] * 3, made.vectors) == 2
    assert (int(made.ids[0]), 0) not in stored(made.space)


def test_a_picture_of_another_catalogue_is_skipped(filled):
    made, other = filled(3), filled(3)
    assert search.store(made.space, other.ids.tolist(), [0] * 3, other.vectors) == 0


def test_vectors_go_with_their_picture_product_and_catalogue(filled):
    made = filled(30)
    GalleryImage.objects.get(pk=made.ids[0]).delete()
    assert Embedding.objects.filter(space=made.space).count() == 29
    made.space.catalogue.products.get(label="product 1").delete()
    assert Embedding.objects.filter(space=made.space).count() == 19
    made.space.catalogue.delete()
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM recognition_embedding")
        assert cursor.fetchone() == (0,)


def test_vectors_go_with_plain_sql_too(filled):
    made = filled(30)
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM recognition_galleryimage WHERE id = %s", [int(made.ids[3])])
    assert len(stored(made.space)) == 29


def test_removing_a_space(filled):
    made = filled(30)
    assert search.remove_space(made.space) == 30
    assert stored(made.space) == {}


def test_all_or_nothing(filled):
    made = filled(3)
    with pytest.raises(RuntimeError), transaction.atomic():
        search.store(made.space, [int(made.ids[0])], [1], made.vectors[:1])
        raise RuntimeError
    assert len(stored(made.space)) == 3


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("commits", [True, False], ids=["removal commits", "removal rolls back"])
def test_a_picture_that_is_being_removed_leaves_nothing_behind(filled, commits):
    made = filled(3)
    image = int(made.ids[0])
    began, go_on, result = threading.Event(), threading.Event(), []

    def remove() -> None:
        try:
            with transaction.atomic():
                GalleryImage.objects.filter(pk=image).delete()
                began.set()
                go_on.wait(60)
                if not commits:
                    raise RuntimeError
        except RuntimeError:
            pass
        finally:
            connections.close_all()

    def write() -> None:
        result.append(search.store(made.space, [image], [View.MAIN_BODY], made.vectors[:1]))
        connections.close_all()

    remover, writer = threading.Thread(target=remove), threading.Thread(target=write)
    remover.start()
    assert began.wait(60)
    writer.start()
    writer.join(0.3)
    assert writer.is_alive()  # it waits for the removal to be decided
    go_on.set()
    remover.join(60)
    writer.join(60)
    assert result == [0 if commits else 1]
    assert ((image, View.MAIN_BODY) in stored(made.space)) is not commits


@pytest.mark.django_db(transaction=True)
def test_writers_of_the_same_pictures_do_not_deadlock(filled):
    made = filled(300)
    errors = []

    def write(order: int) -> None:
        try:
            for _ in range(5):
                search.store(
                    made.space, made.ids[::order].tolist(), [0] * 300, made.vectors[::order]
                )
        except Exception as error:  # noqa: BLE001  (shown below)
            errors.append(error)
        finally:
            connections.close_all()

    writers = [threading.Thread(target=write, args=(order,)) for order in (1, -1, 1, -1)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert errors == []
    assert len(stored(made.space)) == 300
