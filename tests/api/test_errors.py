"""Every error has one shape, whoever raised it."""

from __future__ import annotations

import json

import pytest
from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import OperationalError
from django.http import Http404
from django.test import Client
from psycopg.errors import DeadlockDetected, ForeignKeyViolation, UniqueViolation
from rest_framework import exceptions

from recognition import errors
from recognition.api.errors import STATUS, status_of, to_response
from recognition.models import Catalogue


def _tree(kind: type[Exception]):
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.BadInput("no"), 400),
        (errors.BadImage("no"), 400),
        (errors.FetchRefused("no"), 400),
        (errors.TooLarge("no"), 413),
        (errors.StorageFull("no"), 413),
        (errors.NotFound("no"), 404),
        (errors.RoleTooLow("no"), 403),
        (errors.Conflict("no"), 409),
        (errors.VersionMismatch("no"), 412),
        (errors.LimitReached("no"), 429),
        (errors.NotReady("no"), 503),
        (errors.AnswerTimeout("no"), 504),
        (errors.ModelUnavailable("no"), 503),
        (errors.TryAgain("no"), 503),
        (errors.EngineFailed("no"), 500),
        (errors.SetupError("no"), 500),
    ],
    ids=lambda part: getattr(part, "code", part),
)
def test_each_domain_error_has_its_status(error, status):
    response = to_response(error, {})
    assert response.status_code == status
    assert response.data["error"]["code"] == error.code
    assert response.data["error"]["message"] == "no"


def test_no_kind_of_error_is_without_a_status():
    kinds = [kind for kind in _tree(errors.RecognitionError) if kind.__module__ == errors.__name__]
    assert len(kinds) > 12
    assert all(400 <= status_of(kind.__new__(kind)) < 600 for kind in kinds)
    assert set(STATUS) <= set(kinds)


def test_the_wrong_field_is_named():
    response = to_response(errors.BadInput("too long", field="label"), {})
    assert response.data["error"]["fields"] == {"label": ["too long"]}


def test_a_limit_says_when_to_come_back():
    assert to_response(errors.LimitReached("full", retry_after=2.1), {})["Retry-After"] == "3"
    assert "Retry-After" not in to_response(errors.LimitReached("full"), {})


def test_throttling_says_when_to_come_back():
    response = to_response(exceptions.Throttled(wait=9.5), {})
    assert (response.status_code, response["Retry-After"]) == (429, "10")
    assert response.data["error"]["code"] == "throttled"


def test_nested_validation_is_flattened():
    detail = {"images": [{}, {"label": ["too long"]}], "box": {"0": ["no"]}}
    error = to_response(exceptions.ValidationError(detail), {}).data["error"]
    assert error["fields"] == {"images.1.label": ["too long"], "box.0": ["no"]}
    assert error["message"] == "images.1.label: too long"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Http404("a secret"), 404),
        (PermissionDenied("a secret"), 403),
        (RequestDataTooBig("a secret"), 413),
        (SuspiciousOperation("a secret"), 400),
    ],
    ids=lambda part: type(part).__name__,
)
def test_djangos_own_errors_too_and_they_tell_nothing(error, status):
    response = to_response(error, {})
    assert response.status_code == status
    assert "secret" not in json.dumps(response.data)


def test_an_unforeseen_error_is_left_for_the_log():
    assert to_response(ZeroDivisionError(), {}) is None


@pytest.mark.parametrize("path", ["/api/v1/catalogues", "/shitu-infer", "/"])
def test_a_name_that_the_site_does_not_have_is_said(client: Client, path):
    said = client.post(path, headers={"Host": "shop.example"})
    assert said.status_code == 400
    text = said.content.decode()
    assert "SHITU_ALLOWED_HOSTS" in text
    if path == "/shitu-infer":
        assert said.json()["errorCode"] == 400
        assert "SHITU_ALLOWED_HOSTS" in said.json()["errorMsg"]
    elif path == "/":
        assert said["Content-Type"].startswith("text/plain")
    else:
        assert said.json()["error"]["code"] == "bad_input"


def test_no_such_address_without_the_slash_either(client: Client):
    answer = client.get("/api", headers={"Accept": "text/html"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_a_slash_too_many_is_named(client: Client):
    def said(address: str) -> str:
        answer = client.get(address)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
        return answer.json()["error"]["message"]

    assert "no slash at their end; ask for /api/v1/catalogues" in said("/api/v1/catalogues/")
    assert "slash" not in said("/api/v1/nothing/")


def test_no_such_address(client: Client):
    response = client.get("/api/v1/nothing")
    assert response.status_code == 404
    error = response.json()["error"]
    assert error["code"] == "not_found"
    assert error["request_id"] == response["X-Request-ID"]


def test_a_crash_is_a_500_with_its_request_id_and_no_traceback(manager, url, monkeypatch):
    from recognition.services import catalogues

    def crash(*_: object) -> None:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(catalogues, "statistics", crash)
    manager.raise_request_exception = False
    response = manager.get(url("statistics"))
    assert response.status_code == 500
    error = response.json()["error"]
    assert error["request_id"] == response["X-Request-ID"] != ""
    assert "secret" not in response.content.decode()


@pytest.mark.django_db
def test_every_answer_names_its_request(manager, url):
    ids = {manager.get(url())["X-Request-ID"] for _ in range(3)}
    assert len(ids) == 3


def test_a_request_id_of_the_clients_is_not_believed(manager, url):
    forged = 'x" evil="1'
    assert manager.get(url(), headers={"X-Request-ID": forged})["X-Request-ID"] != forged


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"name": "\\ud800"}', "application/json", 400),
        (b'{"name": NaN}', "application/json", 400),
        (b"null", "application/json", 400),
        (b"[]", "application/json", 400),
        (b'"text"', "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"name=x", "application/x-www-form-urlencoded", 415),
        (b"x", "", 415),
    ],
)
def test_a_malformed_body(manager, body, kind, status):
    response = manager.generic("POST", "/api/v1/catalogues", body, content_type=kind)
    assert response.status_code == status
    assert set(response.json()["error"]) >= {"code", "message", "request_id"}


def test_a_method_that_is_not_there(manager, url):
    response = manager.put(url(), {}, format="json")
    assert response.status_code == 405
    assert response.json()["error"]["code"] == "method_not_allowed"


def test_a_body_too_large_is_refused_unread(manager, settings, url):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 100
    response = manager.post(url("images"), {"images": [{"label": "x" * 200}]}, format="json")
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "too_large"


@pytest.mark.parametrize(
    ("cause", "status", "code"),
    [
        (ForeignKeyViolation(), 409, "conflict"),
        (DeadlockDetected(), 503, "try_again"),
        (UniqueViolation(), None, None),
    ],
)
def test_what_the_database_says_of_two_at_once(cause, status, code):
    error = OperationalError("no")
    error.__cause__ = cause
    response = to_response(error, {})
    if status is None:
        assert response is None  # nobody foresaw it: a 500 in the log
    else:
        assert (response.status_code, response.data["error"]["code"]) == (status, code)


def test_a_row_that_goes_while_the_request_is_at_work_was_never_there():
    assert to_response(Catalogue.DoesNotExist("no"), {}).status_code == 404


def test_paddlex_says_the_same(client, monkeypatch, settings, user):
    from recognition.services import paddlex

    def gone(*args, **options):
        raise Catalogue.DoesNotExist("no")

    settings.SHITU_PADDLEX_ANONYMOUS_USER = user.username
    monkeypatch.setattr(paddlex, "find", gone)
    body = {"ids": [0], "indexKey": "x"}
    answer = client.post("/shitu-index-remove", body, content_type="application/json")
    assert (answer.status_code, answer.json()["errorCode"]) == (404, 404)
