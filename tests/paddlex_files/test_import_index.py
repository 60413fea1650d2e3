"""An index directory becomes part of a catalogue."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction

from recognition import search
from recognition.engine.stub import StubEmbedder
from recognition.errors import BadInput, Conflict, RecognitionError
from recognition.images import check
from recognition.models import (
    AuditEntry,
    Catalogue,
    CropPolicy,
    Embedding,
    FeatureModel,
    GalleryImage,
    Product,
    State,
    VectorIndex,
)
from recognition.services import (
    exports,
    gallery,
    gallery_adding,
    gallery_embedding,
    index_files,
    indexes,
    quotas,
)
from recognition.services.index_files import adding
from recognition.web.views import SIDES
from tests import factories
from tests.paddlex_files.conftest import unit_vectors

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stub_files", "read_here")]


def import_it(catalogue, directory, **options):
    options = {"feature_model": "stub_rec", "by": catalogue.owner} | options
    return index_files.import_directory(catalogue, directory, **options)


def stored(catalogue) -> dict[int, np.ndarray]:
    rows = Embedding.objects.filter(space=catalogue.index).values_list("image__number", "emb")
    return {number: np.asarray(vector, np.float32) for number, vector in rows}


@pytest.fixture
def photos(tmp_path) -> Path:
    """A folder of twelve pictures and the list PaddleX would build an index from."""
    folder = tmp_path / "photos"
    (folder / "images").mkdir(parents=True)
    lines = []
    for seed in range(12):
        (folder / "images" / f"{seed}.png").write_bytes(factories.png(seed))
        lines.append(f"images/{seed}.png tea{seed // 3}\n")
    (folder / "gallery.txt").write_text("".join(lines))
    return folder


@pytest.fixture
def built(photos, index_directory):
    """`built(...)` is the index PaddleX would have built of `photos` with the stub network."""

    def build(**options):
        pixels = [check(factories.png(seed)).pixels for seed in range(12)]
        labels = [f"tea{seed // 3}" for seed in range(12)]
        return index_directory(StubEmbedder().embed(pixels), labels, **options)

    return build


@pytest.mark.parametrize("metric", ["IP", "L2"])
@pytest.mark.parametrize("index_type", ["Flat", "IVF", "HNSW32"])
def test_vectors_labels_and_ids_come_from_every_type(
    catalogue, index_directory, index_type, metric
):
    vectors = unit_vectors(40)
    labels = [f"商品 {n // 4}" for n in range(40)]
    directory = index_directory(vectors, labels, index_type=index_type, metric=metric)
    imported = import_it(catalogue, directory)
    assert (imported.bare, imported.pictures, imported.renumbered) == (40, 0, 0)
    assert imported.agreement is None
    found = stored(catalogue)
    assert np.allclose(np.stack([found[n] for n in range(40)]), vectors, atol=5e-4)
    images = GalleryImage.objects.filter(catalogue=catalogue).select_related("product")
    assert {image.number: image.product.label for image in images} == dict(enumerate(labels))
    assert set(images.values_list("state", "file")) == {(State.DONE, "")}


def test_what_is_imported_is_found(catalogue, index_directory):
    vectors = unit_vectors(30)
    import_it(catalogue, index_directory(vectors, [f"p{n}" for n in range(30)]))
    found = search.nearest([catalogue.index], vectors[[3, 17]], limit=1)
    assert [neighbours[0].label for neighbours in found.neighbours] == ["p3", "p17"]


def test_ids_with_gaps_are_kept_and_the_next_picture_comes_after_them(catalogue, index_directory):
    import_it(catalogue, index_directory(unit_vectors(3), list("abc"), ids=[4, 7, 1_000_000_007]))
    assert sorted(stored(catalogue)) == [4, 7, 1_000_000_007]
    catalogue.refresh_from_db()
    assert factories.add(catalogue, "late").number == 1_000_000_008


def test_ids_that_were_given_out_are_not_given_out_again(catalogue, index_directory):
    factories.add(catalogue, "first")
    imported = import_it(catalogue, index_directory(unit_vectors(3), list("abc")))
    assert imported.renumbered == 3
    assert sorted(stored(catalogue)) == [1, 2, 3]


def test_ids_left_after_a_removal_keep_their_labels(catalogue, index_directory):
    vectors = unit_vectors(10)
    directory = index_directory(vectors, [f"p{n}" for n in range(10)], removed=[2, 9])
    import_it(catalogue, directory)
    found = stored(catalogue)
    assert sorted(found) == [0, 1, 3, 4, 5, 6, 7, 8]
    assert np.allclose(found[5], vectors[5], atol=5e-4)


def test_twice_is_as_good_as_once(catalogue, index_directory):
    directory = index_directory(unit_vectors(5), list("aabbc"))
    import_it(catalogue, directory)
    again = import_it(catalogue, directory)
    assert (again.bare, again.duplicates) == (0, 5)
    assert GalleryImage.objects.count() == Embedding.objects.count() == 5


def test_an_interrupted_import_goes_on(catalogue, index_directory, monkeypatch):
    directory = index_directory(unit_vectors(20), [f"p{n}" for n in range(20)])
    monkeypatch.setattr(adding, "_CHUNK", 6)

    def die(done: int, total: int) -> None:
        if done >= 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_it(catalogue, directory, progress=die)
    assert GalleryImage.objects.count() == 12
    imported = import_it(catalogue, directory)
    assert (imported.bare, imported.duplicates, imported.renumbered) == (8, 12, 0)
    assert sorted(stored(catalogue)) == list(range(20))


def test_labels_mean_what_paddlex_makes_of_them(catalogue, index_directory):
    directory = index_directory(unit_vectors(5), ["0"] * 5)
    (directory / "id_map.yaml").write_text(
        "id_map:\n  0: 1e3\n  '1': yes\n  2: 007\n  3: ~\n  4: 2026-11-23\n"
        "index_type: Flat\nmetric_type: IP\n"
    )
    import_it(catalogue, directory)
    labels = GalleryImage.objects.order_by("number").values_list("product__label", flat=True)
    assert list(labels) == ["1e3", "True", "7", "None", "2026-11-23"]


def test_it_is_counted_and_written_down(catalogue, index_directory):
    version = catalogue.version
    import_it(catalogue, index_directory(unit_vectors(3), list("abc")))
    catalogue.refresh_from_db()
    assert catalogue.version > version
    assert catalogue.stored_images == 3
    assert AuditEntry.objects.get(action="image.add").count == 3


def test_a_quota_holds_for_vectors_too(catalogue, index_directory):
    quotas.change(catalogue, images=2)
    with pytest.raises(RecognitionError):
        import_it(catalogue, index_directory(unit_vectors(3), list("abc")))
    assert not GalleryImage.objects.exists()


def test_removing_an_image_without_a_picture_leaves_nothing(
    catalogue, index_directory, run_tasks, media
):
    import_it(catalogue, index_directory(unit_vectors(3), list("abc")))
    with run_tasks():
        assert gallery.remove_numbers(catalogue, [0, 1, 2]) == (3, [])
    assert not Embedding.objects.exists()


def test_an_image_without_a_picture_is_shown_as_what_it_is(
    catalogue, index_directory, api, client, admin_client
):
    import_it(catalogue, index_directory(unit_vectors(2), ["tea", "tea"]))
    of = f"/api/v1/catalogues/{catalogue.key}/images"
    for address in (f"{of}/0/picture", f"{of}/0/thumbnail"):
        answer = api(catalogue.owner).get(address)
        assert answer.status_code == 404
        assert "came as a vector" in answer.json()["error"]["message"]
    assert api(catalogue.owner).get(f"{of}/0").status_code == 200
    client.force_login(catalogue.owner)
    pages = f"/c/{catalogue.key}"
    assert client.get(f"{pages}/images/0/").status_code == 404
    assert client.get(f"{pages}/images/0/{SIDES[0]}/").status_code == 404
    image = catalogue.images.get(number=0)
    for size in ("", "96/"):
        address = f"/admin/recognition/galleryimage/{image.pk}/picture/{size}"
        assert admin_client.get(address).status_code == 404
    assert (
        admin_client.get(f"/admin/recognition/galleryimage/{image.pk}/change/").status_code == 200
    )
    product = catalogue.products.get()
    assert client.get(f"{pages}/gallery/{product.pk}/").status_code == 200


def test_an_archive_leaves_images_without_pictures_out(catalogue, index_directory):
    import_it(catalogue, index_directory(unit_vectors(2), ["tea", "tea"]))
    factories.add(catalogue, "tea", seed=1)
    assert exports.write(catalogue, io.BytesIO()) == 1


def test_embedding_anew_leaves_them_as_they_are(catalogue, index_directory, run_tasks):
    import_it(catalogue, index_directory(unit_vectors(2), ["tea", "tea"]))
    before = stored(catalogue)
    with run_tasks():
        gallery_embedding.reembed(catalogue)
    assert set(GalleryImage.objects.values_list("state", flat=True)) == {State.DONE}
    assert all((stored(catalogue)[n] == before[n]).all() for n in before)


# --- with pictures --------------------------------------------------------------------------------


def with_pictures(photos: Path, **options):
    return {"pictures": photos, "gallery_list": photos / "gallery.txt"} | options


def test_pictures_come_with_their_vectors_and_are_not_embedded_again(catalogue, photos, built):
    imported = import_it(catalogue, built(), **with_pictures(photos))
    assert (imported.pictures, imported.bare, imported.problems) == (12, 0, ())
    assert imported.agreement > 0.999
    for image in GalleryImage.objects.order_by("number"):
        assert image.state == State.DONE
        assert image.file.read() == factories.png(image.number)
        assert image.source_name == f"images/{image.number}.png"
    assert Embedding.objects.count() == 12


def test_the_index_goes_only_before_a_load_of_nothing_but_vectors(
    catalogue, photos, built, monkeypatch
):
    told = []
    monkeypatch.setattr(indexes, "before_load", lambda space, coming: told.append((space, coming)))
    directory = built()
    import_it(factories.catalogue(), directory, **with_pictures(photos))
    assert told == []
    import_it(catalogue, directory)
    assert told == [(catalogue.index_id, 12)]


def another_network_once_there_are(count: int, catalogue):
    """Progress of an import during which somebody has the catalogue answer with another network."""

    def choose(done: int, total: int) -> None:
        if done == count:
            model = FeatureModel.objects.create(name="other_rec", digest="0" * 64, dimension=64)
            space = VectorIndex.objects.create(catalogue=catalogue, feature_model=model)
            Catalogue.objects.filter(pk=catalogue.pk).update(index=space)

    return choose


def test_pictures_are_embedded_again_once_another_network_answers(
    catalogue, photos, built, monkeypatch
):
    monkeypatch.setattr(adding, "_CHUNK_PICTURES", 4)
    choose = another_network_once_there_are(4, catalogue)
    imported = import_it(catalogue, built(), progress=choose, **with_pictures(photos))
    assert (imported.pictures, imported.renumbered) == (12, 0)
    states = list(GalleryImage.objects.order_by("number").values_list("state", flat=True))
    assert states == [State.DONE] * 4 + [State.PENDING] * 8
    assert sorted(stored(catalogue)) == [0, 1, 2, 3]


def test_vectors_alone_are_refused_once_another_network_answers(
    catalogue, index_directory, monkeypatch
):
    monkeypatch.setattr(adding, "_CHUNK", 4)
    directory = index_directory(unit_vectors(12), ["tea"] * 12)
    with pytest.raises(Conflict, match="another network"):
        import_it(catalogue, directory, progress=another_network_once_there_are(4, catalogue))
    assert sorted(stored(catalogue)) == [0, 1, 2, 3]
    assert GalleryImage.objects.count() == 4


@pytest.mark.django_db(transaction=True)
def test_nobody_waits_for_pictures_to_be_stored(catalogue, photos, built, monkeypatch):
    keep, kept = gallery_adding.files.keep, []

    def change() -> None:
        try:
            with transaction.atomic():
                Catalogue.objects.select_for_update(no_key=True, nowait=True).get()
        finally:
            connection.close()

    def watch(name, data):
        with ThreadPoolExecutor(1) as pool:
            kept.append(pool.submit(change).result())
        return keep(name, data)

    monkeypatch.setattr(gallery_adding.files, "keep", watch)
    import_it(catalogue, built(), **with_pictures(photos))
    assert len(kept) == 12


def test_removed_ids_leave_their_pictures_out_and_appended_ones_come_without(
    catalogue, photos, index_directory
):
    pixels = [check(factories.png(seed)).pixels for seed in range(14)]
    directory = index_directory(
        StubEmbedder().embed(pixels),
        [f"tea{seed // 3}" for seed in range(14)],
        removed=[3, 4],
    )
    imported = import_it(catalogue, directory, **with_pictures(photos))
    assert (imported.pictures, imported.bare) == (10, 2)
    images = GalleryImage.objects.order_by("number")
    assert [image.number for image in images] == [*range(3), *range(5, 14)]
    assert [bool(image.file) for image in images] == [True] * 10 + [False] * 2


def test_vectors_of_other_pictures_are_refused(catalogue, photos, index_directory):
    labels = [f"tea{seed // 3}" for seed in range(12)]
    with pytest.raises(BadInput, match="did not make this index"):
        import_it(catalogue, index_directory(unit_vectors(12), labels), **with_pictures(photos))
    assert not GalleryImage.objects.exists()


def test_the_list_of_another_index_is_refused(catalogue, photos, built):
    lines = (photos / "gallery.txt").read_text().splitlines(keepends=True)
    (photos / "gallery.txt").write_text("".join(lines[::-1]))
    with pytest.raises(BadInput, match="line 1 says “tea3”, id 0 is “tea0”"):
        import_it(catalogue, built(), **with_pictures(photos))


def test_a_folder_without_the_pictures_is_refused(catalogue, photos, built, tmp_path):
    with pytest.raises(BadInput, match="not one of 8 pictures tried"):
        import_it(catalogue, built(), **with_pictures(photos, pictures=tmp_path / "elsewhere"))


def test_the_same_picture_twice_moves_no_id_behind_it(catalogue, index_directory, tmp_path):
    seeds = [0, 1, 1, 2, 0, 3]
    for number, seed in enumerate(seeds):
        (tmp_path / f"{number}.png").write_bytes(factories.png(seed))
    lines = "".join(f"{number}.png tea\n" for number in range(len(seeds)))
    (tmp_path / "gallery.txt").write_text(lines)
    embedded = StubEmbedder().embed([check(factories.png(seed)).pixels for seed in seeds])
    directory = index_directory(embedded, ["tea"] * len(seeds))
    for pictures, duplicates in [(4, 2), (0, 6)]:
        imported = import_it(catalogue, directory, **with_pictures(tmp_path))
        assert (imported.pictures, imported.duplicates) == (pictures, duplicates)
        assert imported.renumbered == 0
        found = catalogue.images.order_by("number").values_list("number", "source_name")
        assert list(found) == [(n, f"{n}.png") for n in (0, 1, 3, 5)]


def test_a_damaged_picture_leaves_its_vector(catalogue, photos, built):
    (photos / "images" / "4.png").write_bytes(b"no picture")
    imported = import_it(catalogue, built(), **with_pictures(photos))
    assert (imported.pictures, imported.bare) == (11, 1)
    assert "id 4, images/4.png" in imported.problems[0]
    assert sorted(stored(catalogue)) == list(range(12))


def test_pictures_outside_the_folder_are_not_opened(catalogue, photos, built):
    secret = photos.parent / "secret.png"
    secret.write_bytes(factories.png(0))
    lines = (photos / "gallery.txt").read_text().splitlines(keepends=True)
    (photos / "gallery.txt").write_text("".join([f"{secret} tea0\n", *lines[1:]]))
    imported = import_it(catalogue, built(), **with_pictures(photos))
    assert "leaves the folder" in imported.problems[0]


# --- where it does not belong ---------------------------------------------------------------------


def test_the_network_must_be_the_catalogues(catalogue, index_directory):
    with pytest.raises(Conflict, match="made by starter_rec"):
        import_it(
            catalogue, index_directory(unit_vectors(2), ["a", "b"]), feature_model="starter_rec"
        )


def test_another_dimension_is_refused(catalogue, index_directory):
    with pytest.raises(BadInput, match="32 dimensions and stub_rec makes 64"):
        import_it(catalogue, index_directory(unit_vectors(2, 32), ["a", "b"]))


def test_a_catalogue_of_main_bodies_is_refused(index_directory):
    body = factories.catalogue(crop_policy=CropPolicy.MAIN_BODY)
    with pytest.raises(Conflict, match="crop policy “whole”"):
        import_it(body, index_directory(unit_vectors(2), ["a", "b"]))


def test_the_command_makes_a_catalogue_like_the_index(user, photos, built, capsys):
    directory = built(index_type="IVF", metric="L2")
    factories.feature_model()
    arguments = {
        "catalogue": "drinks",
        "user": user.username,
        "index": str(directory),
        "feature_model": "stub_rec",
        "detector": "",
        "gallery": str(photos),
        "labels": str(photos / "gallery.txt"),
    }
    call_command("import_index", **arguments)
    assert "12 vectors: 12 with their pictures" in capsys.readouterr().out
    made = Catalogue.objects.get(name="drinks")
    assert (made.index.metric, made.index.index_type) == ("L2", "IVF")
    assert Product.objects.filter(catalogue=made).count() == 4
    with pytest.raises(CommandError, match="there already with feature model"):
        call_command("import_index", **arguments | {"feature_model": "other"})
    # What does not fit leaves no catalogue behind.
    (photos / "gallery.txt").write_text("images/0.png another\n")
    with pytest.raises(CommandError, match="“another”"):
        call_command("import_index", **arguments | {"catalogue": "other"})
    assert Catalogue.objects.get() == made


# --- there and back -------------------------------------------------------------------------------


def test_an_export_comes_back_as_it_was(filled, tmp_path):
    catalogue = filled(20)
    index_files.export_directory(catalogue, tmp_path / "index")
    other = factories.catalogue()
    import_it(other, tmp_path / "index")
    before, after = stored(catalogue), stored(other)
    assert before.keys() == after.keys()
    assert max(np.abs(before[n] - after[n]).max() for n in before) < 1e-3
    assert dict(other.images.values_list("number", "product__label")) == dict(
        catalogue.images.values_list("number", "product__label")
    )
