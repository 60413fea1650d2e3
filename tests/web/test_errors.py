"""What is wrong is said in the site's own pages, with a way home."""

from __future__ import annotations

import pytest
from django.core.exceptions import PermissionDenied
from django.test import Client
from django.urls import reverse

from recognition.models import Catalogue
from recognition.web import views

CHINESE = {"Accept-Language": "zh-hans"}


@pytest.mark.parametrize("signed_in", [True, False])
def test_no_such_page(browser, user, signed_in):
    client = browser(user if signed_in else None)
    for headers, words in (({}, "There is no such page"), (CHINESE, "没有这个页面")):
        response = client.get("/nothing/here", headers=headers)
        page = response.content.decode()
        assert response.status_code == 404
        assert f"<h1>{words}</h1>" in page
        assert f'href="{reverse("home")}"' in page


def raising(error: Exception):
    def fails(*args, **kwargs):
        raise error

    return fails


def test_not_allowed(member, monkeypatch):
    monkeypatch.setattr(Catalogue.objects, "visible_to", raising(PermissionDenied()))
    response = member.get(reverse("home"))
    assert response.status_code == 403
    assert "<h1>This is not allowed</h1>" in response.content.decode()


@pytest.mark.parametrize(
    ("headers", "words"), [({}, "Something went wrong"), (CHINESE, "出了问题")]
)
def test_a_fault_is_told_without_the_database(monkeypatch, headers, words):
    """Nothing here may ask it: the test has no access to any."""
    monkeypatch.setattr(views, "static", raising(ZeroDivisionError()))
    client = Client(raise_request_exception=False)
    response = client.get("/favicon.ico", headers=headers)
    page = response.content.decode()
    assert response.status_code == 500
    assert f"<h1>{words}</h1>" in page
    assert f'href="{reverse("home")}"' in page
    assert "csrf" not in page


def test_the_icon_is_where_browsers_look_for_it(client):
    response = client.get("/favicon.ico")
    assert response.status_code == 302
    assert response["Location"].endswith("icon.svg")


def test_every_page_leads_to_the_api(client, db):
    page = client.get(reverse("login")).content.decode()
    assert f'href="{reverse("api:docs")}"' in page
