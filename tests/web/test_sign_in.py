"""In and out."""

from __future__ import annotations

from django.urls import reverse

from tests import factories
from tests.web.conftest import HTMX


def test_signing_in_leads_to_where_one_wanted(client, db):
    factories.user("ann")
    response = client.post(
        reverse("login"), {"username": "ann", "password": "pw", "next": "/c/where/"}
    )
    assert (response.status_code, response["Location"]) == (302, "/c/where/")


def test_signing_in_never_leads_elsewhere(client, db):
    factories.user("ann")
    response = client.post(
        reverse("login"), {"username": "ann", "password": "pw", "next": "https://evil.example/"}
    )
    assert response["Location"] == reverse("home")


def test_a_wrong_password_is_said_at_the_form_and_the_name_stays(client, db):
    factories.user("ann")
    page = client.post(reverse("login"), {"username": "ann", "password": "?"}).content.decode()
    assert 'role="alert"' in page
    assert 'value="ann"' in page


def test_home_asks_to_sign_in(client, db):
    assert client.get(reverse("home"))["Location"].startswith(reverse("login"))


def test_a_part_of_a_page_asked_for_after_the_sessions_end_leaves_the_page(member, catalogue):
    """Its place in the page is no place for a password."""
    address = reverse("transfer", args=[catalogue.key])
    member.logout()
    response = member.get(address, headers=HTMX, follow=True)
    login = reverse("login", query={"next": address})
    assert response["HX-Redirect"] == login
    assert b"password" not in response.content
    page = member.get(login).content.decode()
    assert f'action="{reverse("login")}"' in page
    assert f'name="next" value="{address}"' in page


def test_signing_out_takes_a_post(member):
    assert member.get(reverse("logout")).status_code == 405
    assert member.post(reverse("logout"))["Location"] == reverse("login")
    assert member.get(reverse("home")).status_code == 302
