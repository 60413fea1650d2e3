"""Catalogues: made, found, changed, removed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from django.db import connection, transaction

from recognition.errors import BadInput, Conflict, ModelUnavailable, NotFound
from recognition.models import Catalogue, Embedding, GalleryImage, Role, State
from recognition.models.work import WorkQuerySet
from recognition.services import (
    audit,
    catalogues,
    gallery_embedding,
    index_jobs,
    indexing,
    product_moving,
    tokens,
)
from tests import factories

pytestmark = pytest.mark.django_db


def test_a_new_catalogue_has_a_search_space_and_a_manager(catalogue, user):
    assert catalogue.require_index().catalogue == catalogue
    assert Catalogue.objects.managed_by(user).get() == catalogue


def test_two_owners_may_use_one_name_and_one_owner_may_not(catalogue, user):
    factories.catalogue(name=catalogue.name)
    with pytest.raises(Conflict):
        factories.catalogue(owner=user, name=catalogue.name)


def test_a_model_that_is_not_installed_is_refused_with_the_ways_to_get_it(user):
    with pytest.raises(ModelUnavailable, match="models fetch"):
        catalogues.create("x", owner=user, feature_model="PP-ShiTuV2_rec", detector="")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("metric", "hamming"),
        ("index_type", "LSH"),
        ("det_threshold", 2),
        ("top_k", 0),
        ("name", ""),
    ],
)
def test_an_option_out_of_range_is_named(catalogue, option, value):
    with pytest.raises(BadInput) as caught:
        if option == "index_type":
            factories.catalogue(index_type=value)
        else:
            catalogues.change(catalogue, **{option: value})
    assert caught.value.field == option


def test_another_crop_policy_has_every_picture_embedded_anew(catalogue, stub_engine, run_tasks):
    with run_tasks():
        image = factories.add(catalogue, "tea")
    with run_tasks():
        catalogues.change(catalogue, crop_policy="both")
    assert set(Embedding.objects.filter(image=image).values_list("view", flat=True)) == {0, 1}


def test_a_crop_policy_changes_only_together_with_its_pictures(
    catalogue, stub_engine, run_tasks, monkeypatch
):
    with run_tasks():
        image = factories.add(catalogue, "tea")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(WorkQuerySet, "again", killed)
        with pytest.raises(KeyboardInterrupt):
            catalogues.change(Catalogue.objects.get(), crop_policy="both")
    assert Catalogue.objects.get().crop_policy == "whole"

    with run_tasks():
        catalogues.change(Catalogue.objects.get(), crop_policy="both")
    assert set(Embedding.objects.filter(image=image).values_list("view", flat=True)) == {0, 1}


def test_another_crop_policy_of_this_moment_is_a_conflict(catalogue, monkeypatch):
    image = factories.add(catalogue, "tea")
    real = audit.differences

    def behind_another(before, after):
        return real(before | {"crop_policy": "both"}, after)

    GalleryImage.objects.update(state="done")
    monkeypatch.setattr(audit, "differences", behind_another)
    with pytest.raises(Conflict) as caught:
        catalogues.change(catalogue, crop_policy="whole")
    assert caught.value.field == "crop_policy"
    image.refresh_from_db()
    assert image.state == "done"


@pytest.fixture
def elsewhere():
    """`elsewhere(act)` does it in another session, and returns what it does when it is done."""

    def closing(act: Callable[[], object]) -> object:
        try:
            return act()
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        yield lambda act: pool.submit(closing, act).result()


@pytest.fixture
def meanwhile(monkeypatch, elsewhere):
    """`meanwhile(act)` has another session do it while pictures are told to be embedded anew."""

    def install(act: Callable[[], object]) -> None:
        real = gallery_embedding.reembed

        def reembed(catalogue) -> int:
            count = real(catalogue)
            elsewhere(act)
            return count

        monkeypatch.setattr(gallery_embedding, "reembed", reembed)

    return install


def _embedded(catalogue, *added) -> GalleryImage:
    image = factories.add(catalogue, *added)
    indexing.embed_waiting(catalogue.pk)
    return image


def _moved_here(catalogue) -> None:
    other = factories.catalogue(owner=catalogue.owner)
    product_moving.move([_embedded(other, "coffee", 2).product], catalogue)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("come", [lambda here: _embedded(here, "coffee", 2), _moved_here])
@pytest.mark.parametrize("stocked", [True, False])
def test_another_crop_policy_reaches_what_comes_meanwhile(
    catalogue, stub_engine, meanwhile, come, stocked
):
    if stocked:
        _embedded(catalogue, "tea", 1)
    meanwhile(lambda: come(Catalogue.objects.get(pk=catalogue.pk)))
    catalogues.change(catalogue, crop_policy="both")
    assert set(catalogue.images.values_list("state", flat=True)) == {State.PENDING}
    indexing.embed_waiting(catalogue.pk)
    late = catalogue.images.get(product__label="coffee")
    assert set(Embedding.objects.filter(image=late).values_list("view", flat=True)) == {0, 1}


@pytest.mark.django_db(transaction=True)
def test_it_waits_for_nobody_who_works_on_what_came_meanwhile(catalogue, stub_engine, meanwhile):
    early = _embedded(catalogue, "tea", 1)
    held, done = Event(), Event()

    def hold() -> None:
        try:
            with transaction.atomic():
                GalleryImage.objects.select_for_update(no_key=True).get(product__label="coffee")
                held.set()
                assert done.wait(60)
        finally:
            held.set()
            connection.close()

    with ThreadPoolExecutor(1) as pool:

        def come() -> None:
            _embedded(catalogue, "coffee", 2)
            pool.submit(hold)
            assert held.wait(60)

        meanwhile(come)
        try:
            with pytest.raises(Conflict, match="changes pictures") as caught:
                catalogues.change(Catalogue.objects.get(), crop_policy="both")
        finally:
            done.set()
    assert caught.value.field == "crop_policy"
    early.refresh_from_db()
    assert (early.state, Catalogue.objects.get().crop_policy) == (State.DONE, "whole")


def test_what_is_no_setting_is_refused(catalogue, user):
    with pytest.raises(BadInput) as caught:
        catalogues.change(catalogue, owner=user)
    assert caught.value.field == "owner"


def test_it_is_found_by_key_and_by_name_only_by_members(catalogue, user):
    stranger = factories.user()
    assert catalogues.find(str(catalogue.key), user=user) == catalogue
    assert catalogues.find(catalogue.name) == catalogue
    with pytest.raises(NotFound):
        catalogues.find(str(catalogue.key), user=stranger)


def test_a_name_of_several_owners_must_be_told_apart(catalogue):
    factories.catalogue(name=catalogue.name)
    with pytest.raises(Conflict, match=str(catalogue.key)):
        catalogues.find(catalogue.name)


def test_removing_it_removes_everything_in_it(catalogue, stub_engine, run_tasks, media):
    with run_tasks():
        factories.add(catalogue, "tea")
    with run_tasks():
        catalogues.remove(catalogue)
    assert not Embedding.objects.exists()
    assert not GalleryImage.objects.exists()
    assert not [path for path in media.rglob("*") if path.is_file()]


@pytest.mark.parametrize(("times", "removed"), [(1, True), (99, False)])
def test_what_somebody_adds_in_the_middle_goes_too(catalogue, monkeypatch, times, removed):
    lock, left = catalogues._locked, iter(range(times))

    def late(rows, **options):
        found = lock(rows, **options)
        if rows.model is GalleryImage and (n := next(left, None)) is not None:
            factories.add(catalogue, f"late {n}", n)
        return found

    monkeypatch.setattr(catalogues, "_locked", late)
    if removed:
        catalogues.remove(catalogue)
    else:
        with pytest.raises(Conflict, match="goes on"):
            catalogues.remove(catalogue)
    assert Catalogue.objects.filter(pk=catalogue.pk).exists() != removed


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("needed", Role)
def test_a_role_includes_the_lower_ones(catalogue, role, needed):
    member = factories.member(catalogue, role)
    allowed = Catalogue.objects.with_role(member, needed).exists()
    assert allowed == (Role(role).rank >= Role(needed).rank)


def test_a_token_never_grants_more_than_its_ceiling(catalogue, user):
    user.token, _ = tokens.create(user, "till", role=Role.VIEWER)
    assert Catalogue.objects.visible_to(user).exists()
    assert not Catalogue.objects.editable_by(user).exists()


def test_a_token_for_another_catalogue_does_not_open_this_one(catalogue, user):
    other = factories.catalogue(owner=user)
    user.token, _ = tokens.create(user, "till", catalogues=[other])
    assert list(Catalogue.objects.visible_to(user)) == [other]


def test_nobody_sees_nothing(catalogue):
    from django.contrib.auth.models import AnonymousUser

    assert not Catalogue.objects.visible_to(AnonymousUser()).exists()


def test_another_metric_takes_the_threshold_along(catalogue):
    catalogues.change(catalogue, rec_threshold=0.6)
    catalogues.change(catalogue, metric="L2")
    catalogue.refresh_from_db()
    assert catalogue.rec_threshold == pytest.approx(0.8)  # 2 - 2 * 0.6
    catalogues.change(catalogue, metric="IP", rec_threshold=0.7)
    catalogue.refresh_from_db()
    assert (catalogue.rec_threshold, catalogue.require_index().metric) == (0.7, "IP")


def test_a_change_begins_where_another_ended(catalogue):
    catalogues.change(catalogue, rec_threshold=0.6)
    seen_before = Catalogue.objects.select_related("index").get(pk=catalogue.pk)
    catalogues.change(catalogue, metric="L2")
    index_jobs.change(catalogue, m=32)
    catalogues.change(seen_before, metric="cosine", index_type="IVF")
    catalogue = Catalogue.objects.get(pk=catalogue.pk)
    assert catalogue.rec_threshold == pytest.approx(0.6)  # translated from L2, not from IP
    index = catalogue.require_index()
    assert (index.metric, index.index_type, index.m) == ("cosine", "IVF", 32)
