"""Idempotency-Key: sent twice, done once."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.core.cache import cache
from django.core.files.uploadedfile import SimpleUploadedFile
from redis.exceptions import ConnectionError as NoRedis

from recognition.models import GalleryImage, Product, RecognitionQuery
from tests import factories


@pytest.fixture
def key() -> dict[str, str]:
    return {"Idempotency-Key": str(uuid.uuid4())}


def test_the_first_answer_is_given_again(editor, url, key):
    first = editor.post(url("products"), {"label": "tea"}, format="json", headers=key)
    again = editor.post(url("products"), {"label": "tea"}, format="json", headers=key)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert again["Location"] == first["Location"] and again["ETag"] == first["ETag"]
    assert again["Idempotent-Replayed"] == "true" and "Idempotent-Replayed" not in first
    assert Product.objects.count() == 1


def test_files_too_although_their_boundaries_differ(editor, url, key):
    def send():
        file = SimpleUploadedFile("a.png", factories.png(1))
        return editor.post(url("recognitions"), {"image": file}, format="multipart", headers=key)

    first, again = send(), send()
    assert first.status_code == again.status_code == 202
    assert first.json()["key"] == again.json()["key"]
    assert RecognitionQuery.objects.count() == 1


def test_another_request_under_the_same_key_is_refused(editor, url, key):
    editor.post(url("products"), {"label": "tea"}, format="json", headers=key)
    other = editor.post(url("products"), {"label": "coffee"}, format="json", headers=key)
    assert other.status_code == 409
    assert Product.objects.count() == 1


def test_another_file_under_the_same_key_is_refused(editor, url, key):
    for seed, status in ((1, 201), (2, 409)):
        body = {"label": "tea", "images": [SimpleUploadedFile("a.png", factories.png(seed))]}
        response = editor.post(url("images"), body, format="multipart", headers=key)
        assert response.status_code == status
    assert GalleryImage.objects.count() == 1


def test_what_was_refused_may_be_corrected(editor, url, key):
    assert (
        editor.post(url("products"), {"label": ""}, format="json", headers=key).status_code == 400
    )
    good = editor.post(url("products"), {"label": "tea"}, format="json", headers=key)
    assert good.status_code == 201


def test_a_key_is_its_users_own(editor, manager, url, key):
    editor.post(url("products"), {"label": "tea"}, format="json", headers=key)
    other = manager.post(url("products"), {"label": "coffee"}, format="json", headers=key)
    assert other.status_code == 201


@pytest.mark.parametrize("key", ["", "x" * 256, "a b", "é"])
def test_a_malformed_key(editor, url, key):
    response = editor.post(
        url("products"), {"label": "tea"}, format="json", headers={"Idempotency-Key": key}
    )
    assert response.status_code == 400


def test_without_the_store_it_is_refused_and_nothing_is_done(editor, url, key, monkeypatch):
    def unreachable(*_: object, **__: object) -> None:
        raise NoRedis

    monkeypatch.setattr(cache, "add", unreachable)
    response = editor.post(url("products"), {"label": "tea"}, format="json", headers=key)
    assert response.status_code == 503
    assert not Product.objects.exists()


def test_what_is_done_is_answered_even_if_the_store_is_lost_meanwhile(
    editor, url, key, monkeypatch
):
    def unreachable(*_: object, **__: object) -> None:
        raise NoRedis

    monkeypatch.setattr(cache, "set", unreachable)
    response = editor.post(url("products"), {"label": "tea"}, format="json", headers=key)
    assert response.status_code == 201


@pytest.mark.django_db(transaction=True)
def test_at_the_same_time_it_is_done_once(api, catalogue, url, key):
    owner = catalogue.owner

    def send(_: int) -> int:
        from django.db import connection

        try:
            response = api(owner).post(
                url("products"), {"label": "tea"}, format="json", headers=key
            )
            return response.status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as pool:
        statuses = list(pool.map(send, range(6)))
    assert set(statuses) <= {201, 429} and 201 in statuses
    assert Product.objects.count() == 1
