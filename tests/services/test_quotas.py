"""How much may be stored, asked and done at once, and what is said when that is used up."""

from __future__ import annotations

from threading import Barrier, Thread

import pytest
import redis
from django.db import IntegrityError, connection, transaction

from recognition.errors import BadInput, LimitReached, StorageFull, TooLarge
from recognition.models import Catalogue, GalleryImage, Quota, State
from recognition.services import (
    gallery,
    gallery_adding,
    product_moving,
    queries,
    quotas,
    rates,
    tokens,
    trash,
)
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def fresh_windows():
    client = rates._redis()
    for key in client.scan_iter("shitu:queries:*"):
        client.delete(key)


def ask(catalogue, by=None):
    return queries.submit(catalogue, factories.picture(), by=by)


# --- Stored images and bytes ----------------------------------------------------------------------


def test_by_default_nothing_is_limited(catalogue, user):
    for of in (catalogue, user, tokens.create(user, "till")[0]):
        assert set(quotas.limits(of).values()) == {None}


def test_the_settings_limit_every_catalogue_and_a_row_overrides_them(catalogue, settings):
    settings.SHITU_QUOTA_CATALOGUE_IMAGES = 1
    factories.add(catalogue, "tea", 1)
    with pytest.raises(StorageFull, match=r"may hold 1 images and would hold 2"):
        factories.add(catalogue, "tea", 2)
    quotas.change(catalogue, images=2)
    factories.add(catalogue, "tea", 2)
    with pytest.raises(StorageFull):
        factories.add(catalogue, "tea", 3)
    quotas.change(catalogue, images=0)
    factories.add(catalogue, "tea", 3)


def test_storage_that_is_full_is_an_answer_413(catalogue):
    quotas.change(catalogue, stored_bytes=1)
    with pytest.raises(TooLarge, match="bytes"):
        factories.add(catalogue, "tea")


def test_what_is_refused_leaves_neither_row_nor_file(catalogue, media):
    quotas.change(catalogue, images=1)
    with pytest.raises(StorageFull):
        gallery_adding.add_images(
            catalogue,
            [gallery_adding.NewImage("tea", factories.picture(n)) for n in (1, 2)],
            by=None,
        )
    assert not GalleryImage.everything.exists()
    assert not [path for path in media.rglob("*") if path.is_file()]
    assert Catalogue.objects.get().stored_images == 0


def test_of_many_uploads_as_many_are_stored_as_fit(catalogue):
    quotas.change(catalogue, images=2)
    uploads = [gallery_adding.Upload("tea", lambda n=n: factories.picture(n)) for n in range(4)]
    became = gallery_adding.add_each(catalogue, uploads, by=None)
    assert [isinstance(one, StorageFull) for one in became] == [False, False, True, True]


def test_what_is_removed_makes_room_and_what_is_in_the_trash_does_not(catalogue):
    quotas.change(catalogue, images=1)
    tea = factories.add(catalogue, "tea", 1).product
    trash.put(catalogue, [tea])
    with pytest.raises(StorageFull, match="trash"):
        factories.add(catalogue, "tea", 2)
    trash.purge(catalogue, [tea])
    gallery.remove_images(catalogue, [factories.add(catalogue, "tea", 2)])
    factories.add(catalogue, "tea", 3)


def test_replacing_and_repeating_a_picture_needs_no_room(catalogue):
    quotas.change(catalogue, images=1)
    for seed in (1, 2, 2):
        factories.add(catalogue, "tea", seed, external_id="a")


def test_an_owner_is_limited_over_all_their_catalogues(user):
    quotas.change(user, images=2)
    one, two = (factories.catalogue(owner=user) for _ in range(2))
    factories.add(one, "tea", 1)
    factories.add(two, "tea", 2)
    with pytest.raises(StorageFull, match="together"):
        factories.add(two, "tea", 3)
    factories.add(factories.catalogue(), "tea", 3)


def test_moving_products_is_limited_too(catalogue, user):
    factories.add(catalogue, "tea")
    other = factories.catalogue(owner=user)
    quotas.change(other, images=0, stored_bytes=1)
    with pytest.raises(StorageFull):
        product_moving.move(list(catalogue.products.all()), other)
    assert catalogue.images.count() == 1


@pytest.mark.django_db(transaction=True)
def test_many_at_once_never_store_more_than_is_allowed(user):
    quotas.change(user, images=5)
    both = [factories.catalogue(owner=user) for _ in range(2)]
    quotas.change(both[0], images=3)
    start, refused = Barrier(8), []
    pictures = [factories.picture(n) for n in range(8)]

    def add(n: int) -> None:
        start.wait()
        catalogue = Catalogue.objects.get(pk=both[n % 2].pk)
        try:
            gallery_adding.add_image(catalogue, f"product {n % 3}", pictures[n], by=user)
        except StorageFull as error:
            refused.append(error)
        finally:
            connection.close()

    threads = [Thread(target=add, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 3
    assert GalleryImage.objects.count() == 5
    assert both[0].images.count() <= 3
    for catalogue in both:
        catalogue.refresh_from_db()
        assert catalogue.stored_images == catalogue.images.count()


# --- Queries --------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["catalogue", "user", "token"])
def test_queries_a_minute_are_limited_and_the_answer_says_when_to_come_back(catalogue, user, of):
    user.token, _ = tokens.create(user, "till")
    limited = {"catalogue": catalogue, "user": user, "token": user.token}[of]
    quotas.change(limited, queries_per_minute=2)
    ask(catalogue, user)
    ask(catalogue, user)
    with pytest.raises(LimitReached, match="2 queries a minute and has asked 2") as caught:
        ask(catalogue, user)
    assert 20 < caught.value.retry_after <= 60
    assert catalogue.queries.count() == 2


def test_others_are_not_limited_by_it(catalogue, user):
    quotas.change(user, queries_per_minute=1)
    ask(catalogue, user)
    ask(catalogue, factories.member(catalogue, "viewer"))
    ask(factories.catalogue())


def test_a_refused_query_uses_nothing_up(catalogue, user):
    quotas.change(catalogue, queries_per_minute=3)
    quotas.change(user, queries_per_minute=1)
    ask(catalogue, user)
    for _ in range(5):
        with pytest.raises(LimitReached):
            ask(catalogue, user)
    ask(catalogue)
    ask(catalogue)


def test_the_window_slides(catalogue, monkeypatch):
    quotas.change(catalogue, queries_per_minute=2)
    ask(catalogue)
    ask(catalogue)
    key = quotas._window(catalogue)
    client = rates._redis()
    for member, at in client.zrange(key, 0, 0, withscores=True):
        client.zadd(key, {member: at - 61e6})  # the first was a minute ago
    ask(catalogue)
    with pytest.raises(LimitReached):
        ask(catalogue)


def test_many_processes_count_together(catalogue):
    key = quotas._window(catalogue)
    results: list[bool] = []

    def take() -> None:
        results.extend(rates.take([(key, 10)])[0] is None for _ in range(10))

    threads = [Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(results) == 10


def test_without_redis_queries_go_on(catalogue, monkeypatch):
    class Gone:
        def eval(self, *args):
            raise redis.ConnectionError

    monkeypatch.setattr(rates, "_redis", Gone)
    quotas.change(catalogue, queries_per_minute=1)
    for _ in range(3):
        ask(catalogue)


# --- Jobs -----------------------------------------------------------------------------------------


def test_unfinished_jobs_are_limited_in_a_catalogue_and_of_a_user(catalogue, user, settings):
    settings.SHITU_QUOTA_CONCURRENT_JOBS = 1
    job = catalogue.jobs.create(kind="import", started_by=user)
    with transaction.atomic(), pytest.raises(LimitReached, match="catalogue") as caught:
        quotas.check_job(catalogue, by=None)
    assert caught.value.retry_after
    with transaction.atomic(), pytest.raises(LimitReached, match="user"):
        quotas.check_job(factories.catalogue(), by=user)
    factories.ended(job, State.DONE)
    with transaction.atomic():
        quotas.check_job(catalogue, by=user)


# --- Overrides ------------------------------------------------------------------------------------


def test_a_quota_is_of_one_thing(catalogue, user):
    with pytest.raises(IntegrityError), transaction.atomic():
        Quota.objects.create(catalogue=catalogue, user=user)
    with pytest.raises(IntegrityError), transaction.atomic():
        Quota.objects.create()


@pytest.mark.parametrize("wrong", [{"images": -1}, {"colour": 1}])
def test_a_limit_that_is_none_is_named(catalogue, wrong):
    with pytest.raises(BadInput) as caught:
        quotas.change(catalogue, **wrong)
    assert caught.value.field in wrong


def test_usage_says_what_is_used_of_what(catalogue):
    quotas.change(catalogue, images=5, queries_per_minute=9)
    factories.add(catalogue, "tea")
    ask(catalogue)
    catalogue.jobs.create(kind="import")
    catalogue.refresh_from_db()
    found = {one.limit: (one.used, one.most) for one in quotas.usage(catalogue)}
    assert found == {
        "images": (1, 5),
        "stored_bytes": (catalogue.images.get().byte_size, None),
        "queries_per_minute": (1, 9),
        "concurrent_jobs": (1, None),
    }
