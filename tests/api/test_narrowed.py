"""Questions about some products only, or about several catalogues; more like this."""

from __future__ import annotations

import base64
import json

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from recognition.models import FeatureModel, RecognitionQuery, Role
from recognition.services import catalogues, products
from tests import factories


@pytest.fixture
def shelf(catalogue, stub_engine, run_tasks):
    """Three products with one image each: the number of the picture each was made from."""
    with run_tasks():
        for seed, (label, fields) in enumerate(
            {
                "tea": {"category": "drinks/tea", "attributes": {"ml": 500}},
                "coffee": {"category": "drinks", "attributes": {"ml": 250}},
                "soap": {"category": "home", "attributes": {"ml": "500"}},
            }.items()
        ):
            product = factories.add(catalogue, label, seed).product
            products.change(product, **fields)
    return {"tea": 0, "coffee": 1, "soap": 2}


@pytest.fixture
def ask(viewer, url, run_tasks):
    def post(seed: int = 0, **body) -> list[str]:
        """Labels of the answer, best first."""
        image = base64.b64encode(factories.png(seed)).decode()
        options = {"image": image, "rec_threshold": -1, **body}
        with run_tasks():
            asked = viewer.post(url("recognitions"), options, format="json")
        assert asked.status_code == 202, asked.content
        answer = viewer.get(asked["Location"]).json()
        assert answer["state"] == "done", answer["error"]
        return [match["label"] for match in answer["detections"][0]["matches"]]

    return post


@pytest.mark.parametrize(
    ("among", "labels"),
    [
        ({}, {"tea", "coffee", "soap"}),
        (None, {"tea", "coffee", "soap"}),
        ({"categories": ["drinks"]}, {"tea", "coffee"}),
        ({"categories": ["drinks/tea", "home"]}, {"tea", "soap"}),
        ({"attributes": [{"name": "ml", "operator": ">=", "value": 100}]}, {"tea", "coffee"}),
        ({"attributes": [{"name": "ml", "operator": "=", "value": "500"}]}, {"soap"}),
        ({"attributes": [{"name": "ml", "operator": "in", "value": [250, "500"]}]},
         {"coffee", "soap"}),
        ({"categories": ["drinks"], "attributes": [
            {"name": "ml", "operator": "<", "value": 300}]}, {"coffee"}),
        ({"products": []}, set()),
    ],
)  # fmt: skip
def test_only_some_products_may_be_the_answer(ask, shelf, among, labels):
    assert set(ask(among=among)) == labels


def test_only_these_products(ask, shelf, catalogue):
    coffee = catalogue.products.get(label="coffee")
    assert ask(shelf["tea"], among={"products": [coffee.pk]}) == ["coffee"]


def test_in_a_form_as_json(viewer, url, shelf, run_tasks):
    form = {
        "image": SimpleUploadedFile("a.png", factories.png(0)),
        "rec_threshold": "-1",
        "among": json.dumps({"categories": ["home"]}),
    }
    with run_tasks():
        asked = viewer.post(url("recognitions"), form, format="multipart")
    answer = viewer.get(asked["Location"]).json()
    assert answer["among"] == {"categories": ["home"]}
    assert [match["label"] for match in answer["detections"][0]["matches"]] == ["soap"]


@pytest.mark.parametrize(
    "among",
    [
        [],
        {"category": "drinks"},
        {"categories": "drinks"},
        {"categories": ["a\x00"]},
        {"products": [0]},
        {"products": [2**63]},
        {"attributes": [{"name": "ml", "operator": "like", "value": 1}]},
        {"attributes": [{"name": "ml", "operator": "=", "value": [1]}]},
        {"attributes": [{"name": "ml", "operator": "=", "value": "\ud800"}]},
        {"attributes": {"ml": 5}},
    ],
)
def test_a_condition_that_makes_no_sense(viewer, url, among):
    image = base64.b64encode(factories.png(1)).decode()
    body = json.dumps({"image": image, "among": among})
    answer = viewer.post(url("recognitions"), body, content_type="application/json")
    assert answer.status_code == 400, answer.content
    assert not RecognitionQuery.objects.exists()


# --- Several catalogues ---------------------------------------------------------------------------


@pytest.fixture
def other(catalogue, shelf, run_tasks):
    """Another catalogue of the same owner with a product of its own."""
    made = factories.catalogue(owner=catalogue.owner)
    with run_tasks():
        factories.add(made, "juice", 7)
    return made


@pytest.fixture
def ask_both(manager, url, other, run_tasks):
    def post(**body):
        image = base64.b64encode(factories.png(7)).decode()
        body = {"image": image, "rec_threshold": -1, "catalogues": [str(other.key)], **body}
        with run_tasks():
            return manager.post(url("recognitions"), body, format="json")

    return post


def test_several_catalogues_are_one_shelf(ask_both, manager, catalogue, other):
    answer = manager.get(ask_both()["Location"]).json()
    matches = answer["detections"][0]["matches"]
    assert {match["label"] for match in matches} == {"tea", "coffee", "soap", "juice"}
    assert (matches[0]["label"], matches[0]["catalogue"]) == ("juice", str(other.key))
    assert manager.get(matches[0]["image_url"]).status_code == 200
    assert answer["catalogues"] == [str(catalogue.key), str(other.key)]


def test_filtered_too(ask_both, manager, other):
    juice = other.products.get()
    answer = manager.get(ask_both(among={"products": [juice.pk]})["Location"]).json()
    assert [match["label"] for match in answer["detections"][0]["matches"]] == ["juice"]


def test_not_in_one_that_one_does_not_see(viewer, url, other):
    image = base64.b64encode(factories.png(7)).decode()
    body = {"image": image, "catalogues": [str(other.key)]}
    answer = viewer.post(url("recognitions"), body, format="json")
    assert list(answer.json()["error"]["fields"]) == ["catalogues"]


def test_who_sees_only_one_of_them_does_not_see_the_answer(ask_both, viewer, editor, url, other):
    address = ask_both()["Location"]
    for path in ("", "/picture", "/annotated"):
        assert viewer.get(address + path).status_code == 404
    assert viewer.delete(address).status_code == 404
    assert viewer.get(url("recognitions")).json()["results"] == []


def test_an_answer_goes_with_any_of_its_catalogues(ask_both, other):
    ask_both()
    catalogues.remove(other)
    assert not RecognitionQuery.objects.exists()


def test_only_ones_that_see_alike(ask_both, other):
    space = other.require_index()
    space.feature_model = FeatureModel.objects.create(name="x", digest="y", dimension=9)
    space.save()
    answer = ask_both()
    assert answer.status_code == 400
    assert "another feature model" in answer.json()["error"]["message"]


def test_one_that_switches_before_the_answer_fails_with_a_reason(
    manager, url, other, stub_engine, run_tasks
):
    image = base64.b64encode(factories.png(7)).decode()
    body = {"image": image, "catalogues": [str(other.key)]}
    asked = manager.post(url("recognitions"), body, format="json")
    space = other.require_index()
    space.feature_model = FeatureModel.objects.create(name="x", digest="y", dimension=9)
    space.save()
    with run_tasks():
        manager.post(url("recognitions"), {"image": image}, format="json")
    answer = manager.get(asked["Location"]).json()
    assert answer["state"] == "failed" and "switched" in answer["error"]
    states = {one["state"] for one in manager.get(url("recognitions")).json()["results"]}
    assert states == {"failed", "done"}  # its neighbour in the batch was answered


# --- Removed --------------------------------------------------------------------------------------


def test_ones_own_question_is_removed_with_its_picture(viewer, editor, url, media, run_tasks):
    body = {"image": base64.b64encode(factories.png(1)).decode()}
    asked = viewer.post(url("recognitions"), body, format="json")
    assert list(media.glob("queries/*/*"))
    assert editor.delete(asked["Location"]).status_code == 403
    with run_tasks():
        assert viewer.delete(asked["Location"]).status_code == 204
    assert viewer.get(asked["Location"]).status_code == 404
    assert not list(media.glob("queries/*/*"))


def test_not_while_it_is_being_answered(viewer, url):
    body = {"image": base64.b64encode(factories.png(1)).decode()}
    asked = viewer.post(url("recognitions"), body, format="json")
    RecognitionQuery.objects.update(state="running")
    assert viewer.delete(asked["Location"]).status_code == 409


# --- More like this -------------------------------------------------------------------------------


def _labels(answer) -> list[str]:
    assert answer.status_code == 200, answer.content
    return [one["label"] for one in answer.json()["results"]]


def test_other_products_like_this_one(viewer, url, shelf, catalogue, django_assert_max_num_queries):
    with django_assert_max_num_queries(8):
        answer = viewer.get(url("images", 0, "similar"))
    assert set(_labels(answer)) == {"coffee", "soap"}
    scores = [one["score"] for one in answer.json()["results"]]
    assert scores == sorted(scores, reverse=True)
    first = answer.json()["results"][0]
    assert viewer.get(first["image_url"]).status_code == 200


def test_other_images_like_this_one(viewer, url, shelf, catalogue, run_tasks):
    with run_tasks():
        factories.add(catalogue, "tea", 9)
    answer = viewer.get(url("images", 0, "similar"), {"per_product": "false"})
    assert sorted(_labels(answer)) == ["coffee", "soap", "tea"]
    assert 0 not in [one["image"] for one in answer.json()["results"]]


def test_page_by_page(viewer, url, shelf, catalogue, run_tasks):
    with run_tasks():
        for seed in range(10, 17):
            factories.add(catalogue, f"p{seed}", seed)
    whole = _labels(viewer.get(url("images", 0, "similar")))
    assert len(whole) == 9
    seen, address = [], url("images", 0, "similar") + "?limit=4"
    while address:
        page = viewer.get(address)
        seen += _labels(page)
        last, address = page, page.json()["next"]
    assert seen == whole
    assert _labels(viewer.get(last.json()["previous"])) == whole[4:8]


def test_narrowed(viewer, url, shelf):
    address = url("images", 0, "similar")
    assert _labels(viewer.get(address, {"category": "home"})) == ["soap"]
    assert set(_labels(viewer.get(address, {"category": ["home", "drinks"]}))) == {"soap", "coffee"}
    condition = json.dumps([{"name": "ml", "operator": "<", "value": 300}])
    assert _labels(viewer.get(address, {"attributes": condition})) == ["coffee"]


def test_in_another_catalogue_too(manager, viewer, url, other):
    query = {"catalogue": str(other.key)}
    assert "juice" in _labels(manager.get(url("images", 0, "similar"), query))
    assert viewer.get(url("images", 0, "similar"), query).status_code == 400


@pytest.mark.parametrize(
    "query", [{"limit": 0}, {"limit": 999}, {"offset": -1}, {"offset": 10**6}, {"catalogue": "x"},
              {"attributes": "x"}],
)  # fmt: skip
def test_a_wrong_wish(viewer, url, shelf, query):
    assert viewer.get(url("images", 0, "similar"), query).status_code == 400


def test_before_it_has_a_vector(viewer, url, catalogue):
    image = factories.add(catalogue, "tea", 1)
    answer = viewer.get(url("images", image.number, "similar"))
    assert answer.status_code == 409
    assert "pending" in answer.json()["error"]["message"]


def test_names_in_the_readers_language(viewer, url, shelf, catalogue, ask):
    tea = catalogue.products.get(label="tea")
    products.change(tea, names={"de": "Tee"})
    ask(shelf["tea"])
    [query] = viewer.get(url("recognitions"), headers={"Accept-Language": "de"}).json()["results"]
    best = query["detections"][0]["matches"][0]
    assert (best["label"], best["name"]) == ("tea", "Tee")


def test_roles_in_the_other_catalogue_do_not_matter_beyond_seeing(api, url, catalogue, other):
    member = factories.member(catalogue, Role.VIEWER)
    other.memberships.create(user=member, role=Role.VIEWER)
    image = base64.b64encode(factories.png(7)).decode()
    body = {"image": image, "catalogues": [str(other.key)]}
    assert api(member).post(url("recognitions"), body, format="json").status_code == 202
