"""import_catalogue and export_catalogue."""

from __future__ import annotations

import zipfile

import pytest

from recognition.errors import TooLarge
from recognition.models import Catalogue, Embedding, Job
from recognition.services import catalogues, imports
from recognition.services.imports import places
from tests import factories
from tests.factories import png
from tests.services.test_import import packed

pytestmark = pytest.mark.usefixtures("own_worker", "boss")


@pytest.fixture
def archive(run, catalogue, tmp_path):
    """An export of a catalogue with settings of its own."""
    from recognition.services import indexing

    for number, label in ((1, "tea"), (2, "tea"), (3, "green coffee")):
        factories.add(catalogue, label, number)
    indexing.embed_waiting(catalogue.pk)
    catalogues.change(catalogue, metric="L2", rec_threshold=0.7, top_k=9, margin=0.1)
    path = tmp_path / "shop.zip"
    code, out, _ = run(
        "export_catalogue", "--catalogue", catalogue.key, "--output", path, "--embeddings"
    )
    assert code == 0
    assert f"{path}: 3 images" in out
    assert not path.with_name("shop.zip.part").exists()
    return path


def test_an_export_makes_a_new_catalogue_with_its_settings(run, archive, boss):
    code, out, err = run("import_catalogue", archive, "--catalogue", "restored")
    assert (code, err) == (0, "")
    assert "added 5" in out  # two products, three images
    restored = catalogues.find("restored")
    assert restored.owner == boss
    assert (restored.rec_threshold, restored.top_k, restored.margin) == (0.7, 9, 0.1)
    assert restored.index.metric == "L2"
    assert Embedding.objects.filter(space=restored.index).count() == 3


def test_a_model_that_is_not_installed_is_said_not_replaced(run, archive, tmp_path):
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(archive) as before, zipfile.ZipFile(other, "w") as after:
        for name in before.namelist():
            after.writestr(name, before.read(name).replace(b'"stub_rec"', b'"nobodys_rec"'))
    code, _, err = run("import_catalogue", other, "--catalogue", "restored")
    assert code == 2 and "nobodys_rec" in err
    code, _, _ = run(
        "import_catalogue", other, "--catalogue", "restored", "--feature-model", "stub_rec"
    )
    assert code == 0


@pytest.mark.parametrize("kind", ["zip", "folder", "folders", "csv", "listed"])
def test_every_kind_of_source(run, catalogue, tmp_path, kind):
    folder = tmp_path / "source"
    (folder / "tea").mkdir(parents=True)
    (folder / "tea" / "1.png").write_bytes(png(1))
    more: tuple[object, ...] = ()
    source = folder
    if kind == "zip":
        source = tmp_path / "source.zip"
        source.write_bytes(packed({"tea/1.png": png(1)}).getvalue())
    elif kind == "folder":
        (folder / "gallery.txt").write_text("tea/1.png tea\n")
    elif kind == "csv":
        source = folder / "list.csv"
        source.write_text("label,image\ntea,tea/1.png\n")
    elif kind == "listed":
        (tmp_path / "list.csv").write_text("label;image\ntea;tea/1.png\n")
        more = ("--labels", tmp_path / "list.csv")
    code, _, err = run("import_catalogue", source, "--catalogue", catalogue.key, *more)
    assert (code, err) == (0, "")
    assert catalogue.images.get().product.label == "tea"


def test_an_export_larger_than_an_upload_may_be_comes_back(run, archive, boss, monkeypatch):
    monkeypatch.setattr(places, "MOST_FILES", 3)
    with pytest.raises(TooLarge), archive.open("rb") as sent:
        imports.settings_of(sent)
    code, out, err = run("import_catalogue", archive, "--catalogue", "restored")
    assert (code, err) == (0, "") and "added 5" in out


def test_a_dry_run_changes_nothing(run, catalogue, archive):
    catalogue.images.all().delete()
    code, out, _ = run("import_catalogue", archive, "--catalogue", catalogue.key, "--dry-run")
    assert code == 0 and "would be added 5" in out
    assert not catalogue.images.exists()


def test_nothing_usable_or_a_dry_run_leaves_no_catalogue(run, boss, tmp_path, settings):
    settings.SHITU_FEATURE_MODEL, settings.SHITU_DETECTOR = factories.feature_model().name, ""
    source = tmp_path / "google.csv"
    source.write_text("gs://my-bucket/shoe.png,img-1,shoes,,apparel,Red Shoe,,\n")
    assert run("import_catalogue", source, "--catalogue", "shoes")[0] == 2
    (tmp_path / "tea.csv").write_text("label,sku\ntea,1\n")
    code, out, err = run(
        "import_catalogue", tmp_path / "tea.csv", "--catalogue", "teas", "--dry-run"
    )
    assert code == 0 and "would be added 1" in out, err
    assert not Catalogue.objects.exists()


def test_the_bar_ends_with_the_lines_there_were(run, catalogue, tmp_path, capsys):
    source = tmp_path / "list.csv"
    source.write_text("label,sku\ntea,1\ncoffee,2\nmilk,3\n")
    assert run("import_catalogue", source, "--catalogue", catalogue.key)[0] == 0
    assert "100%" in (bar := capsys.readouterr().err) and "3/3" in bar


def test_what_is_wrong_with_the_source_is_said(run, catalogue, tmp_path):
    (tmp_path / "x.zip").write_bytes(b"PK\x03\x04 cut short")
    for source, why in [("none.zip", "No such file"), ("x.zip", "not a ZIP")]:
        code, _, err = run("import_catalogue", tmp_path / source, "--catalogue", catalogue.key)
        assert code == 2 and why in err
    assert not Job.objects.unfinished().exists()
    assert Catalogue.objects.count() == 1


def test_an_export_that_cannot_be_written_leaves_nothing(run, catalogue, tmp_path):
    path = tmp_path / "none" / "x.zip"
    code, _, err = run("export_catalogue", "--catalogue", catalogue.key, "--output", path)
    assert code == 2 and "cannot be written: No such file" in err


def test_who_sees_the_job_sees_no_path_of_the_server(run, shop, boss):
    factories.feature_model()
    given = ("--catalogue", "shop", "--gallery", shop, "--labels", shop / "gallery.txt")
    assert run("build_index", *given, "--feature-model", "stub_rec", "--detector", "")[0] == 0
    assert Job.objects.get().source_name == "gallery.txt"
