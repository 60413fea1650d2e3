"""Members and invitations: who belongs to a catalogue."""

from __future__ import annotations

import re

import pytest
from django.core import mail
from django.utils import timezone

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


def test_added_by_name_from_another_catalogue_of_ones_own(manager, url, catalogue):
    factories.member(factories.catalogue(catalogue.owner), Role.VIEWER, "ada")
    body = {"user": "ada", "role": "editor"}
    made = manager.post(url("members"), body, format="json")
    assert made.status_code == 201 and made.json()["role"] == "editor"
    assert manager.post(url("members"), body, format="json").status_code == 409
    nobody = manager.post(url("members"), body | {"user": "?"}, format="json")
    assert list(nobody.json()["error"]["fields"]) == ["user"]
    assert manager.post(url("members"), body | {"role": "king"}, format="json").status_code == 400


def test_names_of_other_teams_cannot_be_tried_out(manager, url, catalogue):
    """Whoever shares no catalogue with the manager is answered for like a name that nobody has."""
    factories.member(factories.catalogue(), Role.MANAGER, "eve")
    factories.user("loner")
    gone = factories.member(factories.catalogue(catalogue.owner), Role.VIEWER, "gone")
    gone.is_active = False
    gone.save()
    answers = []
    for name in ("eve", "loner", "gone", "nobody", "ANN"):
        answer = manager.post(url("members"), {"user": name, "role": "viewer"}, format="json")
        error = answer.json()["error"] | {"request_id": ""}
        answers.append((answer.status_code, error))
    assert answers[0][0] == 400 and "invite them by e-mail" in answers[0][1]["message"]
    assert all(answer == answers[0] for answer in answers)


def test_nor_does_a_token_for_one_catalogue_reach_members_of_another(with_token, url, catalogue):
    other = factories.catalogue(catalogue.owner)
    factories.member(other, Role.VIEWER, "ada")
    body = {"user": "ada", "role": "viewer"}
    narrow = with_token(catalogue.owner, catalogues=[catalogue])
    assert narrow.post(url("members"), body, format="json").status_code == 400
    wide = with_token(catalogue.owner)
    assert wide.post(url("members"), body, format="json").status_code == 201


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
        page = re.search(r"http://testserver/invitations/(\S+)/", mail.outbox[-1].body)
        return f"/api/v1/invitations/{page[1]}"

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


def test_an_account_with_another_address_does_not_join(invite, api):
    link = invite("new@example.com")
    other = api(factories.user("other", email="other@example.com"))
    refused = other.post(link)
    assert refused.status_code == 409 and "another e-mail address" in refused.content.decode()
    assert api(factories.user("new", email="NEW@example.com")).post(link).status_code == 200


def test_why_a_link_does_not_work_is_told(invite, api):
    used, client = invite(), api(factories.user("new"))
    client.post(used)
    assert "used already" in client.get(used).json()["error"]["message"]
    late = invite("late@example.com")
    Invitation.objects.update(expires_at=timezone.now())
    assert "has expired" in client.get(late).json()["error"]["message"]
    assert "used already" in client.get(used).json()["error"]["message"]
    unknown = client.get("/api/v1/invitations/unknown").json()["error"]["message"]
    assert "no such invitation" in unknown


def test_a_limited_token_joins_nothing(invite, with_token):
    new = with_token(factories.user("new"), role=Role.VIEWER)
    assert new.post(invite()).status_code == 403
