"""API tokens can be revoked, and nothing else."""

from __future__ import annotations

from django.urls import reverse

from recognition.models import Action, ApiToken, AuditEntry
from tests.admin.browser import posted


def test_the_hash_and_the_rest_of_the_token_are_not_shown(staff, rows):
    page = staff.get(reverse("admin:recognition_apitoken_changelist")).content.decode()
    assert f"{rows.apitoken.token_key}…" in page


def test_revoking_is_asked_about_first(staff, rows):
    tokens = reverse("admin:recognition_apitoken_changelist")
    assert ">Revoke<" in staff.get(tokens).content.decode()
    chosen = {"action": "delete_selected", "_selected_action": [rows.apitoken.pk]}
    question = staff.post(tokens, chosen).content.decode()
    assert ApiToken.objects.exists()
    response = staff.post(tokens, posted(question, with_field="post"), follow=True)
    assert not ApiToken.objects.exists()
    assert AuditEntry.objects.filter(action=Action.TOKEN_REVOKE).exists()
    assert "Successfully deleted 1" in response.content.decode()
