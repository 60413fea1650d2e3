"""A catalogue leaves as an index directory."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import yaml
from django.core.management import CommandError, call_command

from recognition.errors import BadInput, Conflict
from recognition.models import CropPolicy, Embedding, View
from recognition.services import gallery, index_files, products
from recognition.services.index_files import exporting
from tests import factories

pytestmark = pytest.mark.django_db


def read(directory):
    import faiss

    index = faiss.read_index(str(directory / "vector.index"))
    info = yaml.safe_load((directory / "id_map.yaml").read_text(encoding="utf-8"))
    return index, info


@pytest.mark.parametrize("metric", ["IP", "L2"])
@pytest.mark.parametrize("index_type", ["Flat", "IVF", "HNSW32"])
def test_every_type_and_metric_finds_every_image_by_its_number(
    filled, tmp_path, index_type, metric
):
    import faiss

    catalogue = filled(24)
    directory = tmp_path / "index"
    written = index_files.export_directory(
        catalogue, directory, index_type=index_type, metric=metric
    )
    index, info = read(directory)
    assert (written.vectors, written.dimension) == (24, 64)
    assert (info["index_type"], info["metric_type"]) == (index_type, metric)
    assert info["id_map"] == {n: f"商品 {n // 2}" for n in range(24)}
    if index_type == "IVF":
        assert faiss.downcast_index(index.index).nlist == 24 // 8
    rows = Embedding.objects.filter(space=catalogue.index).order_by("image__number")
    vectors = np.array([row.emb for row in rows], np.float32)
    scores, ids = index.search(vectors, 1)
    assert ids[:, 0].tolist() == list(range(24))
    assert np.allclose(scores[:, 0], 1 if metric == "IP" else 0, atol=2e-3)


def test_type_and_metric_are_those_of_the_catalogue(stub_files, run_tasks, filled, tmp_path):
    other = factories.catalogue(metric="cosine", index_type="Flat")
    filled(2, into=other)
    index_files.export_directory(other, tmp_path / "index")
    _, info = read(tmp_path / "index")
    assert (info["index_type"], info["metric_type"]) == ("Flat", "IP")


def test_vectors_have_length_one(filled, tmp_path):
    index_files.export_directory(filled(10), tmp_path / "index", index_type="Flat")
    index, _ = read(tmp_path / "index")
    lengths = np.linalg.norm(index.index.reconstruct_n(0, 10), axis=1)
    assert np.abs(lengths - 1).max() < 1e-6


def test_images_of_inactive_products_stay_at_home(filled, tmp_path):
    catalogue = filled(6)
    products.change(catalogue.products.get(label="商品 1"), is_active=False)
    index_files.export_directory(catalogue, tmp_path / "index", index_type="Flat")
    index, info = read(tmp_path / "index")
    assert sorted(info["id_map"]) == [0, 1, 4, 5]
    assert index.ntotal == 4


def test_labels_that_yaml_could_take_for_something_else_stay_text(
    catalogue, stub_files, run_tasks, tmp_path
):
    labels = ["yes", "1e3", "007", "null", "a: b", "- x", "2026-11-23", "~", "🍵 tea", "'", "*a"]
    with run_tasks():
        for seed, label in enumerate(labels):
            factories.add(catalogue, label, seed=seed)
    index_files.export_directory(catalogue, tmp_path / "index", index_type="Flat")
    _, info = read(tmp_path / "index")
    assert [info["id_map"][n] for n in range(len(labels))] == labels


def test_where_both_views_are_embedded_it_is_the_whole_picture(
    stub_files, run_tasks, filled, tmp_path
):
    both = factories.catalogue(crop_policy=CropPolicy.BOTH, detector="stub_det")
    filled(4, into=both)
    assert Embedding.objects.filter(space=both.index).count() == 8
    index_files.export_directory(both, tmp_path / "index", index_type="Flat")
    index, _ = read(tmp_path / "index")
    whole = Embedding.objects.filter(space=both.index, view=View.WHOLE).order_by("image__number")
    stored = np.array([row.emb for row in whole], np.float32)
    assert np.allclose(index.index.reconstruct_n(0, 4), stored, atol=1e-3)


def test_where_only_the_main_body_is_embedded_it_is_that(stub_files, filled, tmp_path):
    body = factories.catalogue(crop_policy=CropPolicy.MAIN_BODY, detector="stub_det")
    filled(4, into=body)
    assert index_files.export_directory(body, tmp_path / "index", index_type="Flat").vectors == 4


def test_the_zip_has_the_same_two_files(filled, tmp_path):
    catalogue = filled(4)
    index_files.export_directory(catalogue, tmp_path / "index", index_type="Flat")
    out = io.BytesIO()
    index_files.write_zip(catalogue, out, index_type="Flat")
    with zipfile.ZipFile(out) as archive:
        for name in ("vector.index", "id_map.yaml"):
            assert archive.read(name) == (tmp_path / "index" / name).read_bytes()


def test_an_index_directory_is_replaced_and_nothing_is_left_beside_it(filled, tmp_path):
    catalogue = filled(4)
    index_files.export_directory(catalogue, tmp_path / "out" / "index", index_type="Flat")
    gallery.remove_numbers(catalogue, [3])
    index_files.export_directory(catalogue, tmp_path / "out" / "index", index_type="HNSW32")
    index, info = read(tmp_path / "out" / "index")
    assert (index.ntotal, info["index_type"]) == (3, "HNSW32")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["index"]


def test_a_failed_export_leaves_the_old_one(filled, tmp_path, monkeypatch):
    catalogue = filled(4)
    index_files.export_directory(catalogue, tmp_path / "index", index_type="Flat")

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(exporting.yaml, "dump", fail)
    with pytest.raises(OSError, match="disk full"):
        index_files.export_directory(catalogue, tmp_path / "index", index_type="Flat")
    index, info = read(tmp_path / "index")
    assert index.ntotal == len(info["id_map"]) == 4
    assert [path.name for path in tmp_path.glob(".index-*")] == []


def test_a_directory_of_something_else_is_never_replaced(filled, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.jpg").touch()
    with pytest.raises(Conflict, match=r"me\.jpg"):
        index_files.export_directory(filled(2), tmp_path / "photos")
    assert (tmp_path / "photos" / "me.jpg").exists()


@pytest.mark.parametrize(
    ("count", "options", "says"),
    [
        (0, {}, "no embedded image"),
        (7, {"index_type": "IVF"}, "IVF index of 7 vectors cannot be searched"),
        (2, {"index_type": "PQ"}, "not one of HNSW32, IVF, Flat"),
        (2, {"metric": "hamming"}, "not one of IP, L2, cosine"),
    ],
)
def test_what_paddlex_could_not_use_is_refused(filled, tmp_path, count, options, says):
    with pytest.raises(BadInput, match=says):
        index_files.export_directory(filled(count), tmp_path / "index", **options)
    assert not (tmp_path / "index").exists()


def test_the_command(filled, tmp_path, capsys):
    catalogue = filled(9)
    call_command(
        "export_index", catalogue=catalogue.name, output=str(tmp_path / "index"), index_type="IVF"
    )
    assert "9 vectors of 64 dimensions, IVF, IP" in capsys.readouterr().out
    call_command("export_index", catalogue=catalogue.name, output=str(tmp_path / "index.zip"))
    assert zipfile.is_zipfile(tmp_path / "index.zip")
    with pytest.raises(CommandError, match="there is no catalogue"):
        call_command("export_index", catalogue="nobody's", output=str(tmp_path / "x"))


def test_nothing_of_it_loads_faiss_until_it_is_asked():
    code = (
        "import django, sys; django.setup();"
        "from recognition.services import index_files, index_child;"
        "print([name for name in ('faiss', 'paddle', 'paddlex') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
