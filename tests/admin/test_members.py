"""Members, invitations and quotas."""

from __future__ import annotations

import pytest
from django.urls import reverse
from django.utils import timezone

from recognition.models import Action, AuditEntry, Invitation, Membership, Quota
from tests import factories
from tests.admin.browser import posted

MEMBERS = "admin:recognition_membership"
QUOTAS = "admin:recognition_quota"


def test_a_member_is_added_and_it_is_written_down(staff, rows):
    ben = factories.user("ben")
    form = {"user": ben.pk, "catalogue": rows.catalogue.pk, "role": "editor"}
    staff.post(reverse(f"{MEMBERS}_add"), form)
    assert ben.memberships.get().role == "editor"
    assert AuditEntry.objects.filter(action=Action.MEMBER_ADD, object_name="ben").exists()


def test_a_role_is_changed(staff, rows):
    ben = factories.member(rows.catalogue, "viewer").memberships.get()
    staff.post(reverse(f"{MEMBERS}_change", args=[ben.pk]), {"role": "operator"})
    ben.refresh_from_db()
    assert ben.role == "operator"


def test_the_last_manager_stays_one(staff, rows):
    address = reverse(f"{MEMBERS}_change", args=[rows.membership.pk])
    response = staff.post(address, {"role": "viewer"})
    [message] = response.context["adminform"].form.errors["role"]
    assert "last manager" in message
    assert Membership.objects.get(pk=rows.membership.pk).role == "manager"


def test_a_member_is_removed(staff, rows):
    ben = factories.member(rows.catalogue, "viewer").memberships.get()
    staff.post(reverse(f"{MEMBERS}_delete", args=[ben.pk]), {"post": "yes"})
    assert not Membership.objects.filter(pk=ben.pk).exists()


INVITATIONS = "admin:recognition_invitation_changelist"


def test_withdrawing_an_invitation_is_asked_about_first(staff, rows):
    assert ">Withdraw<" in staff.get(reverse(INVITATIONS)).content.decode()
    chosen = {"action": "delete_selected", "_selected_action": [rows.invitation.pk]}
    question = staff.post(reverse(INVITATIONS), chosen).content.decode()
    assert Invitation.objects.exists()
    staff.post(reverse(INVITATIONS), posted(question, with_field="post"))
    assert not Invitation.objects.exists()
    assert AuditEntry.objects.filter(action=Action.INVITATION_WITHDRAW).exists()


def test_of_several_invitations_all_are_withdrawn_or_none(staff, rows):
    accepted = Invitation.objects.create(
        catalogue=rows.catalogue,
        email="eve@example.org",
        digest="1" * 64,
        invited_by=rows.user,
        expires_at=timezone.now(),
        accepted_at=timezone.now(),
    )
    chosen = {"_selected_action": [rows.invitation.pk, accepted.pk]}
    response = staff.post(
        reverse(INVITATIONS), {"action": "delete_selected", "post": "yes"} | chosen, follow=True
    )
    assert Invitation.objects.count() == 2
    assert "accepted already" in response.content.decode()


def test_a_quota_is_given_changed_and_taken_back(staff, rows):
    form = {"user": rows.user.pk, "images": "500"}
    staff.post(reverse(f"{QUOTAS}_add"), form)
    row = Quota.objects.get(user=rows.user)
    assert (row.images, row.stored_bytes) == (500, None)
    address = reverse(f"{QUOTAS}_change", args=[row.pk])
    staff.post(address, {"images": "0", "queries_per_minute": "60"})
    row.refresh_from_db()
    assert (row.images, row.queries_per_minute) == (0, 60)
    staff.post(reverse(f"{QUOTAS}_delete", args=[row.pk]), {"post": "yes"})
    assert not Quota.objects.filter(user=rows.user).exists()


@pytest.mark.parametrize("both", [True, False])
def test_a_quota_is_of_exactly_one_thing(staff, rows, both):
    other = factories.catalogue()
    form = {"catalogue": other.pk, "user": rows.user.pk, "images": "5"} if both else {"images": "5"}
    response = staff.post(reverse(f"{QUOTAS}_add"), form)
    assert response.status_code == 200
    assert "choose one of" in str(response.context["errors"])
    assert Quota.objects.count() == 1
