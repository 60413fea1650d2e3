"""Who may ask, and how a client says who it is."""

from __future__ import annotations

import base64
import logging

import pytest

from recognition.models import Catalogue
from tests import factories

BODY = {
    "imageLabelPairs": [
        {"image": base64.b64encode(factories.png(0)).decode(), "label": "tea"},
    ]
}


@pytest.fixture
def nobody(local):
    """The same site, not signed in."""
    del local.headers["Authorization"]
    return local


def test_without_a_token_the_answer_says_how_to_sign_in(nobody):
    response = nobody.post("/shitu-index-build", json=BODY)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    body = response.json()
    assert list(body) == ["logId", "errorCode", "errorMsg"]
    assert "/paddlex/<token>" in body["errorMsg"]


@pytest.mark.parametrize("header", ["Bearer nonsense", "Bearer ", "Basic YTpi"])
def test_a_bad_token_is_refused(nobody, header, settings, someone):
    settings.SHITU_PADDLEX_ANONYMOUS_USER = someone.username  # who has a token means to use it
    headers = {"Authorization": header.encode()}
    assert nobody.post("/shitu-index-build", json=BODY, headers=headers).status_code == 401


def test_a_token_in_the_address(nobody, token, someone, caplog):
    with caplog.at_level(logging.INFO):
        response = nobody.post(f"/paddlex/{token}/shitu-index-build", json=BODY)
        nobody.post(f"/paddlex/{token}/shitu-infer", json={})
        nobody.get(f"/paddlex/{token}/api/v1/catalogues")
        nobody.get(f"/paddlex/{token}")
    assert response.status_code == 200
    assert Catalogue.objects.get().owner == someone
    assert "/shitu-infer" in caplog.text
    assert token not in caplog.text


@pytest.mark.parametrize("path", ["/api/v1/catalogues", "/", "/admin/", "/shitu-list", ""])
def test_a_token_in_the_address_opens_nothing_else(nobody, token, path):
    assert nobody.get(f"/paddlex/{token}{path}").status_code == 404


def test_a_header_wins_over_the_address(local, token):
    response = local.post("/paddlex/nonsense/shitu-index-build", json=BODY)
    assert response.status_code == 200


def test_a_wrong_token_in_the_address(nobody):
    assert nobody.post("/paddlex/nonsense/shitu-index-build", json=BODY).status_code == 401


def test_a_closed_network_may_have_an_anonymous_user(nobody, settings, someone):
    settings.SHITU_PADDLEX_ANONYMOUS_USER = someone.username
    assert nobody.post("/shitu-index-build", json=BODY).status_code == 200
    assert Catalogue.objects.get().owner == someone
    settings.SHITU_PADDLEX_ANONYMOUS_USER = "nobody of that name"
    refused = nobody.post("/shitu-index-build", json=BODY)
    assert refused.status_code == 500
    assert "SHITU_PADDLEX_ANONYMOUS_USER" in refused.json()["errorMsg"]


def test_a_foreign_page_cannot_use_the_anonymous_user(nobody, settings, someone):
    settings.SHITU_PADDLEX_ANONYMOUS_USER = someone.username
    for origin, status in (("https://evil.example", 403), ("null", 403), ("http://127.0.0.1", 200)):
        response = nobody.post("/shitu-index-build", json=BODY, headers={"Origin": origin})
        assert response.status_code == status


def test_a_session_is_not_believed(nobody, client, someone):
    client.force_login(someone)
    answer = client.post("/shitu-index-build", BODY, content_type="application/json")
    assert answer.status_code == 401


def test_limits_and_what_nobody_foresaw_keep_the_envelope(local, settings, monkeypatch):
    from recognition.services import paddlex

    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 100
    large = local.post("/shitu-index-build", json=BODY)
    assert (large.status_code, large.json()["errorCode"]) == (413, 413)
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 10**6

    def fail(*args: object, **options: object) -> None:
        raise ZeroDivisionError("a secret of the server")

    monkeypatch.setattr(paddlex, "build", fail)
    response = local.post("/shitu-index-build", json=BODY | {"logId": "mine"})
    assert response.json() == {
        "logId": "mine", "errorCode": 500, "errorMsg": "Internal server error",
    }  # fmt: skip


def test_a_limit_says_when_to_come_again(local, monkeypatch):
    from recognition.errors import LimitReached
    from recognition.services import paddlex

    def limited(*args: object, **options: object) -> None:
        raise LimitReached("too many at once", retry_after=7.2)

    monkeypatch.setattr(paddlex, "build", limited)
    response = local.post("/shitu-index-build", json=BODY)
    assert (response.status_code, response.headers["Retry-After"]) == (429, "8")


def test_each_token_may_come_so_often(local, nobody_counted, settings, someone):
    settings.SHITU_API_REQUESTS_PER_MINUTE = 2
    for path in ("/shitu-index-build", "/shitu-infer"):
        assert local.post(path, json={}).status_code == 422
    refused = local.post("/shitu-index-build", json=BODY)
    assert (refused.status_code, refused.json()["errorCode"]) == (429, 429)
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert not Catalogue.objects.exists()
    del local.headers["Authorization"]
    settings.SHITU_PADDLEX_ANONYMOUS_USER = someone.username  # counted by itself
    assert local.post("/shitu-index-build", json=BODY).status_code == 200


@pytest.mark.parametrize(("method", "path"), [("POST", "/shitu-x"), ("PUT", "/shitu-infer")])
def test_of_a_stranger_only_a_short_body_is_read_for_its_log_id(nobody, method, path):
    def echoed(body: str) -> str:
        response = nobody.request(method, path, content=body)
        assert response.status_code in (404, 405)
        return response.json()["logId"]

    assert echoed('{"logId": "mine"}') == "mine"
    assert echoed('{"logId": "mine", "image": "' + "a" * 65_000 + '"}') == "mine"
    assert echoed('{"logId": "mine", "image": "' + "a" * 66_000 + '"}') != "mine"


def test_who_is_signed_in_finds_the_log_id_of_a_long_body_again(local):
    body = {"logId": "mine", "image": "a" * 100_000 + "*", "indexKey": "x"}
    response = local.post("/shitu-infer", json=body)
    assert (response.status_code, response.json()["logId"]) == (404, "mine")


def test_half_a_surrogate_pair_comes_back_as_it_was_written(local):
    headers = {"Content-Type": "application/json"}
    broken = rb'{"logId": "\ud800", "image": "YQ==", "indexKey": "\ud801"}'
    for path, status in (("/shitu-infer", 404), ("/shitu-x", 404), ("/shitu-index-build", 422)):
        response = local.post(path, content=broken, headers=headers)
        assert (response.status_code, response.json()["logId"]) == (status, r"\ud800")
    asked = local.post("/shitu-infer", content=broken, headers=headers)
    assert r"“\ud801”" in asked.json()["errorMsg"]
