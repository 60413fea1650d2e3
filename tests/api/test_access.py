"""Who may use which route. A new route without a line here fails."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import transaction
from django.urls import URLPattern, reverse
from django.utils import timezone
from rest_framework.test import APIClient

from recognition.api import urls
from recognition.models import ApiToken, Job, Membership, Role, State
from recognition.services import files, members, products, queries, tokens, trash
from tests import factories

PUBLIC, SIGNED_IN, STAFF = "public", "signed in", "staff"
UNLIMITED = "signed in without a limited token"


@dataclass(frozen=True)
class Access:
    """Who may (a role of the catalogue, or one of the words above), and the status they get."""

    who: str
    status: int = 200
    body: Any = None
    query: str = ""


PNG = base64.b64encode(factories.png(9)).decode()

ROUTES = {
    ("schema", "get"): Access(PUBLIC),
    ("docs", "get"): Access(PUBLIC),
    ("catalogues", "get"): Access(SIGNED_IN),
    ("catalogues", "post"): Access(
        UNLIMITED, 201, {"name": "new", "feature_model": "stub_rec", "detector": ""}
    ),
    ("catalogue", "get"): Access(Role.VIEWER),
    ("catalogue", "patch"): Access(Role.MANAGER, 200, {"top_k": 3}),
    ("catalogue", "delete"): Access(Role.MANAGER, 204),
    ("statistics", "get"): Access(Role.VIEWER),
    ("products", "get"): Access(Role.VIEWER),
    ("products", "post"): Access(Role.EDITOR, 201, {"label": "new"}),
    ("product", "get"): Access(Role.VIEWER),
    ("product", "patch"): Access(Role.EDITOR, 200, {"label": "renamed"}),
    ("product", "delete"): Access(Role.EDITOR, 204),
    ("products-upsert", "post"): Access(Role.EDITOR, 200, {"products": [{"external_id": "1"}]}),
    ("products-change", "post"): Access(Role.EDITOR, 404, {"products": [2**40]}),
    ("products-remove", "post"): Access(Role.EDITOR, 404, {"products": [2**40]}),
    ("products-move", "post"): Access(
        Role.EDITOR, 404, {"products": [2**40], "catalogue": str(UUID(int=0))}
    ),
    ("product-merge", "post"): Access(Role.EDITOR, 404, {"products": [2**40]}),
    ("product-split", "post"): Access(Role.EDITOR, 201, {"label": "new", "images": [0]}),
    ("trash", "get"): Access(Role.EDITOR),
    ("trashed", "delete"): Access(Role.MANAGER, 204),
    ("trash-restore", "post"): Access(Role.EDITOR, 200, {}),
    ("images", "get"): Access(Role.VIEWER),
    ("images", "post"): Access(Role.EDITOR, 201, {"images": [{"label": "new", "image": PNG}]}),
    ("images-remove", "post"): Access(Role.EDITOR, 200, {"numbers": [0]}),
    ("images-retry", "post"): Access(Role.EDITOR, 200, {}),
    ("image", "get"): Access(Role.VIEWER),
    ("images-move", "post"): Access(Role.EDITOR, 200, {"numbers": [0], "label": "new"}),
    ("image", "patch"): Access(Role.EDITOR, 200, {"label": "new"}),
    ("image", "delete"): Access(Role.EDITOR, 204),
    ("image-picture", "get"): Access(Role.VIEWER),
    ("image-thumbnail", "get"): Access(Role.VIEWER),
    ("recognitions", "get"): Access(Role.VIEWER),
    ("recognitions", "post"): Access(Role.VIEWER, 202, {"image": PNG}),
    ("image-similar", "get"): Access(Role.VIEWER),
    ("recognition", "get"): Access(Role.VIEWER),
    ("recognition", "delete"): Access(Role.MANAGER, 204),
    ("recognition-picture", "get"): Access(Role.VIEWER),
    ("recognition-annotated", "get"): Access(Role.VIEWER),
    ("recognition-feedback", "put"): Access(Role.OPERATOR, 200, {"verdict": "confirmed"}),
    ("recognition-feedback", "delete"): Access(Role.OPERATOR, 204),
    ("members", "get"): Access(Role.VIEWER),
    ("members", "post"): Access(Role.MANAGER, 201, {"user": "newcomer", "role": "viewer"}),
    ("member", "patch"): Access(Role.MANAGER, 200, {"role": "editor"}),
    ("member", "delete"): Access(Role.MANAGER, 204),
    ("invitations", "get"): Access(Role.MANAGER),
    ("invitations", "post"): Access(Role.MANAGER, 201, {"email": "a@example.com"}),
    ("invitation", "delete"): Access(Role.MANAGER, 204),
    ("invited", "get"): Access(SIGNED_IN),
    ("invited", "post"): Access(UNLIMITED),
    ("tokens", "get"): Access(UNLIMITED),
    ("tokens", "post"): Access(UNLIMITED, 201, {"name": "till"}),
    ("token", "delete"): Access(UNLIMITED, 404),
    ("audit", "get"): Access(Role.MANAGER),
    ("audit-table", "get"): Access(Role.MANAGER),
    ("quotas", "get"): Access(Role.VIEWER),
    ("index", "get"): Access(Role.VIEWER),
    ("index", "patch"): Access(Role.MANAGER, 200, {"m": 24}),
    ("index-rebuild", "post"): Access(Role.MANAGER, 201),
    ("index-explain", "get"): Access(Role.VIEWER, query="?image=0"),
    ("workers", "get"): Access(STAFF),
    ("jobs", "get"): Access(Role.VIEWER),
    ("job", "get"): Access(Role.VIEWER),
    ("job-lines", "get"): Access(Role.VIEWER),
    ("job-report", "get"): Access(Role.VIEWER),
    ("job-file", "get"): Access(Role.EDITOR),
    ("job-cancel", "post"): Access(Role.EDITOR),
    ("job-retry", "post"): Access(Role.EDITOR),
    ("imports", "post"): Access(Role.EDITOR, 201, lambda: {"file": _upload("tea.zip")}),
    ("exports", "post"): Access(Role.EDITOR, 201, {}),
}


def _upload(name: str) -> SimpleUploadedFile:
    return SimpleUploadedFile(name, b"no matter what")


def _in_url_conf() -> Iterator[tuple[str, str]]:
    """Every (route, method) that the URL conf answers."""
    for pattern in urls.urlpatterns:
        assert isinstance(pattern, URLPattern) and pattern.name, pattern
        actions = getattr(pattern.callback, "actions", None) or {
            method: method
            for method in ("get", "post", "put", "patch", "delete")
            if hasattr(pattern.callback.view_class, method)
        }
        yield from ((pattern.name, method) for method in actions if method != "head")


def _pattern(name: str) -> Any:
    return next(pattern for pattern in urls.urlpatterns if pattern.name == name)


def test_every_route_has_a_line_here():
    assert sorted(_in_url_conf()) == sorted(ROUTES)


def _expected(access: Access) -> dict[str, int]:
    """Status for each kind of person."""
    if access.who == PUBLIC:
        return dict.fromkeys(PEOPLE, access.status) | {"expired token": 200}
    expected = {"anonymous": 401, "expired token": 401}
    if access.who == STAFF:
        return (
            expected
            | {who: 403 for who in PEOPLE if who not in expected}
            | {"staff, no member": access.status}
        )
    if access.who in (SIGNED_IN, UNLIMITED):
        limited = access.status if access.who == SIGNED_IN else 403
        return (
            expected
            | dict.fromkeys(
                ["outsider", "viewer", "operator", "editor", "manager", "staff, no member"],
                access.status,
            )
            | {"token for another catalogue": limited, "token for viewers": limited}
        )
    needed = Role(access.who)
    strangers = ["outsider", "staff, no member", "token for another catalogue"]
    expected |= dict.fromkeys(strangers, 404)
    expected |= {str(role): access.status if role.rank >= needed.rank else 403 for role in Role}
    return expected | {"token for viewers": access.status if needed == Role.VIEWER else 403}


PEOPLE = [
    "anonymous",
    "outsider",
    "staff, no member",
    "viewer",
    "operator",
    "editor",
    "manager",
    "expired token",
    "token for another catalogue",
    "token for viewers",
]


@pytest.fixture
def people(api, catalogue, with_token) -> dict[str, Callable[[], APIClient]]:
    """How each kind of person comes: nobody, by session, by a token of the catalogue's manager."""
    other = factories.catalogue(owner=catalogue.owner)

    def session(user) -> Callable[[], APIClient]:
        client = APIClient()
        client.force_login(user)
        return lambda: client

    made = {
        "anonymous": api,
        "outsider": session(factories.user("outsider")),
        "staff, no member": session(factories.user("staff", is_staff=True, is_superuser=True)),
        **{str(role): session(factories.member(catalogue, role)) for role in Role},
    }
    boss = catalogue.owner
    _, expired = tokens.create(boss, "expired", days=1)
    ApiToken.objects.filter(name="expired").update(expiry=timezone.now() - timedelta(seconds=1))
    expired_client = APIClient(headers={"Authorization": f"Bearer {expired}"})
    elsewhere = with_token(boss, catalogues=[other])
    reader = with_token(boss, role=Role.VIEWER)
    return made | {
        "expired token": lambda: expired_client,
        "token for another catalogue": lambda: elsewhere,
        "token for viewers": lambda: reader,
    }


@pytest.fixture
def address(catalogue, stub_engine, run_tasks) -> Callable[[str], str]:
    """The address of a route of a catalogue that has one of everything."""
    with run_tasks():
        image = factories.add(catalogue, "tea", 1)
        query = queries.submit(catalogue, factories.picture(1), by=None)
    running, failed, exported = (
        Job.objects.create(catalogue=catalogue, kind=kind, **fields)
        for kind, fields in (
            (Job.Kind.IMPORT, {}),
            (Job.Kind.IMPORT, {"state": State.FAILED}),
            (Job.Kind.EXPORT, {"state": State.DONE, "file": files.keep("jobs/x.zip", b"PK")}),
        )
    )
    removed = products.create(catalogue, "removed")
    trash.put(catalogue, [removed])
    managers = catalogue.memberships.filter(role=Role.MANAGER)
    shared = factories.catalogue(factories.user("newcomer"))
    for one in managers:
        Membership.objects.create(catalogue=shared, user=one.user, role=Role.VIEWER)
    invitation, invited = members.invite(
        catalogue, "b@example.com", Role.VIEWER, by=catalogue.owner, link=str
    )
    ids: dict[str, Any] = {
        "product": image.product_id,
        "number": image.number,
        "job": running.key,
        "member": factories.member(catalogue, Role.VIEWER).memberships.get().pk,
        "invitation": invitation.pk,
        "text": invited,
        "position": 0,
        "token": "of-nobody",
    }
    special = {
        "trashed": {"product": removed.pk},
        "trash-restore": {"product": removed.pk},
        "job-retry": {"job": failed.key},
        "job-file": {"job": exported.key},
    }

    def find(name: str) -> str:
        """With as many of the ids as the route has places for."""
        key = {"key": query.key if name.startswith("recognition-") else catalogue.key}
        if name == "recognition":
            key = {"key": query.key}
        places = _pattern(name).pattern.converters
        given = key | ids | special.get(name, {})
        return reverse(f"api:{name}", kwargs={place: given[place] for place in places})

    return find


def _sent(body: Any) -> dict[str, Any]:
    """A form is made anew for each request, because sending reads its files."""
    if callable(body):
        return {"data": body(), "format": "multipart"}
    return {"data": body, "format": "json"}


@pytest.mark.parametrize(("name", "method"), ROUTES, ids=lambda part: part)
def test_who_may(people, address, name: str, method: str):
    access, got = ROUTES[name, method], {}
    for who in PEOPLE:
        with transaction.atomic():
            send = getattr(people[who](), method)
            got[who] = send(address(name) + access.query, **_sent(access.body)).status_code
            transaction.set_rollback(True)
    assert got == _expected(access)


def test_a_role_too_low_is_named(viewer, url):
    error = viewer.post(url("products"), {"label": "tea"}, format="json").json()["error"]
    assert error["code"] == "role_too_low"
    assert "role editor" in error["message"]


def test_a_method_that_is_not_there_is_that_whatever_the_role(people, address):
    got = {
        who: person().put(address("product"), {}, format="json") for who, person in people.items()
    }
    strangers = ["outsider", "staff, no member", "token for another catalogue"]
    expected = dict.fromkeys(PEOPLE, 405) | dict.fromkeys(strangers, 404)
    expected |= {"anonymous": 401, "expired token": 401}
    assert {who: answer.status_code for who, answer in got.items()} == expected
    assert got["editor"]["Allow"] == "GET, PATCH, DELETE, HEAD, OPTIONS"


def test_an_outsider_cannot_tell_a_hidden_catalogue_from_none(outsider, url, catalogue):
    hidden = outsider.get(url()).json()["error"]
    catalogue.delete()
    missing = outsider.get(url()).json()["error"]
    assert hidden | {"request_id": ""} == missing | {"request_id": ""}


def test_another_catalogues_rows_are_not_reached_through_ones_own(manager, url, catalogue):
    other = factories.catalogue()
    image = factories.add(other, "theirs", 5)
    assert manager.get(url("products", image.product_id)).status_code == 404
    assert manager.get(url("images", image.number)).status_code == 404
    answer = manager.post(url("images", "remove"), {"numbers": [image.number]}, format="json")
    assert answer.json() == {"removed": 0, "unknown": [image.number]}


def test_nothing_of_another_catalogue_is_listed(manager, url):
    theirs = factories.catalogue()
    factories.add(theirs, "theirs", 5)
    queries.submit(theirs, factories.picture(5), by=theirs.owner)
    Job.objects.create(catalogue=theirs, kind=Job.Kind.IMPORT)
    for part in ("products", "images", "recognitions", "jobs"):
        assert manager.get(url(part)).json()["results"] == []
    shown = manager.get("/api/v1/catalogues").json()["results"]
    assert str(theirs.key) not in [one["key"] for one in shown]
