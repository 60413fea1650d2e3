"""API tokens made, listed and revoked through the API; audit and quotas beside them."""

from __future__ import annotations

import csv
import io

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from recognition.models import ApiToken, AuditEntry, Role
from recognition.services import products, quotas
from tests import factories

TOKENS = "/api/v1/tokens"


def _with(text: str) -> APIClient:
    return APIClient(headers={"Authorization": f"Bearer {text}"})


def test_made_shown_once_and_used(manager, url, catalogue):
    body = {"name": "till 7", "role": "viewer", "catalogues": [str(catalogue.key)], "days": 30}
    made = manager.post(TOKENS, body, format="json")
    assert made.status_code == 201, made.content
    text = made.json()["token"]
    assert text.startswith(made.json()["id"])
    till = _with(text)
    assert till.get(url()).json()["role"] == "viewer"
    assert till.post(url("products"), {"label": "x"}, format="json").status_code == 403
    listed = manager.get(TOKENS)
    assert text not in listed.content.decode()
    [shown] = listed.json()["results"]
    assert (shown["name"], shown["role"], shown["catalogues"]) == (
        "till 7",
        "viewer",
        [str(catalogue.key)],
    )
    assert shown["last_used_at"] and shown["expires_at"]


def test_revoked(manager, url):
    made = manager.post(TOKENS, {"name": "x"}, format="json").json()
    assert _with(made["token"]).get(url()).status_code == 200
    assert manager.delete(f"{TOKENS}/{made['id']}").status_code == 204
    assert _with(made["token"]).get(url()).status_code == 401
    assert manager.delete(f"{TOKENS}/{made['id']}").status_code == 404


def test_only_ones_own(manager, outsider):
    made = manager.post(TOKENS, {"name": "x"}, format="json").json()
    assert outsider.get(TOKENS).json()["results"] == []
    assert outsider.delete(f"{TOKENS}/{made['id']}").status_code == 404


def test_a_catalogue_one_does_not_see(outsider, catalogue):
    body = {"name": "x", "catalogues": [str(catalogue.key)]}
    answer = outsider.post(TOKENS, body, format="json")
    assert list(answer.json()["error"]["fields"]) == ["catalogues"]
    assert not ApiToken.objects.exists()


@pytest.mark.parametrize(
    "wrong", [{}, {"name": ""}, {"name": "x", "days": 0}, {"name": "x", "role": "?"}]
)
def test_a_wrong_wish(manager, wrong):
    assert manager.post(TOKENS, wrong, format="json").status_code == 400


def test_a_limited_token_makes_no_token(with_token, catalogue):
    for limited in ({"role": Role.EDITOR}, {"catalogues": [catalogue]}):
        client = with_token(catalogue.owner, **limited)
        assert client.post(TOKENS, {"name": "x"}, format="json").status_code == 403


def test_a_token_makes_none_that_outlives_it(with_token, catalogue):
    client = with_token(catalogue.owner, days=2)
    for days in ({}, {"days": 900}):
        made = client.post(TOKENS, {"name": "child", **days}, format="json").json()
        child = ApiToken.objects.get(token_key=made["id"])
        assert child.expiry <= ApiToken.objects.get(name="test").expiry
    short = client.post(TOKENS, {"name": "short", "days": 1}, format="json").json()
    left = ApiToken.objects.get(token_key=short["id"]).expiry - timezone.now()
    assert left.total_seconds() < 86_401


# --- Audit ----------------------------------------------------------------------------------------


def test_what_was_done_is_read(manager, editor, url):
    made = editor.post(url("products"), {"label": "tea"}, format="json").json()
    editor.patch(url("products", made["id"]), {"sku": "T"}, format="json")
    [newest, *_] = manager.get(url("audit"), {"object_type": "product"}).json()["results"]
    assert (newest["action"], newest["source"]) == ("product.change", "api")
    assert newest["changes"] == {"sku": ["", "T"]}
    found = manager.get(url("audit"), {"action": "product.create"}).json()["results"]
    assert [one["object_name"] for one in found] == ["tea"]
    assert manager.get(url("audit"), {"after": "2999-01-01T00:00:00Z"}).json()["results"] == []


def test_exported_with_the_same_filters(manager, url, catalogue):
    products.create(catalogue, "=1+1")
    answer = manager.get(url("audit.csv"), {"action": "product.create"})
    assert answer["Content-Type"].startswith("text/csv")
    text = b"".join(answer.streaming_content).decode("utf-8-sig")
    [row] = csv.DictReader(io.StringIO(text))
    assert (row["action"], row["object_name"]) == ("product.create", "'=1+1")
    assert manager.get(url("audit.csv"), {"action": "?"}).status_code == 400


def test_nobody_reads_what_was_done_elsewhere(manager, url):
    products.create(factories.catalogue(), "secret")
    everything = b"".join(manager.get(url("audit.csv")).streaming_content).decode()
    assert "secret" not in everything + manager.get(url("audit")).content.decode()


def test_acts_through_the_api_name_the_token(with_token, manager, url, catalogue):
    with_token(catalogue.owner).post(url("products"), {"label": "tea"}, format="json")
    entry = AuditEntry.objects.filter(action="product.create").get()
    assert entry.token.startswith("test (")


# --- Quotas ---------------------------------------------------------------------------------------


def test_limits_and_what_is_used(viewer, url, catalogue):
    factories.add(catalogue, "tea", 1)
    quotas.change(catalogue, images=10)
    use = viewer.get(url("quotas")).json()
    assert use["images"] == {"used": 1, "most": 10}
    assert use["concurrent_jobs"] == {"used": 0, "most": None}
    assert set(use) == set(quotas.LIMITS)
    assert use["queries_per_minute"] == {"used": None, "most": None}
    quotas.change(catalogue, queries_per_minute=9)
    assert viewer.get(url("quotas")).json()["queries_per_minute"] == {"used": 0, "most": 9}
