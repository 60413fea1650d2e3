"""Who is not a member learns nothing, not even that a catalogue is there."""

from __future__ import annotations

import uuid

import pytest
from django.urls import get_resolver, reverse

from tests import factories

OPEN = {
    "favicon",
    "login",
    "logout",
    "set_language",
    "home",
    "account",
    "invitation",
    "password-change",
    "password-forgotten",
    "password-reset",
    "password-sent",
    "provider-back",
    "provider-begin",
}
# Every page and picture below a catalogue. A new address without an entry here fails a test.
CLOSED = {
    "recognise": lambda c, q, i: [c.key],
    "gallery": lambda c, q, i: [c.key],
    "product": lambda c, q, i: [c.key, i.product_id],
    "gallery-picture": lambda c, q, i: [c.key, i.number],
    "gallery-thumbnail": lambda c, q, i: [c.key, i.number, 160],
    "transfer": lambda c, q, i: [c.key],
    "recognition": lambda c, q, i: [q.key],
    "query-picture": lambda c, q, i: [q.key],
    "query-preview": lambda c, q, i: [q.key, 1280],
}
PICTURES = {"gallery-picture", "gallery-thumbnail", "query-picture", "query-preview"}


@pytest.fixture
def address(catalogue, waiting):
    image = catalogue.images.get()
    return lambda name: reverse(name, args=CLOSED[name](catalogue, waiting, image))


def test_every_address_has_an_entry():
    from recognition.web.urls import urlpatterns

    assert {pattern.name for pattern in urlpatterns} == OPEN | set(CLOSED)
    assert get_resolver().reverse_dict


@pytest.mark.parametrize("name", CLOSED)
def test_a_member_is_let_in(member, address, name):
    assert member.get(address(name)).status_code == 200


@pytest.mark.parametrize("name", CLOSED)
def test_an_outsider_gets_404(browser, address, name):
    assert browser(factories.user("eve")).get(address(name)).status_code == 404


@pytest.mark.parametrize("name", CLOSED)
def test_staff_are_outsiders_here(browser, address, name):
    root = factories.user("root", is_staff=True, is_superuser=True)
    assert browser(root).get(address(name)).status_code == 404


@pytest.mark.parametrize("name", CLOSED)
def test_nobody_signs_in_first_and_gets_no_picture(browser, address, name):
    response = browser().get(address(name))
    if name in PICTURES:
        assert response.status_code == 404
    else:
        assert response.status_code == 302
        assert response["Location"] == f"{reverse('login')}?next={address(name)}"


def test_an_outsider_cannot_ask(browser, catalogue):
    eve = browser(factories.user("eve"))
    assert eve.post(reverse("recognise", args=[catalogue.key])).status_code == 404


def test_a_member_cannot_ask_another_catalogue_by_its_key(member, catalogue):
    from tests.web.conftest import upload

    other = factories.catalogue()
    response = member.post(
        reverse("recognise", args=[catalogue.key]), {"catalogue": other.key, "picture": upload()}
    )
    assert response.status_code == 422
    assert not other.queries.exists()


def test_a_catalogue_that_is_not_there_looks_like_a_closed_one(member):
    assert member.get(reverse("recognise", args=[uuid.uuid4()])).status_code == 404


def test_a_product_of_another_catalogue_is_not_shown(member, catalogue):
    other = factories.add(factories.catalogue(), "oolong", 5).product
    assert member.get(reverse("product", args=[catalogue.key, other.pk])).status_code == 404
