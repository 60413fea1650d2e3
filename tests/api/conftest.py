"""People, tokens and rows for the tests of the API."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from rest_framework.test import APIClient

from recognition.models import Catalogue, Role
from recognition.services import tokens
from tests import factories


@pytest.fixture(autouse=True)
def quick_passwords(settings) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def with_token() -> Callable[..., APIClient]:
    """`with_token(user, role=..., catalogues=[...])` is a client with a token made like that."""

    def client(user, **options) -> APIClient:
        _, text = tokens.create(user, "test", **options)
        return APIClient(headers={"Authorization": f"Bearer {text}"})

    return client


@pytest.fixture
def manager(api, catalogue) -> APIClient:
    """Signed in as the catalogue's owner."""
    return api(catalogue.owner)


@pytest.fixture
def editor(api, catalogue) -> APIClient:
    return api(factories.member(catalogue, Role.EDITOR))


@pytest.fixture
def viewer(api, catalogue) -> APIClient:
    return api(factories.member(catalogue, Role.VIEWER))


@pytest.fixture
def outsider(api, db) -> APIClient:
    return api(factories.user("outsider"))


@pytest.fixture
def url(catalogue: Catalogue) -> Callable[..., str]:
    """`url("images", 3)` is `/api/v1/catalogues/<key>/images/3`."""

    def address(*parts: object) -> str:
        return "/".join(["/api/v1/catalogues", str(catalogue.key), *map(str, parts)])

    return address
