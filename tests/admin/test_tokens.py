"""API tokens can be revoked, and nothing else."""

from __future__ import annotations

from django.urls import reverse

from recognition.models import ApiToken


def test_the_hash_and_the_rest_of_the_token_are_not_shown(staff, rows):
    page = staff.get(reverse("admin:recognition_apitoken_changelist")).content.decode()
    assert f"{rows.apitoken.token_key}…" in page


def test_revoking(staff, rows):
    staff.post(
        reverse("admin:recognition_apitoken_changelist"),
        {"action": "revoke", "_selected_action": [rows.apitoken.pk]},
    )
    assert not ApiToken.objects.exists()
