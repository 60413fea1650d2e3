"""Members and invitations: who belongs to a catalogue."""

from __future__ import annotations

import re

import pytest
from django.core import mail

from recognition.models import Invitation, Membership, Role
from tests import factories


@pytest.fixture
def ben(catalogue) -> Membership:
    return factories.member(catalogue, Role.VIEWER, "ben").memberships.get()


def test_listed_with_their_roles(viewer, url, ben):
    page = viewer.get(url("members")).json()["results"]
    assert ("ben", "viewer") in [(one["user"], one["role"]) for one in page]
    [found] = viewer.get(url("members"), {"user": "ben"}).json()["results"]
    assert found["id"] == ben.pk
    assert len(viewer.get(url("members"), {"role": "manager"}).json()["results"]) == 1


def test_added_by_name(manager, url):
    factories.user("ada")
    body = {"user": "ada", "role": "editor"}
    made = manager.post(url("members"), body, format="json")
    assert made.status_code == 201 and made.json()["role"] == "editor"
    assert manager.post(url("members"), body, format="json").status_code == 409
    nobody = manager.post(url("members"), body | {"user": "?"}, format="json")
    assert list(nobody.json()["error"]["fields"]) == ["user"]
    assert manager.post(url("members"), body | {"role": "king"}, format="json").status_code == 400


def test_given_another_role(manager, url, ben):
    answer = manager.patch(url("members", ben.pk), {"role": "operator"}, format="json")
    assert answer.json()["role"] == "operator"


def test_the_last_manager_stays(manager, url, catalogue):
    last = catalogue.memberships.get(user=catalogue.owner)
    answer = manager.patch(url("members", last.pk), {"role": "viewer"}, format="json")
    assert answer.status_code == 409
    assert manager.delete(url("members", last.pk)).status_code == 409


def test_everybody_may_leave_and_sees_nothing_from_then_on(api, url, ben):
    client = api(ben.user)
    other = factories.member(ben.catalogue, Role.VIEWER).memberships.get()
    assert client.delete(url("members", other.pk)).status_code == 403
    assert client.delete(url("members", ben.pk)).status_code == 204
    assert client.get(url()).status_code == 404


def test_but_a_limited_token_does_not_leave_for_its_user(with_token, url, ben):
    client = with_token(ben.user, role=Role.VIEWER)
    assert client.delete(url("members", ben.pk)).status_code == 403


def test_a_member_of_another_catalogue_is_not_there(manager, url):
    theirs = factories.catalogue().memberships.get()
    assert (
        manager.patch(url("members", theirs.pk), {"role": "viewer"}, format="json").status_code
        == 404
    )
    assert manager.delete(url("members", theirs.pk)).status_code == 404


# --- Invitations ----------------------------------------------------------------------------------


@pytest.fixture
def invite(manager, url):
    """Invites, and returns the address in the e-mail."""

    def send(email: str = "new@example.com", **body) -> str:
        answer = manager.post(url("invitations"), {"email": email, **body}, format="json")
        assert answer.status_code == 201, answer.content
        return re.search(r"http://testserver(\S+)", mail.outbox[-1].body)[1]

    return send


def test_the_link_in_the_mail_makes_one_a_member_once(invite, api, catalogue):
    link = invite(role="editor")
    new = api(factories.user("new"))
    look = new.get(link).json()
    assert (look["catalogue"], look["role"], look["invited_by"]) == (
        catalogue.name,
        "editor",
        "ann",
    )
    assert new.post(link).json() == {"catalogue": str(catalogue.key), "role": "editor"}
    assert new.get(f"/api/v1/catalogues/{catalogue.key}").json()["role"] == "editor"
    assert api(factories.user("second")).post(link).status_code == 404


def test_the_link_is_in_no_answer(manager, invite, url):
    text = invite().rsplit("/", 1)[-1]
    answer = manager.get(url("invitations"))
    assert text not in answer.content.decode()
    [shown] = answer.json()["results"]
    assert (shown["email"], shown["accepted_at"]) == ("new@example.com", None)


def test_withdrawn(manager, invite, url, api):
    link = invite()
    [shown] = manager.get(url("invitations")).json()["results"]
    assert manager.delete(url("invitations", shown["id"])).status_code == 204
    assert api(factories.user("new")).post(link).status_code == 404


def test_no_address(manager, url):
    answer = manager.post(url("invitations"), {"email": "nobody"}, format="json")
    assert answer.status_code == 400
    assert not Invitation.objects.exists()


def test_a_mail_that_cannot_be_sent(manager, url, settings):
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 9
    answer = manager.post(url("invitations"), {"email": "a@example.com"}, format="json")
    assert answer.status_code == 503 and answer["Retry-After"]
    assert not Invitation.objects.exists()


def test_a_limited_token_joins_nothing(invite, with_token):
    new = with_token(factories.user("new"), role=Role.VIEWER)
    assert new.post(invite()).status_code == 403
