"""Tokens open the API, and no more than they say."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone
from rest_framework.test import APIClient

from recognition.models import ApiToken
from recognition.services import tokens

LIST = "/api/v1/catalogues"


def _ask(text: str):
    return APIClient().get(LIST, headers={"Authorization": text})


def test_a_token_opens(user):
    _, text = tokens.create(user, "till")
    assert _ask(f"Bearer {text}").status_code == 200


@pytest.mark.parametrize("text", ["Bearer", "Bearer a b", "Bearer wrong", "Bearer \u00e9", "x y"])
def test_what_is_no_token_does_not(db, text):
    response = _ask(text)
    assert response.status_code == 401
    assert response["WWW-Authenticate"] == "Bearer"
    assert response.json()["error"]["code"] in ("authentication_failed", "not_authenticated")


@pytest.mark.parametrize("header", [{}, {"Authorization": "Token abc"}])
def test_who_comes_without_one_is_told_how_to_send_it(db, header):
    error = APIClient().get(LIST, headers=header).json()["error"]
    assert error["code"] == "not_authenticated"
    assert "`Authorization: Bearer TOKEN`" in error["message"]


def test_an_expired_one_says_so_and_stays_for_its_owner_to_see(user):
    token, text = tokens.create(user, "old", days=1)
    ApiToken.objects.filter(pk=token.pk).update(expiry=timezone.now() - timedelta(seconds=1))
    response = _ask(f"Bearer {text}")
    assert response.status_code == 401
    assert "expired" in response.json()["error"]["message"]
    assert ApiToken.objects.filter(pk=token.pk).exists()


def test_a_revoked_one_is_unknown(user):
    token, text = tokens.create(user, "lost")
    tokens.revoke(token)
    assert _ask(f"Bearer {text}").status_code == 401


def test_an_inactive_user_stays_out(user):
    _, text = tokens.create(user, "till")
    user.is_active = False
    user.save()
    assert _ask(f"Bearer {text}").status_code == 401


def test_its_use_is_noted_once_a_minute(user, django_assert_num_queries):
    token, text = tokens.create(user, "till")
    _ask(f"Bearer {text}")
    token.refresh_from_db()
    first = token.last_used_at
    assert first is not None
    _ask(f"Bearer {text}")
    token.refresh_from_db()
    assert token.last_used_at == first
    ApiToken.objects.update(last_used_at=first - timedelta(seconds=61))
    _ask(f"Bearer {text}")
    token.refresh_from_db()
    assert token.last_used_at > first - timedelta(seconds=61)


def test_a_session_needs_the_csrf_token(user, catalogue):
    client = Client(enforce_csrf_checks=True)
    client.force_login(user)
    assert client.get(LIST).status_code == 200
    response = client.post(LIST, {"name": "x"}, content_type="application/json")
    assert response.status_code == 403
    assert response.json()["error"]["code"] == "permission_denied"


def test_the_role_shown_is_the_tokens_when_that_is_lower(catalogue, with_token):
    client = with_token(catalogue.owner, role="viewer")
    [shown] = client.get(LIST).json()["results"]
    assert shown["role"] == "viewer"
