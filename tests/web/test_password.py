"""A new password: by e-mail for who forgot it, on a page for who knows it."""

from __future__ import annotations

import re
import threading
from uuid import uuid4

import pytest
from django.contrib.auth import get_user
from django.core import mail
from django.test import Client
from django.urls import reverse

from recognition.models import Action, AuditEntry
from recognition.services import rates
from tests import factories

pytestmark = pytest.mark.django_db
NEW = "gr33n-tea-and-milk"


@pytest.fixture
def client() -> Client:
    """Comes from an address of its own, so that no other test uses up what it may ask for."""
    return Client(REMOTE_ADDR=f"2001:db8::{uuid4().hex[:4]}:{uuid4().hex[:4]}")


@pytest.fixture
def address() -> str:
    return f"{uuid4().hex}@example.org"


@pytest.fixture
def ann(address):
    return factories.user("ann", email=address)


def ask(client: Client, address: str):
    """Ask for the link; the e-mail goes out beside the answer."""
    before = set(threading.enumerate())
    answer = client.post(reverse("password-forgotten"), {"email": address})
    for thread in set(threading.enumerate()) - before:
        thread.join(60)
    return answer


def link() -> str:
    return re.search(r"http://testserver(\S+)", mail.outbox[-1].body)[1]


def choose(client: Client, address: str, password: str = NEW):
    form = client.get(address, follow=True)
    return client.post(
        form.redirect_chain[-1][0] if form.redirect_chain else address,
        {"new_password1": password, "new_password2": password},
    )


# --- Forgotten ------------------------------------------------------------------------------------


def test_the_sign_in_page_leads_there(client):
    assert reverse("password-forgotten") in client.get(reverse("login")).content.decode()
    assert client.get(reverse("password-forgotten")).status_code == 200


def test_the_link_in_the_mail_sets_a_new_password_once(client, ann, address):
    assert ask(client, address.upper())["Location"] == reverse("password-sent")
    [message] = mail.outbox
    assert message.to == [address] and "ann" in message.body
    assert choose(client, link())["Location"] == reverse("login")
    assert "Sign in with it" in client.get(reverse("login")).content.decode()
    client.post(reverse("login"), {"username": "ann", "password": NEW})
    assert get_user(client) == ann
    again = Client().get(link(), follow=True)
    assert "used up, too old or not whole" in again.content.decode()
    assert AuditEntry.objects.get(action=Action.ACCOUNT_PASSWORD).user == ann


def test_the_answer_is_the_same_for_an_address_that_nobody_has(client, ann, address):
    known, unknown = ask(client, address), ask(client, "nobody-" + address)
    assert (known.status_code, known["Location"]) == (unknown.status_code, unknown["Location"])
    assert known.content == unknown.content
    assert len(mail.outbox) == 1


def test_nor_does_the_answer_wait_for_the_mail(client, ann, address, monkeypatch):
    may_send, sent = threading.Event(), []
    monkeypatch.setattr(
        "recognition.web.forms.send_mail", lambda *a, **k: sent.append(may_send.wait(60))
    )
    answer = client.post(reverse("password-forgotten"), {"email": address})
    assert (answer.status_code, sent) == (302, [])
    may_send.set()


def test_a_mail_that_cannot_be_sent_is_in_the_log_only(client, ann, address, settings, caplog):
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 9
    assert ask(client, address).status_code == 302
    assert "password_mail_not_sent" in caplog.text


@pytest.mark.parametrize("fields", [{"is_active": False}, {"password": None}])
def test_who_cannot_sign_in_with_a_password_gets_no_mail(client, address, fields):
    from recognition.models import User

    User.objects.create_user("ann", address, **{"password": "pw", **fields})
    assert ask(client, address).status_code == 302
    assert not mail.outbox


def test_the_mail_speaks_the_language_of_the_page(client, ann, address):
    client.post(reverse("set_language"), {"language": "zh-hans"})
    ask(client, address)
    assert "密码" in mail.outbox[0].body


def test_a_link_that_was_changed_opens_nothing(client, ann, address):
    ask(client, address)
    changed = re.sub(r"-(\w)", lambda at: "-1" if at[1] == "0" else "-0", link(), count=1)
    assert changed != link()
    assert "not whole" in client.get(changed, follow=True).content.decode()
    assert "not whole" in client.get(reverse("password-reset", args=["%", "x-y"])).content.decode()


def test_too_simple_a_password_is_refused_at_the_field(client, ann, address):
    ask(client, address)
    answer = choose(client, link(), "ann")
    assert answer.status_code == 200 and answer.context["form"].errors["new_password2"]
    ann.refresh_from_db()
    assert ann.check_password("pw")


def test_it_signs_everybody_out_and_ends_a_lock(client, ann, address, settings):
    elsewhere = Client()
    elsewhere.force_login(ann)
    for _ in range(settings.SHITU_LOGIN_FAILURES):
        locked = client.post(reverse("login"), {"username": "ann", "password": "?"})
    assert locked.status_code == 429
    ask(client, address)
    choose(client, link())
    assert not get_user(elsewhere).is_authenticated
    answer = client.post(reverse("login"), {"username": "ann", "password": NEW})
    assert answer["Location"] == reverse("home")


@pytest.mark.parametrize("known", [True, False])
def test_one_address_gets_so_many_mails_an_hour(client, ann, address, known):
    wanted = address if known else "nobody-" + address
    for _ in range(rates.MOST_RESETS_TO_ADDRESS):
        assert ask(client, wanted).status_code == 302
    answer = ask(client, wanted.upper())
    assert answer.status_code == 429 and 0 < int(answer["Retry-After"]) <= 3601
    assert "Try again in an hour" in answer.content.decode()
    assert ask(client, "other-" + address).status_code == 302


def test_one_browser_asks_so_many_times_an_hour(client, address):
    for number in range(rates.MOST_RESETS_FROM_ADDRESS):
        assert ask(client, f"{number}-{address}").status_code == 302
    assert ask(client, f"x-{address}").status_code == 429


def test_where_nobody_counts_it_goes_on(client, ann, address, settings):
    settings.REDIS_URL = "unix:///nobody.sock"
    rates._redis.cache_clear()
    try:
        assert ask(client, address).status_code == 302
    finally:
        rates._redis.cache_clear()


def test_the_link_is_not_logged(client, ann, address, caplog):
    ask(client, address)
    caplog.clear()
    caplog.set_level("INFO")
    client.get(link())
    written = " ".join(record.getMessage() for record in caplog.records)
    assert "/password/reset/" in written
    assert link().split("/")[-2] not in written


def test_the_link_has_the_address_of_the_site(client, ann, address, settings):
    settings.SHITU_SITE_URL = "https://shitu.example/"
    ask(client, address)
    assert "\nhttps://shitu.example/password/reset/" in mail.outbox[0].body


# --- Known ----------------------------------------------------------------------------------------


def test_changed_by_who_knows_it(client, ann):
    client.force_login(ann)
    elsewhere = Client()
    elsewhere.force_login(ann)
    assert reverse("password-change") in client.get(reverse("account")).content.decode()
    form = {"old_password": "pw", "new_password1": NEW, "new_password2": NEW}
    answer = client.post(reverse("password-change"), form, follow=True)
    assert "Your password is changed" in answer.content.decode()
    assert get_user(client) == ann and not get_user(elsewhere).is_authenticated
    ann.refresh_from_db()
    assert ann.check_password(NEW)
    assert AuditEntry.objects.get(action=Action.ACCOUNT_PASSWORD).user == ann


def test_not_by_who_does_not(client, ann):
    client.force_login(ann)
    form = {"old_password": "?", "new_password1": NEW, "new_password2": NEW}
    answer = client.post(reverse("password-change"), form)
    assert answer.context["form"].errors["old_password"]
    assert not AuditEntry.objects.filter(action=Action.ACCOUNT_PASSWORD).exists()


@pytest.mark.parametrize("name", ["account", "password-change"])
def test_nobody_signs_in_first(client, name):
    assert client.get(reverse(name))["Location"].startswith(reverse("login"))
