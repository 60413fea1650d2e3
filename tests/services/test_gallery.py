"""Pictures come in, go out, change their product."""

from __future__ import annotations

import pytest
from django.core.files.storage import default_storage
from django.db import transaction

from recognition import tasks
from recognition.errors import BadInput, Conflict
from recognition.models import (
    Action,
    AuditEntry,
    Embedding,
    GalleryImage,
    Job,
    Product,
    RecognitionQuery,
    State,
)
from recognition.services import (
    files,
    gallery,
    gallery_adding,
    gallery_embedding,
    imports,
    indexing,
    jobs,
    product_moving,
    products,
    queries,
)
from tests import factories, processes
from tests.services.test_import import packed

pytestmark = pytest.mark.django_db


def test_it_stores_the_picture_and_its_product(catalogue):
    image = factories.add(catalogue, "green tea", seed=1)
    assert image.product.label == "green tea"
    assert image.state == State.PENDING
    with default_storage.open(image.file.name) as file:
        assert file.read() == factories.png(1)


def test_it_wakes_a_worker_after_the_commit(catalogue, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks() as callbacks:
        factories.add(catalogue, "green tea")
    assert len(callbacks) == 1


def test_it_embeds_after_the_commit(catalogue, stub_engine, run_tasks):
    with run_tasks():
        image = factories.add(catalogue, "green tea")
    image.refresh_from_db()
    assert image.state == State.DONE
    assert Embedding.objects.filter(image=image).count() == 1


def test_the_same_picture_of_the_same_product_is_kept_once(catalogue):
    first = gallery_adding.add_image(catalogue, "tea", factories.picture(1), by=None)
    again = gallery_adding.add_image(catalogue, "tea", factories.picture(1), by=None)
    assert first.created and not again.created
    assert first.image == again.image


def test_a_picture_given_twice_in_one_call_is_kept_once(catalogue):
    new = [gallery_adding.NewImage("tea", factories.picture(1))] * 2
    first, again = gallery_adding.add_images(catalogue, new, by=None)
    assert (first.created, again.created) == (True, False)
    assert GalleryImage.objects.count() == 1


@pytest.fixture
def killed_behind_the_commit(monkeypatch):
    """Whoever would wake a worker is killed in that moment."""

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    for name in ("wake", "wake_to_answer"):
        monkeypatch.setattr(tasks, name, lambda *_: transaction.on_commit(killed))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("store", "rows"),
    [
        (lambda of: factories.add(of, "tea", 1), GalleryImage.objects),
        (lambda of: queries.submit(of, factories.picture(1), by=None), RecognitionQuery.objects),
        (lambda of: imports.start(of, packed({}), by=None), Job.objects),
    ],
)
def test_who_is_killed_behind_the_commit_leaves_row_and_file(
    catalogue, killed_behind_the_commit, store, rows
):
    with pytest.raises(KeyboardInterrupt):
        store(catalogue)
    assert files.missing([rows.get().file.name]) == set()


@pytest.mark.django_db(transaction=True)
def test_so_does_an_import(catalogue, request):
    job = imports.start(catalogue, packed({"tea/1.png": factories.png(1)}), by=None)
    request.getfixturevalue("killed_behind_the_commit")
    with pytest.raises(KeyboardInterrupt):
        jobs.run(job.pk)
    assert files.missing([catalogue.images.get().file.name]) == set()


def test_a_picture_that_failed_without_its_file_is_healed_by_adding_it_again(
    catalogue, stub_engine, run_tasks
):
    image = factories.add(catalogue, "tea", 1)
    default_storage.delete(image.file.name)
    indexing.embed_waiting(catalogue.pk)
    image.refresh_from_db()
    assert (image.state, "add the picture again" in image.error) == (State.FAILED, True)
    with run_tasks():
        added = gallery_adding.add_image(catalogue, "tea", factories.picture(1), by=None)
    assert (added.image, added.created, [*added.changes]) == (image, False, ["file"])
    image.refresh_from_db()
    assert (image.state, image.error) == (State.DONE, "")
    assert files.read(image.file.name) == factories.png(1)
    assert AuditEntry.objects.first().action == Action.IMAGE_CHANGE
    catalogue.refresh_from_db()
    assert (catalogue.stored_images, catalogue.stored_bytes) == (1, image.byte_size)
    again = gallery_adding.add_image(catalogue, "tea", factories.picture(1), by=None)
    assert not again.changes


def test_one_that_is_embedded_gets_its_file_and_keeps_its_vector(catalogue, stub_engine, run_tasks):
    with run_tasks():
        image = factories.add(catalogue, "tea", 1)
    default_storage.delete(image.file.name)
    new = [gallery_adding.NewImage("tea", factories.picture(1))] * 2
    first, second = gallery_adding.add_images(catalogue, new, by=None)
    assert ([*first.changes], [*second.changes]) == (["file"], [])
    image.refresh_from_db()
    assert image.state == State.DONE
    assert files.read(image.file.name) == factories.png(1)


def test_a_worker_that_looked_for_the_file_before_does_not_fail_it(catalogue, stub_engine):
    image = factories.add(catalogue, "tea", 1)
    default_storage.delete(image.file.name)
    claimed = indexing._claim(catalogue.pk)
    gallery_adding.add_image(catalogue, "tea", factories.picture(1), by=None)
    indexing._embed_claimed(catalogue.pk, claimed)
    image.refresh_from_db()
    assert image.state == State.PENDING


def test_vector_ids_count_up_and_are_never_reused(catalogue):
    ids = [factories.add(catalogue, "tea", seed=n).number for n in range(3)]
    gallery.remove_numbers(catalogue, [2])
    assert ids == [0, 1, 2]
    assert factories.add(catalogue, "tea", seed=9).number == 3


def test_every_change_moves_the_version(catalogue):
    seen = [catalogue.version]

    def moved() -> bool:
        catalogue.refresh_from_db()
        seen.append(catalogue.version)
        return seen[-1] > seen[-2]

    image = factories.add(catalogue, "tea")
    assert moved()
    products.change(image.product, label="green tea")
    assert moved()
    gallery.move_images([image], products.create(catalogue, "black tea"))
    assert moved()
    gallery.remove_images(catalogue, [image])
    assert moved()


def test_a_removed_picture_leaves_no_row_no_vector_and_no_file(catalogue, stub_engine, run_tasks):
    with run_tasks():
        image = factories.add(catalogue, "tea")
    name = image.file.name
    with run_tasks():
        assert gallery.remove_images(catalogue, [image]) == 1
    assert not Embedding.objects.exists()
    assert not default_storage.exists(name)


def test_removing_unknown_ids_names_them(catalogue):
    factories.add(catalogue, "tea")
    assert gallery.remove_numbers(catalogue, [0, 7, 8]) == (1, [7, 8])


@pytest.mark.parametrize("label", ["", "   ", "x" * 256, "a\nb", "a\x00b"])
def test_a_bad_label_stores_nothing(catalogue, label, media):
    with pytest.raises(BadInput) as caught:
        factories.add(catalogue, label)
    assert caught.value.field == "label"
    assert not GalleryImage.objects.exists()
    assert not list(media.rglob("*.png"))


def test_labels_are_any_unicode_and_compared_in_one_form(catalogue):
    factories.add(catalogue, "cafe\u0301 红牛", seed=1)
    factories.add(catalogue, "caf\u00e9 红牛", seed=2)
    assert Product.objects.get(catalogue=catalogue).images.count() == 2


def test_renaming_to_a_label_that_is_taken_is_refused(catalogue):
    tea, coffee = (products.create(catalogue, label) for label in ("tea", "coffee"))
    with pytest.raises(Conflict):
        products.change(tea, label="coffee")


def test_a_failed_store_leaves_no_file_behind(catalogue, monkeypatch, media):
    def fail(*args, **kwargs):
        raise RuntimeError

    monkeypatch.setattr(GalleryImage.objects, "bulk_create", fail)
    with pytest.raises(RuntimeError):
        factories.add(catalogue, "tea")
    assert not [path for path in media.rglob("*") if path.is_file()]


def test_a_picture_whose_file_is_gone_fails_alone_with_its_reason(
    catalogue, stub_engine, run_tasks
):
    good = factories.add(catalogue, "tea", seed=1)
    bad = factories.add(catalogue, "tea", seed=2)
    default_storage.delete(bad.file.name)
    with run_tasks():
        gallery_embedding.reembed(catalogue)
    good.refresh_from_db()
    bad.refresh_from_db()
    assert good.state == State.DONE
    assert bad.state == State.FAILED and "add the picture again" in bad.error


def test_a_failed_picture_can_be_tried_again(catalogue, stub_engine, run_tasks):
    image = factories.add(catalogue, "tea")
    GalleryImage.objects.update(state=State.FAILED, error="out of luck")
    image.refresh_from_db()
    with run_tasks():
        assert gallery_embedding.retry([image]) == 1
    image.refresh_from_db()
    assert (image.state, image.error) == (State.DONE, "")


@pytest.mark.parametrize(
    ("policy", "views"), [("whole", [0]), ("main_body", [1]), ("both", [0, 1])]
)
def test_the_crop_policy_says_which_views_are_embedded(user, policy, views, stub_engine, run_tasks):
    catalogue = factories.catalogue(owner=user, crop_policy=policy, detector="stub_det")
    with run_tasks():
        image = factories.add(catalogue, "tea")
    kept = Embedding.objects.filter(image=image).order_by("view").values_list("view", flat=True)
    assert list(kept) == views


def test_a_box_somebody_gave_wins_over_detection(user, stub_engine, run_tasks):
    catalogue = factories.catalogue(owner=user, crop_policy="main_body", detector="stub_det")
    with run_tasks():
        image = factories.add(catalogue, "tea", box=[4, 4, 30, 30])
    image.refresh_from_db()
    assert image.box == [4, 4, 30, 30]
    assert image.box_source == "given"


def test_adding_many_costs_as_many_statements_as_one(catalogue, django_assert_max_num_queries):
    new = [
        gallery_adding.NewImage(f"p{n}", factories.picture(n), external_id=str(n))
        for n in range(30)
    ]
    with django_assert_max_num_queries(15):
        gallery_adding.add_images(catalogue, new, by=catalogue.owner)


# --- At the same moment ---------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_of_two_who_move_an_image_the_second_decides(catalogue):
    image = factories.add(catalogue, "tea", 1)
    green, red = (products.create(catalogue, label) for label in ("green tea", "red tea"))
    moved = processes.behind(
        lambda: gallery.move_images([image], green), lambda: gallery.move_images([image], red)
    )
    assert moved == 1
    assert red.images.get() == image
    entry = AuditEntry.objects.filter(action=Action.IMAGE_MOVE).first()
    assert entry.changes == {"label": ["green tea", "red tea"]}


@pytest.mark.django_db(transaction=True)
def test_of_two_who_remove_an_image_the_second_is_told_that_there_is_none(catalogue):
    first, second = factories.add(catalogue, "tea", 1), factories.add(catalogue, "tea", 2)
    numbers = [first.number, second.number]
    removed = processes.behind(
        lambda: gallery.remove_images(catalogue, [first]),
        lambda: gallery.remove_numbers(catalogue, numbers),
    )
    assert removed == (1, numbers[:1])


@pytest.mark.django_db(transaction=True)
def test_an_id_that_a_product_brings_along_from_elsewhere_is_taken(catalogue):
    elsewhere = factories.catalogue(owner=catalogue.owner)
    moving = factories.add(elsewhere, "coffee", 1, external_id="1")
    image = factories.add(catalogue, "tea", 2)
    with pytest.raises(Conflict, match="image 1 has the external id “1” already"):
        processes.behind(
            lambda: product_moving.move([moving.product], catalogue),
            lambda: gallery.set_external_id(image, "1"),
        )
    assert image.external_id == ""
