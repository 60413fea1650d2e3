"""Catalogues: made, read, changed, counted, removed."""

from __future__ import annotations

import pytest

from recognition.models import Catalogue, Membership, Role
from tests import factories

LIST = "/api/v1/catalogues"


@pytest.fixture
def make(manager):
    factories.feature_model()

    def post(**body):
        body = {"name": "Drinks", "feature_model": "stub_rec", "detector": ""} | body
        return manager.post(LIST, body, format="json")

    return post


def test_who_makes_one_manages_it(make, user):
    response = make(metric="L2", top_k=3, description="team A")
    assert response.status_code == 201, response.content
    body = response.json()
    assert body["role"] == "manager" and body["owner"] == user.username
    assert (body["metric"], body["top_k"], body["description"]) == ("L2", 3, "team A")
    assert body["feature_model"]["name"] == "stub_rec"
    assert response["Location"].endswith(f"{LIST}/{body['key']}")
    assert Membership.objects.get(catalogue__key=body["key"]).role == Role.MANAGER


def test_a_name_is_used_once_by_an_owner(make):
    assert make().status_code == 201
    response = make()
    assert response.status_code == 409
    assert "name" in response.json()["error"]["fields"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "x" * 121},
        {"name": "a\x00b"},
        {"metric": "cosinus"},
        {"index_type": "LSH"},
        {"top_k": 0},
        {"det_threshold": 1.5},
        {"rec_threshold": "nan"},
        {"crop_policy": "half"},
        {"shown_label": "price"},
        {"feature_model": "no-such-model"},
        {"feature_model": "../../etc"},
        {"detector": "no-such-detector"},
        {"treshold": 0.5},
    ],
    ids=str,
)
def test_a_wrong_setting_is_named(make, wrong):
    response = make(**wrong)
    assert response.status_code == 400, response.content
    assert list(response.json()["error"]["fields"]) == list(wrong)
    assert not Catalogue.objects.filter(name="Drinks").exists()


def test_a_token_with_a_ceiling_makes_none(with_token, user, db):
    factories.feature_model()
    body = {"name": "x", "feature_model": "stub_rec", "detector": ""}
    assert with_token(user, role="editor").post(LIST, body, format="json").status_code == 403
    assert with_token(user).post(LIST, body, format="json").status_code == 201


def test_it_is_read(viewer, url, catalogue):
    body = viewer.get(url()).json()
    assert body["key"] == str(catalogue.key)
    assert body["role"] == "viewer"


def test_settings_are_changed(manager, url, catalogue):
    response = manager.patch(
        url(), {"name": "New", "metric": "cosine", "rec_threshold": None}, format="json"
    )
    assert response.status_code == 200, response.content
    catalogue.refresh_from_db()
    catalogue.index.refresh_from_db()
    assert (catalogue.name, catalogue.index.metric) == ("New", "cosine")
    assert response.json() == manager.get(url()).json()


def test_what_is_chosen_once_is_not_changed(manager, url):
    response = manager.patch(url(), {"feature_model": "other"}, format="json")
    assert response.status_code == 400


def test_they_are_searched_and_ordered(manager, user):
    for name in ("b tea", "a tea", "coffee"):
        factories.catalogue(owner=user, name=name)
    page = manager.get(LIST, {"search": "TEA"}).json()["results"]
    assert [one["name"] for one in page] == ["a tea", "b tea"]
    page = manager.get(LIST, {"ordering": "-name", "search": "tea"}).json()["results"]
    assert [one["name"] for one in page] == ["b tea", "a tea"]


def test_figures(manager, url, catalogue, stub_engine, run_tasks):
    with run_tasks():
        factories.add(catalogue, "tea", 1)
        factories.add(catalogue, "tea", 2)
        factories.add(catalogue, "coffee", 3)
    failed = factories.add(catalogue, "coffee", 4)
    factories.ended(failed, "failed", error="no")
    body = manager.get(url("statistics")).json()
    assert body["products"] == 2
    assert body["images"] == {"pending": 0, "running": 0, "done": 3, "failed": 1}
    assert body["vectors"] == 3
    assert body["bytes"] == sum(len(factories.png(seed)) for seed in (1, 2, 3, 4))
    catalogue.refresh_from_db()
    assert body["version"] == catalogue.version


def test_it_is_removed(manager, url, catalogue):
    factories.add(catalogue, "tea", 1)
    assert manager.delete(url()).status_code == 204
    assert manager.get(url()).status_code == 404
