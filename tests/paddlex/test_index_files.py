"""Saved indexes over HTTP; the whole way round is in tests/client/test_pipeline.py."""

from __future__ import annotations

import io
import zipfile

import pytest

from recognition.api.paddlex import index_files
from recognition.models import Catalogue
from recognition.services import catalogues, tokens
from tests import processes


@pytest.fixture
def commands(settings, monkeypatch) -> None:
    """Commands that the site starts use the tests' database."""
    for name, value in processes.environment(settings).items():
        monkeypatch.setenv(name, value)


def archive(packed: int = zipfile.ZIP_STORED, /, **files: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", packed) as made:
        for name, data in files.items():
            made.writestr(name.replace("__", "/").replace("_DOT_", "."), data)
    return out.getvalue()


def upload(client, data: bytes):
    return client.post("/api/v1/paddlex-indexes", files={"file": ("index.zip", data)})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"no zip at all", "not a ZIP archive"),
        (archive(vector_DOT_index=b"x"), "one id_map.yaml"),
        (archive(a__vector_DOT_index=b"x", b__vector_DOT_index=b"y"), "one vector.index"),
    ],
)
def test_what_is_no_saved_index(local, data, words):
    response = upload(local, data)
    assert response.status_code == 400
    assert words in response.json()["error"]["message"]
    assert not Catalogue.objects.exists()


BOMB = archive(zipfile.ZIP_DEFLATED, vector_DOT_index=b"x", id_map_DOT_yaml=bytes(70_000_000))
LARGE = archive(zipfile.ZIP_DEFLATED, vector_DOT_index=bytes(70_000_000), id_map_DOT_yaml=b"x")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (BOMB, "id_map.yaml has more than 67,108,864 bytes"),
        (LARGE, "vector.index has more than 67,108,864 bytes"),
    ],
    ids=["labels", "vectors"],
)
def test_what_unpacks_to_far_more_than_was_sent(local, data, words):
    """70 kB that filled the disk with up to 16 GiB."""
    assert len(data) < 100_000
    response = upload(local, data)
    assert response.status_code == 413
    assert words in response.json()["error"]["message"]


def test_what_can_be_refused_at_once_is_not_unpacked(local, someone, monkeypatch):
    def unpack(*_: object) -> None:
        raise AssertionError("unpacked")

    monkeypatch.setattr(index_files, "_unpack", unpack)
    sent = {"files": {"file": ("index.zip", BOMB)}, "data": {"feature_model": "nobody's"}}
    response = local.post("/api/v1/paddlex-indexes", **sent)
    assert (response.status_code, *response.json()["error"]["fields"]) == (400, "feature_model")
    local.headers["Authorization"] = f"Bearer {tokens.create(someone, 'r', role='viewer')[1]}"
    assert upload(local, BOMB).status_code == 403


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
