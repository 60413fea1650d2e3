"""The page of the link in an invitation."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.contrib.auth import get_user
from django.core import mail
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from recognition.models import Action, AuditEntry, Invitation, User
from recognition.services import members
from tests import factories

PASSWORD = "gr33n-tea-and-milk"


@pytest.fixture
def link(api, catalogue) -> str:
    """The link in the e-mail that the API sends: an editor is wanted at bob@example.org."""
    address = reverse("api:invitations", args=[catalogue.key])
    body = {"email": "bob@example.org", "role": "editor"}
    assert api(catalogue.owner).post(address, body, format="json").status_code == 201
    return re.search(r"http://testserver(\S+)", mail.outbox[-1].body)[1]


@pytest.fixture
def bob(db) -> User:
    return factories.user("bob", email="Bob@example.org")


def join(client: Client, link: str, name: str = "bob", password: str = PASSWORD):
    return client.post(link, {"name": name, "password1": password, "password2": password})


def test_it_shows_to_what_by_whom_and_as_what(client, link, catalogue):
    page = client.get(link)
    text = page.content.decode()
    assert page.status_code == 200
    assert catalogue.name in text and "editor" in text and "ann" in text
    assert "bob@example.org" in text
    assert "no-store" in page["Cache-Control"]


def test_who_is_signed_in_accepts_with_one_button(browser, link, bob, catalogue):
    client = browser(bob)
    assert not bob.memberships.exists()  # looking is not accepting
    client.get(link)
    answer = client.post(link)
    assert answer["Location"] == reverse("recognise", args=[catalogue.key])
    assert bob.memberships.get().role == "editor"
    page = client.get(answer["Location"]).content.decode()
    assert f"You are a member of “{catalogue.name}” now" in page


def test_who_is_not_signs_in_and_comes_back(client, link, bob):
    page = client.get(link).content.decode()
    way = re.search(r'href="(/login/\?next=[^"]+)"', page)[1]
    form = client.get(way)
    answer = client.post(way, {"username": "bob", "password": "pw", "next": form.context["next"]})
    assert answer["Location"] == link
    assert "Accept" in client.get(link).content.decode()


def test_or_makes_an_account_with_the_invited_address(client, link, catalogue):
    answer = join(client, link)
    assert answer["Location"] == reverse("recognise", args=[catalogue.key])
    made = get_user(client)
    assert (made.username, made.email) == ("bob", "bob@example.org")
    assert made.check_password(PASSWORD) and not (made.is_staff or made.is_superuser)
    assert made.memberships.get().role == "editor"
    assert client.get(answer["Location"]).status_code == 200
    assert AuditEntry.objects.get(action=Action.ACCOUNT_CREATE).object_name == "bob"
    assert Invitation.objects.get().accepted_by == made


def test_a_name_that_is_taken_gets_a_number_and_nobody_learns_whose_it_is(client, link):
    factories.user("Bob")
    answer = join(client, link)
    assert answer.status_code == 302
    assert re.fullmatch(r"bob\d{6}", get_user(client).username)


@pytest.mark.parametrize(
    ("name", "password", "field"),
    [
        ("bob", "12345678", "password2"),
        ("bob", "bob@example.org", "password2"),
        ("", PASSWORD, "name"),
        ("a b", PASSWORD, "name"),
        ("x" * 145, PASSWORD, "name"),
    ],
)
def test_what_is_wrong_is_said_at_the_field_and_the_link_still_works(
    client, link, name, password, field
):
    answer = join(client, link, name, password)
    assert answer.status_code == 422 and field in answer.context["form"].errors
    assert not User.objects.filter(email="bob@example.org").exists()
    assert join(client, link).status_code == 302


def test_an_address_that_has_an_account_gets_no_second_one(client, link, bob):
    answer = join(client, link, "robert")
    assert answer.status_code == 422
    assert "has an account already. Sign in with it." in answer.content.decode()
    assert User.objects.filter(email__iexact="bob@example.org").count() == 1


def test_an_account_with_another_address_is_told_so(browser, link):
    eve = factories.user("eve", email="eve@example.org")
    client = browser(eve)
    for answer in (client.get(link), client.post(link)):
        text = answer.content.decode()
        assert answer.status_code == 403
        assert "You are signed in as eve, whose address is eve@example.org" in text
        assert "Accept" not in text
    assert not eve.memberships.exists()
    # signing out leads back to it
    answer = client.post(reverse("logout"), {"next": link})
    assert answer["Location"] == link


def test_an_account_without_an_address_may_accept(browser, link):
    till = factories.user("till")
    assert browser(till).post(link).status_code == 302
    assert till.memberships.exists()


def test_a_used_one(browser, client, link, bob):
    browser(bob).post(link)
    for answer in (client.get(link), join(client, link)):
        assert answer.status_code == 410
        assert "This invitation was used already" in answer.content.decode()
    assert "You accepted it" in browser(bob).get(link).content.decode()


def test_an_expired_one(browser, client, link, bob):
    Invitation.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    for one in (client, browser(bob)):
        for answer in (one.get(link), one.post(link)):
            assert answer.status_code == 410
            assert "This invitation has expired" in answer.content.decode()
    assert not bob.memberships.exists()


def test_one_of_an_account_that_is_closed(browser, client, link, bob):
    User.objects.exclude(pk=bob.pk).update(is_active=False)
    for one in (client, browser(bob)):
        for answer in (one.get(link), one.post(link)):
            assert answer.status_code == 410
            assert "The account that sent it is closed" in answer.content.decode()
    assert not bob.memberships.exists()


def test_one_that_was_withdrawn_replaced_or_never_there(browser, client, link, catalogue, bob):
    members.invite(catalogue, "bob@example.org", "viewer", by=catalogue.owner, link=str)
    withdrawn, text = members.invite(
        catalogue, "x@example.org", "viewer", by=catalogue.owner, link=str
    )
    members.withdraw(withdrawn)
    for address in (link, reverse("invitation", args=[text]), reverse("invitation", args=["x"])):
        for answer in (client.get(address), browser(bob).post(address)):
            assert answer.status_code == 404
            assert "There is no such invitation" in answer.content.decode()


def test_one_that_ends_while_it_is_looked_at(browser, link, bob, monkeypatch):
    found = Invitation.objects.get()
    monkeypatch.setattr(members, "look_up", lambda text: found)
    Invitation.objects.all().delete()
    monkeypatch.setattr(members, "find_invitation", _gone)
    assert browser(bob).post(link)["Location"] == link
    assert join(Client(), link)["Location"] == link


def _gone(text: str):
    from recognition.errors import NotFound

    raise NotFound("gone")


def test_it_takes_the_button_of_this_site(link, bob):
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(bob)
    assert strict.post(link).status_code == 403


def test_without_passwords_no_account_is_made_with_one(client, link, settings):
    settings.SHITU_PASSWORD_LOGIN = False
    assert "password1" not in client.get(link).content.decode()
    assert join(client, link).status_code == 403


def test_the_link_is_not_logged(client, link, caplog):
    caplog.set_level("INFO")
    client.get(link)
    client.get(reverse("login"), {"next": link})
    written = " ".join(record.getMessage() for record in caplog.records)
    assert "/invitations/…" in written
    assert link.split("/")[2] not in written


def test_the_link_has_the_address_of_the_site(api, catalogue, settings):
    settings.SHITU_SITE_URL = "https://shitu.example"
    address = reverse("api:invitations", args=[catalogue.key])
    api(catalogue.owner).post(address, {"email": "a@example.org"}, format="json")
    assert "\nhttps://shitu.example/invitations/" in mail.outbox[-1].body


def test_it_speaks_chinese(client, link):
    client.post(reverse("set_language"), {"language": "zh-hans"})
    text = client.get(link).content.decode()
    assert "邀请" in text and "Make the account" not in text
