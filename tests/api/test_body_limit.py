"""What is too large is refused by its length, before a byte of it is read."""

from __future__ import annotations

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import QueryDict
from django.http.multipartparser import MultiPartParser
from django.test import Client
from django.urls import reverse

CSRF = {"X-CSRFToken": "a" * 32}


@pytest.fixture(autouse=True)
def limits(settings) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 20_000
    settings.SHITU_MAX_IMPORT_BYTES = 100_000


@pytest.fixture
def read(monkeypatch) -> list[int]:
    """The lengths of the forms that were read."""
    lengths: list[int] = []
    parse = MultiPartParser.parse

    def noted(parser: MultiPartParser):
        lengths.append(parser._content_length)
        return parse(parser)

    monkeypatch.setattr(MultiPartParser, "parse", noted)
    return lengths


def browser(user=None) -> Client:
    """A real one: its CSRF token is checked, and to find it the form is read."""
    client = Client(enforce_csrf_checks=True)
    if user is not None:
        client.force_login(user)
    client.cookies["csrftoken"] = "a" * 32
    return client


def form(byte_size: int, **fields: str) -> dict[str, object]:
    return {"file": SimpleUploadedFile("a.zip", b"a" * byte_size), **fields}


STAFF = "admin:recognition_catalogue_changelist"


@pytest.mark.parametrize("page", ["login", "admin:login", "set_language", "transfer", STAFF])
def test_nobody_fills_the_disk_with_a_form(read, catalogue, page):
    address = reverse(page, args=[catalogue.key] if page == "transfer" else [])
    response = browser().post(address, form(30_000))
    assert (response.status_code, response["Content-Type"]) == (413, "text/plain; charset=utf-8")
    assert b"more than the 20,000 bytes" in response.content
    assert read == []


@pytest.mark.parametrize("name", ["api:images", "api:recognitions", "api:products-upsert"])
def test_of_a_session_the_api_reads_no_more_than_of_a_token(read, catalogue, name):
    address = reverse(name, args=[catalogue.key])
    response = browser(catalogue.owner).post(address, form(30_000), headers=CSRF)
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "too_large"
    assert read == []


@pytest.mark.parametrize("name", ["api:imports", "paddlex-indexes"])
def test_the_api_asks_who_it_is_before_it_reads_an_import(read, catalogue, name):
    address = reverse(name, args=[catalogue.key] if name == "api:imports" else [])
    for header in ({}, {"Authorization": "Bearer nobody"}):
        response = browser().post(address, form(30_000), headers=CSRF | header)
        assert response.status_code == 401
    assert read == []


@pytest.mark.parametrize("name", ["api:imports", "paddlex-indexes", "transfer", STAFF])
def test_imports_may_be_larger_and_have_their_limit_too(read, catalogue, name):
    with_key = name in ("api:imports", "transfer")
    address = reverse(name, args=[catalogue.key] if with_key else [])
    catalogue.owner.is_staff = catalogue.owner.is_superuser = True
    catalogue.owner.save()
    client = browser(catalogue.owner)
    assert client.post(address, form(30_000), headers=CSRF).status_code != 413
    assert len(read) == 1
    assert client.post(address, form(2_000_000), headers=CSRF).status_code == 413
    assert len(read) == 1


@pytest.mark.parametrize("name", ["api:imports", "paddlex-indexes"])
def test_the_limit_of_an_import_is_that_of_its_file(catalogue, name):
    address = reverse(name, args=[catalogue.key] if name == "api:imports" else [])
    response = browser(catalogue.owner).post(address, form(100_001), headers=CSRF)
    assert response.status_code == 413
    assert "SHITU_MAX_IMPORT_BYTES" in response.json()["error"]["message"]


def test_paddlex_has_its_envelope(read, client):
    response = client.post("/shitu-infer", form(30_000))
    assert (response.status_code, response.json()["errorCode"]) == (413, 413)
    assert "more than the 20,000 bytes" in response.json()["errorMsg"]
    assert read == []


FIELDS = "application/x-www-form-urlencoded"


@pytest.fixture
def usual_limits(settings) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 100 * 2**20
    settings.SHITU_MAX_IMPORT_BYTES = 200 * 2**20


@pytest.fixture
def unquoted(monkeypatch) -> list[int]:
    """The lengths of the forms without files that were read."""
    lengths: list[int] = []
    make = QueryDict.__init__

    def noted(fields: QueryDict, query=None, *args, **options):
        if isinstance(query, bytes):
            lengths.append(len(query))
        make(fields, query, *args, **options)

    monkeypatch.setattr(QueryDict, "__init__", noted)
    return lengths


@pytest.mark.parametrize("page", ["/login/", "/admin/login/", "/language/", "/api/v1/tokens"])
@pytest.mark.usefixtures("usual_limits")
def test_a_form_without_files_is_short_for_everybody(unquoted, catalogue, page):
    """100 MiB of `%41` filled gigabytes, an object for each."""
    for who in (None, catalogue.owner):
        client = browser(who)
        body = b"a=" + b"%41" * 700_000
        refused = client.post(page, body, content_type=FIELDS, headers=CSRF)
        assert refused.status_code == 413
        assert "2,097,152 bytes; send JSON as application/json" in refused.content.decode()
        assert unquoted == []
        client.post(page, b"a=" + b"b" * 100_000, content_type=FIELDS, headers=CSRF)
        unquoted.clear()


def test_paddlex_says_so_too(client):
    response = client.post("/shitu-infer", b"{" + b"a" * 30_000, content_type=FIELDS)
    assert (response.status_code, response.json()["errorCode"]) == (413, 413)


@pytest.mark.parametrize("page", ["login", "admin:login", "set_language", "transfer", STAFF])
@pytest.mark.usefixtures("usual_limits")
def test_a_page_reads_little_of_whoever_is_not_signed_in(read, catalogue, page):
    address = reverse(page, args=[catalogue.key] if page == "transfer" else [])
    stranger = browser()
    stranger.cookies["sessionid"] = "made-up"
    response = stranger.post(address, form(1_100_000), headers=CSRF)
    assert response.status_code == 413
    assert b"more than the 1,048,576 bytes" in response.content
    assert read == []
    response = browser(catalogue.owner).post(address, form(1_100_000), headers=CSRF)
    assert response.status_code != 413
    assert len(read) == 1
