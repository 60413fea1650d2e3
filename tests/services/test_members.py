"""Who belongs to a catalogue, and how others come to."""

from __future__ import annotations

import re
from datetime import timedelta
from smtplib import SMTPException
from threading import Barrier, Thread

import pytest
from django.contrib.auth.models import AnonymousUser
from django.core import mail
from django.db import connection
from django.utils import timezone

from recognition.errors import (
    BadInput,
    Conflict,
    LimitReached,
    NotFound,
    NotReady,
    RoleTooLow,
)
from recognition.models import Action, AuditEntry, Catalogue, Invitation, Membership, Role
from recognition.services import catalogues, members, rates, tokens
from tests import factories

pytestmark = pytest.mark.django_db


def link(text: str) -> str:
    return f"https://shitu.example/invitations/{text}"


@pytest.fixture
def invited(catalogue, user):
    invitation, text = members.invite(catalogue, "bob@example.com", "editor", by=user, link=link)
    return invitation, text


# --- Roles ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("needed", Role)
@pytest.mark.parametrize("role", Role)
def test_a_role_that_is_too_low_is_told_which_one_is_needed(catalogue, role, needed):
    member = factories.member(catalogue, role)
    if Role(role).rank >= Role(needed).rank:
        catalogues.require_role(member, catalogue, needed)
    else:
        with pytest.raises(RoleTooLow, match=needed.value):
            catalogues.require_role(member, catalogue, needed)


def test_an_outsider_learns_nothing(catalogue):
    for outsider in (factories.user(), AnonymousUser()):
        with pytest.raises(NotFound):
            catalogues.require_role(outsider, catalogue, Role.VIEWER)


def test_a_token_that_is_too_low_is_refused_though_its_user_might(catalogue, user):
    user.token, _ = tokens.create(user, "till", role=Role.VIEWER)
    with pytest.raises(RoleTooLow):
        catalogues.require_role(user, catalogue, Role.EDITOR)


# --- Members --------------------------------------------------------------------------------------


def test_a_member_is_added_changed_and_removed(catalogue):
    bob = factories.user("bob")
    membership = members.add(catalogue, bob, "viewer")
    assert list(Catalogue.objects.visible_to(bob)) == [catalogue]
    members.change(membership, "editor")
    assert Catalogue.objects.editable_by(bob).exists()
    members.remove(membership)
    assert not Catalogue.objects.visible_to(bob).exists()
    with pytest.raises(NotFound):
        members.remove(Membership(pk=membership.pk or 0, user=bob, catalogue=catalogue))


def test_nobody_is_added_twice_or_with_a_role_that_is_none(catalogue, user):
    with pytest.raises(Conflict, match="manager"):
        members.add(catalogue, user, "viewer")
    with pytest.raises(BadInput):
        members.add(catalogue, factories.user(), "owner")


def test_the_last_manager_can_neither_leave_nor_step_down(catalogue, user):
    last = catalogue.memberships.get()
    with pytest.raises(Conflict, match="last manager"):
        members.remove(last)
    with pytest.raises(Conflict, match="last manager"):
        members.change(last, "editor")
    last.refresh_from_db()
    assert last.role == Role.MANAGER
    members.add(catalogue, factories.user(), "manager")
    members.remove(last)


@pytest.mark.django_db(transaction=True)
def test_two_managers_who_leave_at_once_do_not_both(catalogue):
    members.add(catalogue, factories.user(), "manager")
    start, refused = Barrier(2), []

    def leave(membership) -> None:
        start.wait()
        try:
            members.remove(membership)
        except Conflict as error:
            refused.append(error)
        finally:
            connection.close()

    threads = [Thread(target=leave, args=(one,)) for one in catalogue.memberships.all()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 1
    assert catalogue.memberships.filter(role=Role.MANAGER).count() == 1


# --- Invitations ----------------------------------------------------------------------------------


def test_an_invitation_is_mailed_and_its_link_makes_a_member_once(catalogue, invited):
    [message] = mail.outbox
    assert message.to == ["bob@example.com"] and catalogue.name in message.subject
    text = re.search(r"invitations/(\S+)", message.body)[1]
    assert text == invited[1]
    bob = factories.user("bob")
    assert members.find_invitation(text).catalogue == catalogue
    assert members.accept(text, bob).role == "editor"
    assert Catalogue.objects.editable_by(bob).exists()
    with pytest.raises(NotFound):
        members.accept(text, factories.user())


def test_its_text_is_stored_nowhere(invited):
    with connection.cursor() as cursor:
        for model in (Invitation, AuditEntry):
            cursor.execute(f"SELECT t::text FROM {model._meta.db_table} t")  # noqa: S608
            assert not any(invited[1] in row[0] for row in cursor.fetchall())


def test_an_expired_withdrawn_or_unknown_one_opens_nothing(catalogue, user, invited):
    Invitation.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    with pytest.raises(NotFound):
        members.accept(invited[1], factories.user())
    invitation, text = members.invite(catalogue, "eve@example.com", "viewer", by=user, link=link)
    members.withdraw(invitation)
    for wrong in (text, "", "x" * 1000, "\x00\ud800"):
        with pytest.raises(NotFound):
            members.find_invitation(wrong)


def test_inviting_again_ends_the_earlier_link(catalogue, user, invited):
    _, text = members.invite(catalogue, "BOB@example.com", "viewer", by=user, link=link)
    with pytest.raises(NotFound):
        members.find_invitation(invited[1])
    assert members.find_invitation(text).role == "viewer"


def test_a_role_is_raised_and_never_lowered(catalogue, user, invited):
    viewer = factories.member(catalogue, "viewer")
    assert members.accept(invited[1], viewer).role == "editor"
    _, text = members.invite(catalogue, "x@example.com", "viewer", by=user, link=link)
    assert members.accept(text, user).role == "manager"


def test_an_accepted_one_cannot_be_withdrawn(invited):
    members.accept(invited[1], factories.user())
    with pytest.raises(Conflict):
        members.withdraw(invited[0])


@pytest.mark.parametrize(
    ("email", "role", "field"), [("nobody", "viewer", "email"), ("a@b.org", "king", "role")]
)
def test_what_is_wrong_is_named(catalogue, user, email, role, field):
    with pytest.raises(BadInput) as caught:
        members.invite(catalogue, email, role, by=user, link=link)
    assert caught.value.field == field
    assert not mail.outbox


def test_where_no_mail_can_be_sent_nobody_is_invited(catalogue, user, monkeypatch):
    def fail(*args, **kwargs):
        raise SMTPException("no route")

    _, earlier = members.invite(catalogue, "bob@example.com", "viewer", by=user, link=link)
    monkeypatch.setattr(members, "send_mail", fail)
    for email in ("bob@example.com", "eve@example.com"):
        with pytest.raises(NotReady):
            members.invite(catalogue, email, "editor", by=user, link=link)
    assert Invitation.objects.get() == members.find_invitation(earlier)


@pytest.mark.django_db(transaction=True)
def test_nobody_waits_for_the_mail_to_be_sent(catalogue, user, monkeypatch):
    send, within = members.send_mail, []

    def watch(*args):
        within.append(connection.in_atomic_block)
        return send(*args)

    monkeypatch.setattr(members, "send_mail", watch)
    _, text = members.invite(catalogue, "bob@example.com", "viewer", by=user, link=link)
    assert within == [False] and text in mail.outbox[0].body


def test_invitations_are_seen_by_managers_only(catalogue, user, invited):
    assert list(Invitation.objects.visible_to(user)) == [invited[0]]
    assert not Invitation.objects.visible_to(factories.member(catalogue, "editor")).exists()


def test_an_address_gets_so_many_an_hour_whoever_sends_them(catalogue, user):
    other = factories.catalogue()
    for number in range(rates.MOST_INVITATIONS_TO_ADDRESS):
        of = (catalogue, other)[number % 2]
        members.invite(of, "bob@example.com", "viewer", by=of.owner, link=link)
    mail.outbox.clear()
    before = list(Invitation.objects.values_list("pk", flat=True))
    with pytest.raises(LimitReached, match="address got 5") as caught:
        members.invite(catalogue, "BOB@example.com", "viewer", by=user, link=link)
    assert 3500 < caught.value.retry_after <= 3600
    assert not mail.outbox
    assert list(Invitation.objects.values_list("pk", flat=True)) == before
    members.invite(catalogue, "eve@example.com", "viewer", by=user, link=link)


def test_a_manager_sends_so_many_an_hour_to_whichever_catalogues(catalogue, user, monkeypatch):
    monkeypatch.setattr(rates, "MOST_INVITATIONS_BY_USER", 2)
    both = catalogue, factories.catalogue(owner=user)
    for number, of in enumerate(both):
        members.invite(of, f"{number}@example.com", "viewer", by=user, link=link)
    with pytest.raises(LimitReached, match="you sent 2"):
        members.invite(catalogue, "x@example.com", "viewer", by=user, link=link)
    assert len(mail.outbox) == 2
    colleague = factories.member(catalogue, "manager")
    members.invite(catalogue, "x@example.com", "viewer", by=colleague, link=link)


@pytest.mark.parametrize("end", [members.remove, lambda one: members.change(one, "editor")])
def test_with_the_right_to_invite_end_the_open_invitations(catalogue, user, invited, end):
    eve = factories.member(catalogue, "manager")
    other = factories.catalogue(owner=eve)
    _, elsewhere = members.invite(other, "eve2@example.com", "manager", by=eve, link=link)
    sent, text = members.invite(catalogue, "eve2@example.com", "manager", by=eve, link=link)
    _, used = members.invite(catalogue, "carl@example.com", "viewer", by=eve, link=link)
    carl = members.accept(used, factories.user())

    end(catalogue.memberships.get(user=eve))
    with pytest.raises(NotFound, match="withdrawn"):
        members.accept(text, factories.user())
    entry = AuditEntry.objects.get(action=Action.INVITATION_WITHDRAW)
    assert (entry.object_id, entry.catalogue) == (str(sent.pk), catalogue)
    for still in (invited[1], elsewhere):
        assert members.find_invitation(still)
    carl.refresh_from_db()


def test_a_manager_who_stays_one_keeps_them(catalogue, user, invited):
    members.change(catalogue.memberships.get(user=user), "manager")
    assert members.find_invitation(invited[1])


@pytest.mark.parametrize("closed", [True, False])
def test_what_a_closed_account_sent_opens_nothing(catalogue, closed):
    eve = factories.member(catalogue, "manager")
    _, text = members.invite(catalogue, "eve2@example.com", "manager", by=eve, link=link)
    if closed:
        eve.is_active = False
        eve.save()
    else:
        eve.delete()
    assert not Invitation.objects.open().exists()
    with pytest.raises(NotFound, match="account that sent"):
        members.accept(text, factories.user())


def test_who_is_removed_while_the_mail_is_sent_has_invited_nobody(catalogue, monkeypatch):
    eve = factories.member(catalogue, "manager")
    send = members.send_mail

    def removed_meanwhile(*args):
        members.remove(catalogue.memberships.get(user=eve))
        return send(*args)

    monkeypatch.setattr(members, "send_mail", removed_meanwhile)
    with pytest.raises(NotFound):
        members.invite(catalogue, "eve2@example.com", "manager", by=eve, link=link)
    assert not Invitation.objects.exists()
