"""The OpenAPI document says everything that can happen, and nothing else happens."""

from __future__ import annotations

import json
from typing import Any

import pytest
import schemathesis
import yaml
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections, transaction
from django.utils.translation import get_language
from drf_spectacular.drainage import GENERATOR_STATS
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiJsonRenderer
from drf_spectacular.validation import validate_schema
from hypothesis import HealthCheck, Phase, settings
from schemathesis.specs.openapi import checks

from recognition.api import document
from recognition.models import Job
from recognition.services import members, queries, tokens
from tests import factories


def _document() -> dict[str, Any]:
    document = SchemaGenerator().get_schema(request=None, public=True)
    return json.loads(OpenApiJsonRenderer().render(document))


DOCUMENT = _document()
# Without the phase that enumerates hundreds of border cases: minutes, for what is in other tests.
CONFIG = schemathesis.Config.from_dict({"phases": {"coverage": {"enabled": False}}})
api = schemathesis.openapi.from_dict(DOCUMENT, config=CONFIG)
api.app = get_wsgi_application()


@pytest.fixture
def one_connection():
    """Django closes what it finds in a transaction after each request; its own test client, which
    is not used here, prevents that in the same way."""
    signals = (request_started, request_finished)
    for signal in signals:
        signal.disconnect(close_old_connections)
    yield
    for signal in signals:
        signal.connect(close_old_connections)


@pytest.fixture
def world(one_connection, catalogue, stub_engine, run_tasks) -> dict[str, Any]:
    """A token of somebody who may do everything, and the ids of what is there."""
    with run_tasks():
        image = factories.add(catalogue, "tea", 1)
        query = queries.submit(catalogue, factories.picture(1), by=catalogue.owner)
    job = Job.objects.create(catalogue=catalogue, kind=Job.Kind.IMPORT)
    _, text = tokens.create(catalogue.owner, "schema")
    other, _ = tokens.create(catalogue.owner, "other")
    invitation, invited = members.invite(
        catalogue, "a@example.com", "viewer", by=catalogue.owner, link=str
    )
    return {
        "headers": {"Authorization": f"Bearer {text}"},
        "ids": {
            "catalogues": {
                "key": str(catalogue.key),
                "product": image.product_id,
                "number": image.number,
                "job": str(job.key),
                "member": factories.member(catalogue, "viewer").memberships.get().pk,
                "invitation": invitation.pk,
            },
            "recognitions": {"key": str(query.key), "position": 0},
            "invitations": {"text": invited},
            "tokens": {"token": other.token_key},
        },
    }


@api.include(path_regex="^/api/v1/").parametrize()
@settings(
    max_examples=20,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_operation_does_what_its_schema_says(case, world):
    ids = world["ids"].get(case.path.split("/")[3], {})
    case.path_parameters = {name: ids[name] for name in case.path_parameters or {}}
    with transaction.atomic():
        # Chosen fields leave out what the schema rightly promises of a whole answer.
        whole = [] if "fields" in (case.query or {}) else [checks.response_schema_conformance]
        case.call_and_validate(
            headers=world["headers"],
            checks=[
                checks.status_code_conformance,
                checks.content_type_conformance,
                checks.response_headers_conformance,
                schemathesis.checks.not_a_server_error,
                *whole,
            ],
        )
        transaction.set_rollback(True)


def test_it_is_valid_openapi_made_without_a_warning(capsys):
    GENERATOR_STATS.reset()
    validate_schema(SchemaGenerator().get_schema(request=None, public=True))
    assert not GENERATOR_STATS, capsys.readouterr().err


def test_it_is_made_once_for_each_format_and_language(client, monkeypatch):
    made: list[str | None] = []
    make = SchemaGenerator.get_schema

    def get_schema(self: SchemaGenerator, *given: Any, **named: Any) -> Any:
        made.append(get_language())
        return make(self, *given, **named)

    document._document.cache_clear()
    monkeypatch.setattr(SchemaGenerator, "get_schema", get_schema)
    for query in ("", "?lang=en", "?lang=xx", "?version=2", "?version=3&x=1"):
        answer = client.get(f"/api/schema/{query}")
        assert answer.headers["Content-Type"] == "application/vnd.oai.openapi; charset=utf-8"
        assert yaml.safe_load(answer.content)["paths"] == DOCUMENT["paths"]
    assert made == ["en"]
    for query in ("?format=json", "?format=json&version=4"):
        assert json.loads(client.get(f"/api/schema/{query}").content) == DOCUMENT
    assert made == ["en", "en"]
    client.get("/api/schema/", headers={"Accept-Language": "zh-CN"})
    chinese = client.get("/api/schema/?lang=zh-hans")
    assert "Shitu" in chinese.headers["Content-Disposition"]
    assert made == ["en", "en", "zh-hans"]


def test_a_documented_status_is_the_one_that_comes():
    def responses(path: str, method: str) -> dict[str, Any]:
        return DOCUMENT["paths"][path][method]["responses"]

    assert not {"201"} & set(responses("/api/v1/paddlex-indexes", "post"))
    early = responses("/api/v1/recognitions/{key}/annotated", "get")["409"]
    assert early["content"]["application/json"]["schema"]["$ref"].endswith("/Error")


OPERATIONS = [
    pytest.param(method, path, operation, id=f"{method} {path}")
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
    if path.startswith("/api/v1/")
]


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS)
def test_errors_are_documented_too(method, path, operation):
    responses = operation["responses"]
    expected = {"400", "401", "403", "429", "503"}
    expected |= {"404"} if "{" in path else set()
    expected |= {"409", "413", "415"} if method in ("post", "put", "patch") else set()
    assert expected <= set(responses)
    for status in expected:
        content = responses[status]["content"]["application/json"]
        assert content["schema"] == {"$ref": "#/components/schemas/Error"}


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS)
def test_each_operation_has_one_line_that_says_what_it_does(method, path, operation):
    assert 10 < len(operation["summary"]) < 200
    assert "\n" not in operation["summary"]
    assert not operation.get("description", "").startswith(operation["summary"])


def test_names_of_operations_are_their_own():
    names = [param.values[2]["operationId"] for param in OPERATIONS]
    assert len(names) == len(set(names)) > 20


def test_it_is_served_with_pages_that_need_no_network(client):
    document = client.get("/api/schema/")
    assert document.status_code == 200
    page = client.get("/api/docs/").content.decode()
    assert "swagger-ui" in page
    assert "https://" not in page and "//cdn" not in page
