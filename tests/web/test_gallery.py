"""Looking through a catalogue."""

from __future__ import annotations

from django.urls import reverse

from recognition.services import products
from recognition.web import views
from tests import factories


def test_products_with_a_picture_each(member, catalogue):
    first = factories.add(catalogue, "green tea", 1)
    factories.add(catalogue, "green tea", 2)
    text = member.get(reverse("gallery", args=[catalogue.key])).content.decode()
    assert "green tea" in text
    assert "2 pictures" in text
    assert reverse("gallery-thumbnail", args=[catalogue.key, first.number, 480]) in text


def test_each_picture_is_as_large_as_the_screen_needs(member, catalogue):
    image = factories.add(catalogue, "green tea", 1)
    small, large = (
        reverse("gallery-thumbnail", args=[catalogue.key, image.number, side])
        for side in (160, 480)
    )
    for address in (
        reverse("gallery", args=[catalogue.key]),
        reverse("product", args=[catalogue.key, image.product_id]),
    ):
        text = member.get(address).content.decode()
        assert f'srcset="{small} 160w, {large} 480w"' in text
        assert 'width="240" height="240" loading="lazy"' in text


def test_found_by_label(member, catalogue):
    for number, label in enumerate(["green tea", "绿茶", "coffee"]):
        factories.add(catalogue, label, number)
    for text, expected in (("TEA", ["green tea"]), ("绿", ["绿茶"]), ("x", [])):
        response = member.get(reverse("gallery", args=[catalogue.key]), {"q": text})
        assert [product.label for product in response.context["page"]] == expected


def test_found_by_name_category_and_ids(member, catalogue):
    products.create(
        catalogue,
        "tea-1",
        names={"zh-Hans": "绿茶", "en": "green tea"},
        category="drinks/hot",
        sku="AB-77",
        barcode="4006381",
        external_id="own-9",
    )
    products.create(catalogue, "coffee")
    for text in ("绿茶", "GREEN", "drinks/hot", "ab-77", "63", "own"):
        response = member.get(reverse("gallery", args=[catalogue.key]), {"q": text})
        assert [product.label for product in response.context["page"]] == ["tea-1"], text
    for text in ("zh-Hans", "$"):  # a language is no name
        response = member.get(reverse("gallery", args=[catalogue.key]), {"q": text})
        assert not len(response.context["page"])


def test_products_by_their_names_in_the_language_of_the_page(member, catalogue):
    tea = products.create(catalogue, "tea-1", names={"zh-Hans": "绿茶"})
    plain = products.create(catalogue, "plain")
    gallery, own = (
        reverse("gallery", args=[catalogue.key]),
        reverse("product", args=[catalogue.key, tea.pk]),
    )
    label = '<span class="label quiet">tea-1</span>'
    for address in (gallery, own):
        text = member.get(address, headers={"Accept-Language": "zh-hans"}).content.decode()
        assert "绿茶" in text and text.count(label) == 1
        text = member.get(address, headers={"Accept-Language": "en"}).content.decode()
        assert "绿茶" not in text and label not in text and "tea-1" in text
    address = reverse("product", args=[catalogue.key, plain.pk])
    text = member.get(address, headers={"Accept-Language": "zh-hans"}).content.decode()
    assert "<h1>plain</h1>" in text


def test_in_pages_that_keep_the_search(member, catalogue, monkeypatch):
    monkeypatch.setattr(views, "PER_PAGE", 2)
    for number in range(3):
        factories.add(catalogue, f"tea {number}", number)
    address = reverse("gallery", args=[catalogue.key])
    text = member.get(address, {"q": "tea"}).content.decode()
    assert "page 1 of 2" in text
    assert 'href="?q=tea&amp;page=2"' in text
    assert len(member.get(address, {"q": "tea", "page": 2}).context["page"]) == 1


def test_few_queries_however_many(member, catalogue, django_assert_max_num_queries):
    for number in range(9):
        factories.add(catalogue, f"tea {number}", number)
    with django_assert_max_num_queries(6):
        member.get(reverse("gallery", args=[catalogue.key]))


def test_the_pictures_of_a_product_with_their_states(member, catalogue):
    image = factories.add(catalogue, "green tea", 1)
    factories.ended(image, "failed", error="it is torn")
    address = reverse("product", args=[catalogue.key, image.product_id])
    text = member.get(address).content.decode()
    assert "it is torn" in text
    assert reverse("gallery-picture", args=[catalogue.key, image.number]) in text
