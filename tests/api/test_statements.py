"""How often one recognition asks the database, by either door."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection

from recognition.services import answering, bell, product_merging, products
from tests import factories

_TABLE = re.compile(r'(?:FROM|INTO|UPDATE) "recognition_(\w+)"(?! U0)')  # U0: of a subquery
# What comes before a worker has been woken: who asks, of what, whether there is room and leave.
_ASKING = ["apitoken", "catalogue", "recognitionquery", "quota", "recognitionquery"]


@pytest.fixture
def statements(monkeypatch, catalogue, stub_engine, run_tasks):
    """Tables of the statements of the web, in order; the worker's own are not counted."""
    with run_tasks():
        factories.add(catalogue, "tea", 1)
    working = False

    def answer(*_: Any) -> None:
        nonlocal working
        working = True
        answering.answer_waiting()
        working = False

    monkeypatch.setattr(bell, "listen", answer)

    @contextmanager
    def counted() -> Iterator[list[str]]:
        tables: list[str] = []

        def note(execute: Any, sql: str, *rest: Any) -> Any:
            if not working and "SAVEPOINT" not in sql:  # a test runs in a transaction of its own
                tables.append(_TABLE.search(sql)[1])
            return execute(sql, *rest)

        with connection.execute_wrapper(note):
            yield tables

    return counted


@pytest.fixture
def client(with_token, catalogue):
    client = with_token(catalogue.owner)
    client.get("/api/v1/catalogues")  # writes down that the token was used, once a minute
    return client


def test_of_the_api(client, url, statements):
    body = {"image": base64.b64encode(factories.png(1)).decode()}
    with statements() as tables:
        response = client.post(url("recognitions") + "?wait=5", body, format="json")
    assert response.status_code == 201 and response.json()["detections"][0]["matches"]
    assert tables == [*_ASKING, "recognitionquery", "match", "detection"]


def test_what_a_till_needs_costs_no_statement_more(client, url, catalogue, statements):
    """Not even where a product was merged into another since."""
    body = {"image": base64.b64encode(factories.png(1)).decode()}
    asked = client.post(url("recognitions") + "?wait=5", body, format="json")
    drink = products.create(catalogue, "drink", price="1.99", currency="EUR")
    product_merging.merge([catalogue.products.get(label="tea")], drink)
    with statements() as plain:
        client.get(asked["Location"])
    with statements() as detailed:
        answer = client.get(asked["Location"] + "?details=true").json()
    assert answer["detections"][0]["matches"][0]["details"]["price"] == "1.9900"
    assert detailed == plain


def test_of_paddlex(client, catalogue, statements):
    body = {
        "image": base64.b64encode(factories.png(1)).decode(),
        "indexKey": str(catalogue.key),
        "visualize": False,
    }
    with statements() as tables:
        response = client.post("/shitu-infer", body, format="json")
    assert response.json()["result"]["detectedObjects"][0]["recResults"]
    assert tables == [*_ASKING, "recognitionquery", "detection"]
