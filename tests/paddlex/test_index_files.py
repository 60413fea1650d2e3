"""Saved indexes over HTTP; the whole way round is in tests/client/test_pipeline.py."""

from __future__ import annotations

import io
import zipfile
from importlib import import_module

import numpy as np
import pytest
from django.apps import apps

from recognition import search
from recognition.api.paddlex import index_files
from recognition.errors import AnswerTimeout
from recognition.models import Catalogue, Job, Role, State, View
from recognition.services import catalogues, saved_indexes, tokens
from recognition.services.index_files import export_directory
from tests import factories, processes


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


@pytest.fixture
def saved(local, commands, someone, monkeypatch, tmp_path) -> bytes:
    """An index of two pictures, saved by somebody else."""
    monkeypatch.setenv("SHITU_DETECTOR", "")
    source = factories.catalogue()
    images = [factories.add(source, label, seed) for seed, label in enumerate(("tea", "cola"))]
    vectors = np.eye(2, source.index.feature_model.dimension, dtype=np.float32)
    search.store(source.index, [image.pk for image in images], [View.WHOLE] * 2, vectors)
    source.images.update(state=State.DONE)
    export_directory(source, tmp_path / "saved")
    source.delete()
    written = (tmp_path / "saved").iterdir()
    return archive(**{path.name.replace(".", "_DOT_"): path.read_bytes() for path in written})


def test_another_member_s_import_stays_as_it_is(local, someone, saved):
    """The same index again, from somebody who may only read the catalogue it became."""
    theirs = upload(local, saved).json()["indexKey"]
    catalogue = Catalogue.objects.get(key=theirs)
    local.post("/shitu-index-remove", json={"indexKey": theirs, "ids": [0]})
    reader = factories.member(catalogue, Role.VIEWER, "reader")
    local.headers["Authorization"] = f"Bearer {tokens.create(reader, 'till')[1]}"
    answer = upload(local, saved)
    assert (answer.status_code, answer.json().get("imageCount")) == (200, 2)
    own = Catalogue.objects.get(key=answer.json()["indexKey"])
    assert (own.owner, own.name) == (reader, catalogue.name)
    assert catalogue.images.count() == 1


def test_it_is_found_again_whatever_was_changed(local, saved):
    first = upload(local, saved).json()
    assert first["imageCount"] == 2
    local.post("/shitu-index-remove", json={"indexKey": first["indexKey"], "ids": [0]})
    address = f"/api/v1/catalogues/{first['indexKey']}"
    for change in ({"description": ""}, {"name": "Drinks"}):
        assert local.patch(address, json=change).status_code == 200
        assert upload(local, saved).json() == first | {"imageCount": 1}
    assert Catalogue.objects.count() == 1
    [job] = local.get(f"{address}/jobs").json()["results"]
    assert (job["kind"], job["state"], job["done"]) == ("import", "done", 2)


def test_one_that_an_earlier_version_imported_is_found_too(local, saved):
    """It had nothing to tell but the description."""
    migration = import_module("recognition.migrations.0015_saved_index_receipts")
    first = upload(local, saved).json()
    migration.forget(apps, None)
    assert not Job.objects.exists()
    migration.write(apps, None)
    local.post("/shitu-index-remove", json={"indexKey": first["indexKey"], "ids": [0]})
    assert upload(local, saved).json() == first | {"imageCount": 1}


def test_an_import_that_was_interrupted_goes_on(local, saved, monkeypatch):
    kill = saved_indexes._manage

    def killed(*arguments: str) -> None:
        kill(*arguments)
        raise AnswerTimeout("no time left")

    monkeypatch.setattr(saved_indexes, "_manage", killed)
    assert upload(local, saved).status_code == 504
    monkeypatch.setattr(saved_indexes, "_manage", kill)
    assert upload(local, saved).json()["imageCount"] == 2
    assert Catalogue.objects.count() == 1


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
