"""Products: made, found, renamed, removed."""

from __future__ import annotations

import pytest

from recognition.models import Product
from recognition.services import queries
from tests import factories


@pytest.fixture
def make(editor, url):
    return lambda **body: editor.post(url("products"), body, format="json")


def test_it_is_made_without_images(make, editor):
    response = make(label=" 绿茶 500 ml ", category="drinks/tea", attributes={"ml": 500})
    assert response.status_code == 201, response.content
    body = response.json()
    assert (body["label"], body["image_count"], body["is_active"]) == ("绿茶 500 ml", 0, True)
    assert body["attributes"] == {"ml": 500}
    assert editor.get(response["Location"]).json() == body


@pytest.mark.parametrize(
    "body",
    [
        b'{"label": "tea", "attributes": {"a": "\\ud800"}}',
        b'{"label": "tea", "attributes": {"\\ud800": 1}}',
        b'{"label": "tea", "names": {"\\ud800": "x"}}',
        b'{"label": "tea", "names": {"\\ud800": 1}}',
        b'{"label": "tea", "\\ud800": 1}',
        b'{"label": "\\ud800"}',
        b'{"label": "tea", "category": "\\u0000"}',
        b'{"label": "tea", "price": 1e999, "currency": "EUR"}',
        b'{"label": "tea", "attributes": {"a": 1e400}}',
    ],
)
def test_what_no_database_can_store_is_refused(editor, url, body):
    response = editor.generic("POST", url("products"), body, content_type="application/json")
    assert response.status_code == 400, response.content
    assert not Product.objects.exists()


def test_with_everything_that_can_be_said_about_it(make):
    said = {
        "label": "tea",
        "external_id": "till-7",
        "names": {"en": "Tea", "zh-Hans": "茶"},
        "sku": "T-1",
        "barcode": "4006381333931",
        "price": "1.9900",
        "currency": "EUR",
        "description": "Green.\nLoose.",
        "category": "drinks/tea",
        "attributes": {"ml": 500, "organic": True, "tags": ["a", "b"]},
        "is_active": False,
    }
    body = make(**said).json()
    assert {name: body[name] for name in said} == said


def test_an_external_id_is_used_once(make, editor, url):
    product = make(label="tea", external_id="7").json()
    response = make(label="coffee", external_id="7")
    assert response.status_code == 409
    assert list(response.json()["error"]["fields"]) == ["external_id"]
    [found] = editor.get(url("products"), {"external_id": "7"}).json()["results"]
    assert found["id"] == product["id"]


def test_a_merged_ones_id_leads_on(make, editor, url, catalogue):
    from recognition.services import product_merging, products

    old, new = (make(label=label).json()["id"] for label in ("old", "new"))
    product_merging.merge([products.find(catalogue, old)], products.find(catalogue, new))
    for asked in (old, new):
        answer = editor.get(url("products", asked), {"fields": "label"})
        assert answer.json() == {"label": "new"}
        assert answer["Content-Location"] == f"http://testserver{url('products', new)}"
    assert editor.get(url("products", old)).json()["id"] == new
    assert editor.patch(url("products", old), {"sku": "1"}, format="json").status_code == 404


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"label": ""}, "label"),
        ({"label": "a\nb"}, "label"),
        ({"label": "x" * 256}, "label"),
        ({"category": "x" * 256}, "category"),
        ({"attributes": []}, "attributes"),
        ({"attributes": {"a": "\x00"}}, "attributes"),
        ({"attributes": {"a": {"b": 1}}}, "attributes"),
        ({"names": {"not a language": "tea"}}, "names"),
        ({"names": {"en": "a\x00"}}, "names.en"),
        ({"price": "NaN", "currency": "EUR"}, "price"),
        ({"price": "-1", "currency": "EUR"}, "price"),
        ({"price": 1}, "currency"),
        ({"currency": "XXY"}, "currency"),
        ({"sku": "a\nb"}, "sku"),
        ({"is_active": "maybe"}, "is_active"),
        ({"lable": "x"}, "lable"),
    ],
    ids=lambda part: str(part)[:40],
)
def test_a_wrong_field_is_named(make, wrong, field):
    response = make(**{"label": "tea"} | wrong)
    assert response.status_code == 400, response.content
    assert list(response.json()["error"]["fields"]) == [field]
    assert not Product.objects.exists()


def test_a_label_is_used_once(make, editor, url):
    first = make(label="tea").json()
    assert make(label="tea").status_code == 409
    other = make(label="coffee").json()
    response = editor.patch(url("products", other["id"]), {"label": "tea"}, format="json")
    assert response.status_code == 409
    assert editor.patch(url("products", first["id"]), {"label": "tea"}).status_code == 415
    again = editor.patch(url("products", first["id"]), {"label": "tea"}, format="json")
    assert again.status_code == 200


def test_a_new_label_is_in_the_very_next_answer(editor, url, catalogue, stub_engine, run_tasks):
    with run_tasks():
        image = factories.add(catalogue, "tea", 1)
    before = catalogue.version
    response = editor.patch(url("products", image.product_id), {"label": "茶"}, format="json")
    assert response.status_code == 200
    with run_tasks():
        query = queries.submit(catalogue, factories.picture(1), by=None)
    answer = editor.get(f"/api/v1/recognitions/{query.key}").json()
    assert answer["detections"][0]["matches"][0]["label"] == "茶"
    assert answer["catalogue_version"] > before


def test_they_are_found(make, editor, url):
    make(label="green tea", category="drinks/tea")
    make(label="coffee", category="drinks")
    make(label="teapot", category="drinksware", is_active=False)

    def found(**query) -> list[str]:
        page = editor.get(url("products"), query).json()["results"]
        return [product["label"] for product in page]

    assert found(search="TEA") == ["green tea", "teapot"]
    assert found(label="coffee") == ["coffee"]
    assert found(category="drinks") == ["coffee", "green tea"]
    assert found(is_active="false") == ["teapot"]
    assert found(changed_after="2999-01-01T00:00:00Z") == []
    assert editor.get(url("products"), {"changed_after": "yesterday"}).status_code == 400
    assert editor.get(url("products"), {"label": "a\x00"}).status_code == 400


def test_its_images_are_counted(editor, url, catalogue):
    factories.add(catalogue, "tea", 1)
    image = factories.add(catalogue, "tea", 2)
    assert editor.get(url("products", image.product_id)).json()["image_count"] == 2


def test_it_is_removed_with_its_images(editor, url, catalogue):
    image = factories.add(catalogue, "tea", 1)
    assert editor.delete(url("products", image.product_id)).status_code == 204
    assert editor.get(url("images", image.number)).status_code == 404
    assert editor.delete(url("products", image.product_id)).status_code == 404


@pytest.mark.parametrize("number", ["0", "9" * 30, "9" * 5000])
def test_a_number_that_is_none(editor, url, number):
    assert editor.get(url("products", number)).status_code == 404
