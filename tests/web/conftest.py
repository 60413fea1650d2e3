"""Browsers, and a recognition in the state a test needs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from recognition.models import RecognitionQuery
from recognition.services import queries
from tests import factories

HTMX = {"HX-Request": "true"}


@pytest.fixture
def browser() -> Callable[..., Client]:
    """`browser(user)` is signed in as that user; `browser()` is nobody."""

    def signed_in(user=None) -> Client:
        client = Client()
        if user is not None:
            client.force_login(user)
        return client

    return signed_in


@pytest.fixture
def member(browser, user) -> Client:
    """The browser of the catalogue's owner."""
    return browser(user)


@pytest.fixture
def waiting(catalogue) -> RecognitionQuery:
    """A recognition that no worker has looked at."""
    factories.add(catalogue, "green tea", 1)
    return queries.submit(catalogue, factories.picture(1), by=catalogue.owner, source_name="a.png")


@pytest.fixture
def answered(catalogue, stub_engine, run_tasks) -> RecognitionQuery:
    """A recognition answered by the stub networks: its picture is in the gallery."""
    with run_tasks():
        factories.add(catalogue, "green tea", 1)
    with run_tasks():
        query = queries.submit(catalogue, factories.picture(1), by=catalogue.owner)
    query.refresh_from_db()
    assert query.state == "done", query.error
    return query


def upload(data: bytes | None = None, name: str = "shelf.png") -> SimpleUploadedFile:
    """A file as a browser sends it."""
    return SimpleUploadedFile(name, factories.png(1) if data is None else data, "image/png")
