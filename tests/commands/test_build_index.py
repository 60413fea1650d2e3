"""build_index, append_index, remove_index."""

from __future__ import annotations

import pytest

from recognition.models import Catalogue, CropPolicy, Embedding, Role, State
from recognition.services import catalogues
from tests import factories
from tests.factories import png

pytestmark = pytest.mark.usefixtures("own_worker", "boss")


@pytest.fixture
def build(run, shop):
    """`build(...)` runs build_index on the shop with the stub network."""
    factories.feature_model()

    def command(*more: object, name: str = "shop") -> tuple[int, str, str]:
        given = ["--catalogue", name, "--gallery", shop, "--labels", shop / "gallery.txt"]
        return run("build_index", *given, "--feature-model", "stub_rec", "--detector", "", *more)

    return command


def numbers(catalogue: Catalogue) -> list[int]:
    return list(catalogue.images.order_by("number").values_list("number", flat=True))


def test_a_folder_becomes_a_catalogue_with_every_picture_embedded(build, boss):
    code, out, err = build("--metric", "L2", "--index-type", "Flat", "--crop-policy", "whole")
    catalogue = Catalogue.objects.get()
    assert (code, err) == (0, "")
    assert "added 3, already there 0, skipped 0, failed 0" in out
    assert f"feature model stub_rec, weights {catalogue.index.feature_model.digest[:12]}" in out
    assert (catalogue.name, catalogue.owner) == ("shop", boss)
    assert (catalogue.index.metric, catalogue.index.index_type) == ("L2", "Flat")
    assert catalogue.crop_policy == CropPolicy.WHOLE
    assert sorted(catalogue.products.values_list("label", flat=True)) == ["green coffee", "tea"]
    assert Embedding.objects.filter(space=catalogue.index).count() == 3


def test_bad_lines_are_said_with_their_reason_and_the_rest_is_done(build, shop, tmp_path):
    with (shop / "gallery.txt").open("ab") as file:
        file.write(b"\nmissing.png tea\n\xff\xfe tea\n1.png tea\n")
    code, out, err = build("--report", tmp_path / "report.csv")
    assert code == 1
    assert "added 3, already there 0, skipped 2, failed 2" in out
    assert "line 4: skipped: blank" in err
    assert "line 5: error: there is no such file in the folder  [missing.png\ttea]" in err
    assert "line 6: error: not UTF-8" in err
    assert "line 7: skipped: the same as line 1" in err
    assert len((tmp_path / "report.csv").read_text().splitlines()) == 8


def test_a_picture_that_cannot_be_embedded_is_said_too(build, shop, monkeypatch):
    from recognition.services import gallery_adding

    add = gallery_adding.add_images

    def add_and_damage(catalogue, new, **options):
        added = add(catalogue, new, **options)
        with added[0].image.file.open("wb") as file:
            file.write(b"damaged since")
        return added

    monkeypatch.setattr(gallery_adding, "add_images", add_and_damage)
    code, _, err = build()
    assert code == 1
    assert "line 1: not embedded: " in err
    assert Embedding.objects.count() == 2


def test_who_may_only_read_adds_nothing(build, run, shop):
    catalogue = factories.catalogue(name="shop")
    factories.member(catalogue, Role.VIEWER, "reader")
    given = ["--catalogue", "shop", "--user", "reader"]
    listed = ["--gallery", shop, "--labels", shop / "gallery.txt"]
    for name, more in (("build_index", listed), ("append_index", listed), ("remove_index", [0])):
        code, _, err = run(name, *given, *more)
        assert code == 2
        assert "this needs the role editor" in err
    assert not catalogue.images.exists()
    assert Catalogue.objects.count() == 1


def test_a_second_run_adds_nothing_twice(build):
    build()
    code, out, _ = build()
    assert code == 0
    assert "added 0, already there 3" in out
    assert Catalogue.objects.get().images.count() == 3


def test_replace_leaves_exactly_what_the_list_names(build, shop):
    build()
    (shop / "4.png").write_bytes(png(4))
    (shop / "gallery.txt").write_text("2.png tea\n4.png tea\n")
    code, out, _ = build("--replace")
    catalogue = Catalogue.objects.get()
    assert code == 0
    assert "removed 2 images and 1 products" in out
    assert numbers(catalogue) == [1, 3]
    assert list(catalogue.products.values_list("label", flat=True)) == ["tea"]


def test_replace_removes_nothing_when_the_list_is_unusable(build, shop):
    build()
    (shop / "gallery.txt").write_text("missing.png tea\n")
    code, _, err = build("--replace")
    assert code == 2
    assert "not one line" in err
    assert Catalogue.objects.get().images.count() == 3


def test_replace_removes_nothing_when_a_line_failed(build, shop):
    build()
    (shop / "4.png").write_bytes(png(4))
    (shop / "gallery.txt").write_text("gone.png tea\n4.png tea\n")
    code, out, _ = build("--replace")
    assert code == 1
    assert "nothing removed: 1 lines failed" in out
    assert Catalogue.objects.get().images.count() == 4


def no_folder(shop):
    return ("--gallery", shop / "none")


def no_list(shop):
    return ("--labels", shop / "none.txt")


def no_usable_line(shop):
    (shop / "gallery.txt").write_text("missing.png tea\n")
    return ()


@pytest.mark.parametrize("fault", [no_folder, no_list, no_usable_line])
def test_what_fails_leaves_no_catalogue(build, shop, fault):
    assert build(*fault(shop))[0] == 2
    assert not Catalogue.objects.exists()


def test_one_that_was_there_stays_though_it_is_empty(run, build, shop, boss):
    catalogues.create("shop", owner=boss, feature_model="stub_rec", detector="")
    assert build(*no_usable_line(shop))[0] == 2
    assert Catalogue.objects.get().name == "shop"


def test_an_interruption_leaves_what_goes_on_later(build, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("recognition.services.imports.runner.run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            build()
    assert Catalogue.objects.get().jobs.unfinished().exists()
    assert build()[0] == 0


def test_the_bars_count_what_is_done_now_and_no_log_line_is_between(build, shop, capsys, caplog):
    build()
    (shop / "4.png").write_bytes(png(4))
    with (shop / "gallery.txt").open("a") as file:
        file.write("4.png tea\n")
    capsys.readouterr()
    build()
    bars = capsys.readouterr().err
    assert "4/4" in bars.partition("embed")[0]
    assert "1/1" in bars.partition("embed")[2] and "/4" not in bars.partition("embed")[2]
    assert "job_ended" not in caplog.text


def test_no_wait_leaves_the_embedding_to_workers(build):
    code, _, _ = build("--no-wait")
    assert code == 0
    assert set(Catalogue.objects.get().images.values_list("state", flat=True)) == {State.PENDING}


@pytest.mark.parametrize(
    ("option", "value", "there"), [("--metric", "L2", "IP"), ("--crop-policy", "both", "whole")]
)
def test_settings_of_a_catalogue_that_is_there_are_never_changed(build, option, value, there):
    build()
    code, _, err = build(option, value)
    assert code == 2
    assert f"“{there}”, not “{value}”" in err


def test_named_errors_are_words_not_tracebacks(run, shop, build):
    assert build("--user", "nobody")[::2] == (2, "there is no active user nobody")
    code, _, err = run("append_index", catalogue="x", gallery=str(shop), labels="x")
    assert (code, err) == (2, "there is no catalogue “x”")
    (shop / "gallery.txt").unlink()
    code, _, err = build()
    assert code == 2 and "gallery.txt cannot be read: No such file" in err


def test_without_a_superuser_it_asks_for_one(build, boss):
    boss.delete()
    code, _, err = build()
    assert code == 2 and "--user" in err


def test_append_adds_to_a_catalogue_that_is_there(run, build, shop):
    build()
    (shop / "4.png").write_bytes(png(4))
    (shop / "more.txt").write_text("4.png tea\n")
    code, out, _ = run(
        "append_index", "--catalogue", "shop", "--gallery", shop, "--labels", shop / "more.txt"
    )
    assert code == 0 and "added 1" in out
    assert numbers(Catalogue.objects.get()) == [0, 1, 2, 3]
    assert Embedding.objects.count() == 4


class TestRemove:
    def test_by_ids(self, run, build):
        build()
        code, out, _ = run("remove_index", "--catalogue", "shop", 0, 2)
        assert code == 0 and "removed 2 images" in out
        assert numbers(catalogues.find("shop")) == [1]
        assert Embedding.objects.count() == 1

    def test_by_a_file_as_paddlex_reads_it(self, run, build, tmp_path):
        build()
        (tmp_path / "ids").write_text("1 tea\n\n77\nx\n")
        code, out, err = run("remove_index", "--catalogue", "shop", "--ids", tmp_path / "ids")
        assert code == 1 and "removed 1 images" in out
        assert "id 77: not in this catalogue" in err
        assert "line 4: 'x' is not a whole number" in err
        assert numbers(catalogues.find("shop")) == [0, 2]

    def test_numbers_are_no_file(self, run, build):
        build()
        code, _, err = run("remove_index", "--catalogue", "shop", "--ids", 0, 2)
        assert code == 2 and "numbers are given without it" in err
        assert numbers(catalogues.find("shop")) == [0, 1, 2]

    def test_nothing_removed_is_a_failure(self, run, build):
        build()
        assert run("remove_index", "--catalogue", "shop", 99)[0] == 2
        assert run("remove_index", "--catalogue", "shop")[0] == 2
