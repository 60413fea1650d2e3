"""`manage.py check` refuses a broken set-up with a sentence that names the remedy."""

from __future__ import annotations

import pytest
from django.core.checks import run_checks

from recognition import checks


def found(check, **options) -> dict[str, str]:
    """Id and remedy of everything one check complains about."""
    return {message.id: f"{message.msg} {message.hint}" for message in check(None, **options)}


@pytest.mark.django_db
def test_a_sound_set_up_has_nothing_to_complain_about(starter_models):
    assert run_checks(databases=["default"]) == []


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("rows", "remedy"),
    [
        ([None, None], "has no pgvector"),
        ([("0.7.4",), ("0.7.4",)], "ALTER EXTENSION vector UPDATE"),
    ],
    ids=["missing", "old"],
)
def test_pgvector(monkeypatch, rows, remedy):
    class Cursor:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def execute(self, statement):
            pass

        def fetchone(self):
            return rows.pop(0)

    monkeypatch.setattr(checks.connection, "cursor", Cursor)
    assert remedy in found(checks.pgvector_is_new_enough, databases=["default"])["recognition.E011"]


def test_a_database_that_is_away(monkeypatch):
    def refuse():
        from django.db import OperationalError

        raise OperationalError("connection refused")

    monkeypatch.setattr(checks.connection, "cursor", refuse)
    complaint = found(checks.pgvector_is_new_enough, databases=["default"])["recognition.E010"]
    assert "connection refused" in complaint and "DATABASE_URL" in complaint


def test_models_that_are_missing(settings, tmp_path):
    settings.SHITU_MODELS_DIR = tmp_path
    assert "manage.py setup" in found(checks.models_are_installed)["recognition.E030"]


def test_pictures_that_cannot_be_stored(settings, tmp_path):
    (tmp_path / "a-file").write_text("")
    settings.MEDIA_ROOT = tmp_path / "a-file" / "media"
    assert "SHITU_MEDIA_DIR" in found(checks.media_is_writable)["recognition.E020"]


def test_a_broker_that_is_away(settings, tmp_path):
    settings.REDIS_URL = f"unix://{tmp_path}/nobody.sock"
    assert "REDIS_URL" in found(checks.broker_answers)["recognition.E040"]


@pytest.mark.parametrize("device", ["gpu:0", "cuda:0", "cpu:1"])
def test_a_device_that_is_absent_or_misspelt(settings, device):
    settings.SHITU_DEVICE = device
    assert "SHITU_DEVICE" in found(checks.device_is_there)["recognition.E050"]


def test_debug_pages_beside_a_real_host(settings):
    settings.DEBUG, settings.ALLOWED_HOSTS = True, ["shop.example"]
    assert "SHITU_DEBUG" in found(checks.secret_is_set)["recognition.E002"]


def test_a_short_secret(settings):
    settings.SECRET_KEY = "short"
    assert "recognition.W001" in found(checks.secret_is_set)


PROVIDER = ("SHITU_OIDC_ISSUER", "SHITU_OIDC_CLIENT_ID", "SHITU_OIDC_CLIENT_SECRET")


def sign_in_by(settings, issuer="https://login.example", client_id="shitu", secret="s" * 20):
    for name, value in zip(PROVIDER, (issuer, client_id, secret), strict=True):
        setattr(settings, name, value)


def test_a_provider_that_is_set_up(settings):
    sign_in_by(settings)
    settings.SHITU_SITE_URL = "http://shitu.internal:8000/"
    settings.SHITU_PASSWORD_LOGIN = False
    assert found(checks.sign_in_is_set_up) == {}


@pytest.mark.parametrize("name", PROVIDER)
def test_a_provider_that_is_set_up_halfway(settings, name):
    sign_in_by(settings)
    setattr(settings, name, "")
    complaint = found(checks.sign_in_is_set_up)["recognition.E060"]
    assert name in complaint and "s" * 20 not in complaint
    assert not any(other in complaint for other in PROVIDER if other != name)


@pytest.mark.parametrize(
    ("issuer", "reason"),
    [
        ("login.example", "no web address"),
        ("http://login.example", "http://"),
        ("https://login.example?x=1", "has a ? or #"),
        ("ftp://login.example", "no web address"),
    ],
)
def test_a_provider_that_cannot_be_one(settings, issuer, reason):
    sign_in_by(settings, issuer)
    complaint = found(checks.sign_in_is_set_up)["recognition.E061"]
    assert "SHITU_OIDC_ISSUER" in complaint and reason in complaint


@pytest.mark.parametrize("url", ["shitu.example", "https://shitu.example/app", "https://x/?y"])
def test_an_address_of_the_site_that_cannot_be_one(settings, url):
    settings.SHITU_SITE_URL = url
    assert "SHITU_SITE_URL" in found(checks.sign_in_is_set_up)["recognition.E061"]


def test_scopes_that_identify_nobody(settings):
    sign_in_by(settings)
    settings.SHITU_OIDC_SCOPES = "email profile"
    assert "SHITU_OIDC_SCOPES" in found(checks.sign_in_is_set_up)["recognition.E061"]


def test_a_site_that_nobody_could_sign_in_to(settings):
    settings.SHITU_PASSWORD_LOGIN = False
    complaint = found(checks.sign_in_is_set_up)["recognition.E062"]
    assert "SHITU_PASSWORD_LOGIN" in complaint and "SHITU_OIDC_ISSUER" in complaint


def test_a_provider_that_does_not_answer_is_found_by_a_check_of_the_deployment(settings):
    sign_in_by(settings, "http://127.0.0.1:9")
    assert "SHITU_OIDC_ISSUER" in found(checks.provider_answers)["recognition.E063"]
    settings.SHITU_OIDC_CLIENT_ID = ""  # halfway: the other check says so
    assert found(checks.provider_answers) == {}
