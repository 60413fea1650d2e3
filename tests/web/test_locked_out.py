"""Guessing passwords ends after a few guesses."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from tests import factories

FORMS = pytest.mark.parametrize("form", ["login", "admin:login"])


def _guess(client: Client, form: str, name: str = "ann", password: str = "?", **extra):  # noqa: S107
    return client.post(reverse(form), {"username": name, "password": password}, **extra)


@pytest.fixture
def locked(db, settings, client) -> Client:
    """Somebody who guessed ann's password as often as is allowed, and wrong."""
    factories.user("ann", is_staff=True)
    factories.user("ben", is_staff=True)
    for at in range(settings.SHITU_LOGIN_FAILURES):
        page = _guess(client, "login")
        assert (page.status_code == 200) == (at < settings.SHITU_LOGIN_FAILURES - 1)
    return client


@FORMS
def test_the_next_attempt_is_refused_in_words_even_with_the_right_password(locked, form):
    page = _guess(locked, form, password="pw")
    assert page.status_code == 429
    text = page.content.decode()
    assert "too many wrong passwords for “ann”" in text
    assert "Try again in 15 minutes" in text
    assert "_auth_user_id" not in locked.session


@FORMS
def test_others_still_get_in(locked, form):
    assert _guess(locked, form, "ben", "pw").status_code == 302
    assert _guess(Client(), form, "ann", "pw", REMOTE_ADDR="192.0.2.7").status_code == 302


def test_a_right_password_forgives_the_wrong_ones(db, settings, client):
    factories.user("ann")
    for _ in range(2):
        for _ in range(settings.SHITU_LOGIN_FAILURES - 1):
            assert _guess(client, "login").status_code == 200
        assert _guess(Client(), "login", password="pw").status_code == 302


def test_who_is_signed_in_stays_so(locked, client):
    other = Client()
    other.force_login(factories.user("cat"))
    assert other.get(reverse("home")).status_code == 200


def test_a_name_that_could_be_markup_is_shown_as_text(db, settings, client):
    for _ in range(settings.SHITU_LOGIN_FAILURES):
        page = _guess(client, "login", "<script>")
    assert b"<script>\xe2\x80\x9d" not in page.content and b"&lt;script&gt;" in page.content
