"""Products by the dozen: upserted, changed, moved, merged, split; the trash; names and filters."""

from __future__ import annotations

import json

import pytest

from recognition.models import AuditEntry, Product, Role
from recognition.services import products, queries
from tests import factories


@pytest.fixture
def send(editor, url):
    """`send("products", "upsert", products=[...])` posts JSON as an editor."""
    return lambda *parts, **body: editor.post(url(*parts), body, format="json")


@pytest.fixture
def make(catalogue):
    return lambda label, **fields: products.create(catalogue, label, **fields)


# --- Upsert ---------------------------------------------------------------------------------------


def test_many_are_made_and_changed_by_ones_own_ids(send, make):
    tea = make("tea", external_id="1")
    make("coffee", external_id="2")
    answer = send(
        "products",
        "upsert",
        products=[
            {"external_id": "1", "price": "1.5", "currency": "eur"},
            {"external_id": "2", "label": "coffee"},
            {"external_id": "3", "label": "juice"},
        ],
    )
    assert answer.status_code == 200, answer.content
    body = answer.json()
    assert [one["result"] for one in body["results"]] == ["changed", "unchanged", "created"]
    assert (body["created"], body["changed"], body["unchanged"], body["failed"]) == (1, 1, 1, 0)
    assert body["results"][0]["product"] == tea.pk
    tea.refresh_from_db()
    assert (str(tea.price), tea.currency, tea.label) == ("1.5000", "EUR", "tea")


def test_what_is_wrong_with_one_does_not_stop_the_others(send, make):
    make("tea", external_id="1")
    wrong = [
        {"label": "no id"},
        {"external_id": "x"},
        {"external_id": "y", "label": "tea"},
        {"external_id": "z", "label": "z", "price": "free", "currency": "EUR"},
        {"external_id": "ok", "label": "ok", "colour": "red"},
        {"external_id": ["a"], "label": "a"},
    ]
    answer = send("products", "upsert", products=[*wrong, {"external_id": "w", "label": "w"}])
    body = answer.json()
    assert (body["failed"], body["created"]) == (len(wrong), 1)
    fields = [one["error"]["field"] for one in body["results"][:-1]]
    assert fields == ["external_id", "label", "label", "price", "colour", "external_id"]
    assert Product.objects.count() == 2


def test_a_field_that_is_no_text_is_named_as_it_was_written(editor, url):
    body = (
        rb'{"products": [{"external_id": "1", "label": "tea"}, {"external_id": "2", "\ud800": 1}]}'
    )
    answer = editor.post(url("products", "upsert"), body, content_type="application/json")
    assert answer.status_code == 200, answer.content
    made, refused = answer.json()["results"]
    assert made["result"] == "created"
    assert refused["error"]["field"] == r"\ud800"


# --- Many at once ---------------------------------------------------------------------------------


def test_many_are_made_inactive(send, make):
    rows = [make(label) for label in "abc"]
    ids = [row.pk for row in rows[:2]]
    assert send("products", "change", products=ids, is_active=False).json() == {"changed": 2}
    assert send("products", "change", products=ids, is_active=False).json() == {"changed": 0}
    assert list(Product.objects.filter(is_active=True)) == rows[2:]
    assert send("products", "change", products=ids, label="x").status_code == 400


def test_all_or_none(send, make):
    ids = [make("a").pk, 2**40]
    for act in ("change", "remove"):
        assert send("products", act, products=ids, is_active=False).status_code in (400, 404)
        assert send("products", act, products=ids).status_code == 404
    assert Product.objects.get().is_active


# --- Merge and split ------------------------------------------------------------------------------


def test_merged_products_lead_on(send, editor, url, catalogue):
    tea, green = (factories.add(catalogue, label, at).product for at, label in enumerate("tg"))
    body = send("products", tea.pk, "merge", products=[green.pk]).json()
    assert (body["id"], body["image_count"]) == (tea.pk, 2)
    assert editor.get(url("products", green.pk)).json()["id"] == tea.pk
    assert send("products", tea.pk, "merge", products=[tea.pk]).status_code == 400
    assert send("products", tea.pk, "merge", products=[green.pk]).status_code == 404
    refused = editor.patch(url("products", green.pk), {"sku": "1"}, format="json")
    assert refused.status_code == 404
    assert f"merged into product {tea.pk}" in refused.json()["error"]["message"]


def test_a_merge_shows_in_the_very_next_answer(send, editor, catalogue, stub_engine, run_tasks):
    with run_tasks():
        old = factories.add(catalogue, "old", 1).product
        new = factories.add(catalogue, "new", 2).product
    send("products", new.pk, "merge", products=[old.pk])
    with run_tasks():
        query = queries.submit(catalogue, factories.picture(1), by=None)
    [detection] = editor.get(f"/api/v1/recognitions/{query.key}").json()["detections"]
    assert detection["matches"][0]["label"] == "new"


def test_some_images_become_another_product(send, editor, catalogue):
    keep, give = factories.add(catalogue, "tea", 1), factories.add(catalogue, "tea", 2)
    answer = send("products", keep.product_id, "split", images=[give.number], label="matcha")
    assert answer.status_code == 201, answer.content
    assert (answer.json()["label"], answer.json()["image_count"]) == ("matcha", 1)
    assert editor.get(answer["Location"]).json() == answer.json()
    again = send("products", keep.product_id, "split", images=[give.number], label="x")
    assert again.status_code == 400


# --- To another catalogue -------------------------------------------------------------------------


def test_products_move_to_a_catalogue_one_edits(api, url, catalogue):
    image = factories.add(catalogue, "tea", 1)
    client = api(catalogue.owner)
    other = factories.catalogue(owner=catalogue.owner)
    body = {"products": [image.product_id], "catalogue": str(other.key)}
    answer = client.post(url("products", "move"), body, format="json")
    assert answer.json() == {"moved": 1}
    assert other.images.get().product.label == "tea"
    actions = set(AuditEntry.objects.values_list("action", flat=True))
    assert {"product.move_in", "product.move_out"} <= actions


@pytest.mark.parametrize(("role", "status"), [(None, 404), (Role.VIEWER, 403)])
def test_but_not_to_one_that_one_does_not_edit(api, url, catalogue, role, status):
    editor = factories.member(catalogue, Role.EDITOR)
    image = factories.add(catalogue, "tea", 1)
    other = factories.catalogue()
    if role:
        other.memberships.create(user=editor, role=role)
    body = {"products": [image.product_id], "catalogue": str(other.key)}
    answer = api(editor).post(url("products", "move"), body, format="json")
    assert answer.status_code == status
    assert not other.images.exists()


def test_a_label_taken_there_stops_the_move(api, url, catalogue):
    tea = factories.add(catalogue, "tea", 1).product
    other = factories.catalogue(owner=catalogue.owner)
    products.create(other, "tea")
    body = {"products": [tea.pk], "catalogue": str(other.key)}
    answer = api(catalogue.owner).post(url("products", "move"), body, format="json")
    assert answer.status_code == 409 and "label" in answer.json()["error"]["fields"]


# --- The trash ------------------------------------------------------------------------------------


def test_out_of_the_trash_again(send, editor, url, catalogue):
    product = factories.add(catalogue, "tea", 1).product
    assert send("products", "remove", products=[product.pk]).json() == {"removed": 1}
    assert editor.get(url("products")).json()["results"] == []
    [removed] = editor.get(url("trash")).json()["results"]
    assert (removed["id"], removed["label"], removed["image_count"]) == (product.pk, "tea", 1)
    restored = send("trash", product.pk, "restore").json()
    assert (restored["id"], restored["image_count"]) == (product.pk, 1)
    assert editor.get(url("trash")).json()["results"] == []
    assert send("trash", product.pk, "restore").status_code == 404


def test_a_label_taken_meanwhile(send, make):
    old = make("tea")
    send("products", "remove", products=[old.pk])
    make("tea")
    assert send("trash", old.pk, "restore").status_code == 409
    assert send("trash", old.pk, "restore", label="old tea").json()["label"] == "old tea"


def test_purged_for_good(manager, send, url, make):
    product = make("tea")
    send("products", "remove", products=[product.pk])
    assert manager.delete(url("trash", product.pk)).status_code == 204
    assert not Product.everything.filter(pk=product.pk).exists()
    assert manager.delete(url("trash", product.pk)).status_code == 404


def test_what_lives_is_not_purged(manager, url, make):
    product = make("tea")
    assert manager.delete(url("trash", product.pk)).status_code == 404
    assert Product.objects.get() == product


# --- Names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ("zh-Hans-CN, en;q=0.5", "绿茶"),
        ("en-GB", "Green tea"),
        ("fr, en;q=0.3", "Green tea"),
        ("fr", "tea 500"),
        ("en;q=0, zh", "绿茶"),
        ("*", "tea 500"),
        ("§$%;q=q", "tea 500"),
        ("", "tea 500"),
    ],
)
def test_its_name_in_the_readers_language(editor, url, make, wanted, name):
    product = make("tea 500", names={"en": "Green tea", "zh-Hans": "绿茶"})
    answer = editor.get(url("products", product.pk), headers={"Accept-Language": wanted})
    assert answer.json()["name"] == name


def test_the_version_is_the_same_in_every_language(editor, url, make):
    product = make("tea", names={"en": "Tea", "de": "Tee"})
    tags = {
        editor.get(url("products", product.pk), headers={"Accept-Language": tag})["ETag"]
        for tag in ("en", "de", "fr")
    }
    assert len(tags) == 1


# --- Filters --------------------------------------------------------------------------------------


@pytest.fixture
def shelf(make):
    make("small", attributes={"ml": 250, "tags": ["sweet", "new"], "colour": "red"})
    make("big", attributes={"ml": 1000, "organic": True, "colour": "green"}, is_active=False)
    make("odd", attributes={"ml": "500"})


@pytest.mark.parametrize(
    ("condition", "labels"),
    [
        (("ml", ">=", 300), ["big"]),
        (("ml", "<", 1000), ["small"]),
        (("ml", "=", "500"), ["odd"]),
        (("ml", "!=", 250), ["big"]),
        (("ml", "in", [250, "500"]), ["odd", "small"]),
        (("tags", "contains", "sweet"), ["small"]),
        (("organic", "=", True), ["big"]),
        (("organic", "exists", False), ["odd", "small"]),
        (("colour", ">", "h"), ["small"]),
    ],
)
def test_attributes_are_compared_within_their_type(editor, url, shelf, condition, labels):
    text = json.dumps([dict(zip(("name", "operator", "value"), condition, strict=True))])
    page = editor.get(url("products"), {"attributes": text}).json()
    assert [product["label"] for product in page["results"]] == labels


def test_every_condition_must_hold(editor, url, shelf):
    text = json.dumps(
        [
            {"name": "ml", "operator": ">=", "value": 100},
            {"name": "colour", "operator": "=", "value": "red"},
        ]
    )
    [found] = editor.get(url("products"), {"attributes": text}).json()["results"]
    assert found["label"] == "small"


@pytest.mark.parametrize(
    "text",
    [
        "ml>500",
        "[" * 5000,
        "3",
        '[{"name": "ml"}]',
        '[{"name": "ml", "operator": "~", "value": 1}]',
        '[{"name": "ml", "operator": "=", "value": 1, "x": 1}]',
        '[{"name": "ml", "operator": "=", "value": null}]',
        '[{"name": "ml", "operator": "=", "value": [1]}]',
        '[{"name": "ml", "operator": "in", "value": 1}]',
        '[{"name": "ml", "operator": "in", "value": [[1]]}]',
        '[{"name": "ml", "operator": "exists", "value": 1}]',
        '[{"name": "ml", "operator": "=", "value": {"a": 1}}]',
        '[{"name": "ml", "operator": "=", "value": "\\u0000"}]',
        '[{"name": "ml", "operator": "=", "value": "\\ud800"}]',
        '[{"name": "\\ud800", "operator": "=", "value": 1}]',
        '[{"name": "ml", "operator": "=", "value": 1e999}]',
        '[{"name": "ml", "operator": "=", "value": NaN}]',
        json.dumps([{"name": "a", "operator": "=", "value": 1}] * 21),
    ],
    ids=lambda text: text[:60],
)
def test_a_condition_that_makes_no_sense(editor, url, text):
    answer = editor.get(url("products"), {"attributes": text})
    assert answer.status_code == 400, answer.content
