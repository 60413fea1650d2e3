"""Saved indexes over HTTP; the whole way round is in tests/client/test_pipeline.py."""

from __future__ import annotations

import io
import zipfile

import pytest

from recognition.models import Catalogue
from recognition.services import catalogues, tokens
from tests import processes


@pytest.fixture
def commands(settings, monkeypatch) -> None:
    """Commands that the site starts use the tests' database."""
    for name, value in processes.environment(settings).items():
        monkeypatch.setenv(name, value)


def archive(**files: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for name, data in files.items():
            made.writestr(name.replace("__", "/").replace("_DOT_", "."), data)
    return out.getvalue()


def upload(client, data: bytes):
    return client.post("/api/v1/paddlex-indexes", files={"file": ("index.zip", data)})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"no zip at all", "no usable ZIP"),
        (archive(vector_DOT_index=b"x"), "one id_map.yaml"),
        (archive(a__vector_DOT_index=b"x", b__vector_DOT_index=b"y"), "one vector.index"),
    ],
)
def test_what_is_no_saved_index(local, data, words):
    response = upload(local, data)
    assert response.status_code == 400
    assert words in response.json()["error"]["message"]
    assert not Catalogue.objects.exists()


def test_a_damaged_index_is_refused_with_the_reason(local, commands):
    data = archive(vector_DOT_index=b"IxM2" + bytes(100), id_map_DOT_yaml=b"id_map: {0: a}")
    response = upload(local, data)
    assert response.status_code == 400
    assert "Traceback" not in response.text
    assert "id_map.yaml" in response.text or "vector.index" in response.text


def test_an_empty_catalogue_has_no_index_to_save(local, commands, someone):
    catalogue = catalogues.create("empty", owner=someone)
    response = local.get(f"/api/v1/catalogues/{catalogue.key}/paddlex-index")
    assert response.status_code == 400
    assert "no embedded image" in response.json()["error"]["message"]


def test_the_vectors_are_for_editors(local, someone):
    catalogue = catalogues.create("mine", owner=someone)
    local.headers["Authorization"] = f"Bearer {tokens.create(someone, 'r', role='viewer')[1]}"
    assert local.get(f"/api/v1/catalogues/{catalogue.key}/paddlex-index").status_code == 403
    assert upload(local, archive(vector_DOT_index=b"x", id_map_DOT_yaml=b"x")).status_code == 403
