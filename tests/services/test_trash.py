"""What is removed is gone at once, comes back as it was, and is purged in the end."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.files.storage import default_storage
from django.utils import timezone

from recognition.errors import Conflict, NotFound
from recognition.models import (
    Catalogue,
    Embedding,
    FeatureModel,
    GalleryImage,
    Match,
    Product,
    State,
)
from recognition.services import (
    catalogues,
    gallery,
    gallery_embedding,
    product_merging,
    products,
    queries,
    trash,
)
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def recognised(stub_engine, run_tasks, catalogue):
    """Whether picture 1 is recognised as tea."""

    def ask() -> bool:
        with run_tasks():
            query = queries.submit(catalogue, factories.picture(1), by=None)
        return Match.objects.filter(detection__query=query, label="tea").exists()

    return ask


def test_in_the_trash_no_answer_list_count_or_number_knows_it(tea, catalogue, recognised):
    assert recognised()
    trash.put(catalogue, [tea])
    assert not recognised()
    assert not catalogue.products.exists() and not catalogue.images.exists()
    assert catalogues.statistics(catalogue)["images"]["done"] == 0
    assert gallery.remove_numbers(catalogue, [0]) == (0, [0])
    with pytest.raises(NotFound):
        products.find(catalogue, tea.pk)
    assert list(Product.everything.in_trash()) == [tea]


def test_restored_it_is_recognised_at_once_with_its_old_vector(
    tea, catalogue, recognised, monkeypatch
):
    trash.put(catalogue, [tea])
    catalogue.refresh_from_db()
    version = catalogue.version
    trash.restore(tea)
    catalogue.refresh_from_db()
    assert catalogue.version > version
    assert recognised()
    assert catalogue.images.get().state == State.DONE


def test_an_inactive_product_comes_back_inactive(tea, catalogue):
    products.change(tea, is_active=False)
    trash.put(catalogue, [tea])
    assert not trash.restore(tea).is_active


def test_its_label_is_free_meanwhile_and_restoring_says_so(tea, catalogue):
    trash.put(catalogue, [tea])
    factories.add(catalogue, "tea", 2)
    with pytest.raises(Conflict) as caught:
        trash.restore(tea)
    assert caught.value.field == "label"
    assert trash.restore(tea, label="old tea").label == "old tea"
    assert catalogue.products.count() == 2


def test_what_was_told_to_be_embedded_anew_meanwhile_is(tea, catalogue, run_tasks):
    trash.put(catalogue, [tea])
    with run_tasks():
        gallery_embedding.reembed(catalogue)
    assert GalleryImage.everything.get().state == State.PENDING
    with run_tasks():
        trash.restore(tea)
    assert catalogue.images.get().state == State.DONE


def test_where_another_network_was_chosen_meanwhile_it_is_embedded_by_that(
    tea, catalogue, run_tasks
):
    other = FeatureModel.objects.create(name="stub_rec", digest="0" * 64, dimension=8)
    trash.put(catalogue, [tea])
    catalogue.index = catalogue.spaces.create(feature_model=other)
    catalogue.save(update_fields=["index"])
    trash.restore(tea)
    image = catalogue.images.get()
    assert (image.state, image.attempts) == (State.PENDING, 0)


def test_what_is_not_there_cannot_be_removed_or_restored(tea, catalogue):
    with pytest.raises(NotFound):
        trash.restore(tea)
    trash.put(catalogue, [tea])
    with pytest.raises(NotFound):
        trash.put(catalogue, [tea])


def test_a_merged_product_is_not_in_the_trash(tea, catalogue):
    other = products.create(catalogue, "other")
    product_merging.merge([tea], other)
    assert not Product.everything.in_trash().exists()
    with pytest.raises(NotFound):
        trash.restore(tea)


def test_only_what_has_been_there_long_enough_is_purged_with_everything(
    tea, catalogue, settings, run_tasks
):
    factories.add(catalogue, "coffee", 2)
    name = tea.images.get().file.name
    trash.put(catalogue, list(catalogue.products.all()))
    long_ago = timezone.now() - timedelta(days=settings.SHITU_TRASH_DAYS, minutes=1)
    Product.everything.filter(pk=tea.pk).update(removed_at=long_ago)
    with run_tasks():
        assert trash.purge_expired() == 1
    assert not default_storage.exists(name)
    assert not Embedding.objects.exists()
    assert [row.label for row in Product.everything.all()] == ["coffee"]
    catalogue.refresh_from_db()
    assert catalogue.stored_images == 1


def test_it_may_be_purged_at_once_but_never_what_is_alive(tea, catalogue, run_tasks):
    assert trash.purge(catalogue, [tea]) == 0
    trash.put(catalogue, [tea])
    with run_tasks():
        assert trash.purge(catalogue, [tea]) == 1
    assert not GalleryImage.everything.exists()
    assert Catalogue.objects.get().stored_bytes == 0


def test_removing_the_catalogue_takes_the_trash_and_its_files_along(
    tea, catalogue, run_tasks, media
):
    trash.put(catalogue, [tea])
    with run_tasks():
        catalogues.remove(catalogue)
    assert not Product.everything.exists()
    assert not [path for path in media.rglob("*") if path.is_file()]
