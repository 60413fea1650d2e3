"""Exporting, and getting all of it back."""

from __future__ import annotations

import io
import json
import zipfile
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from django.core.files.storage import Storage
from django.utils import timezone
from PIL import Image

from recognition import images
from recognition.errors import Conflict
from recognition.models import (
    BoxSource,
    Catalogue,
    Embedding,
    FeatureModel,
    GalleryImage,
    Job,
    State,
    VectorIndex,
)
from recognition.services import (
    exports,
    gallery,
    gallery_adding,
    gallery_embedding,
    imports,
    indexing,
    jobs,
    product_fields,
    trash,
)
from recognition.services import products as product_services
from recognition.services.imports import runner
from tests import factories
from tests.processes import until
from tests.services.test_import import imported

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stub_engine")]


@pytest.fixture
def full(catalogue):
    """A catalogue with everything that must survive."""
    factories.add(catalogue, "green tea", 1, source_name="front.png")
    factories.add(catalogue, "removed", 2)
    factories.add(catalogue, "红茶", 3, box=[1, 1, 40, 40])
    factories.add(catalogue, "green tea", 4, external_id="I-4")
    gif = io.BytesIO()
    Image.open(io.BytesIO(factories.png(5))).save(gif, "GIF")
    gallery_adding.add_image(catalogue, "green tea", images.check(gif.getvalue()), by=None)
    gallery.remove_numbers(catalogue, [1])
    product_services.change(
        catalogue.products.get(label="green tea"),
        category="drinks",
        attributes={"ml": 330, "colours": ["green", "white"]},
        names={"en": "Green tea", "zh-Hans": "绿茶"},
        external_id="P-1",
        price="1.50",
        currency="EUR",
    )
    product_services.change(catalogue.products.get(label="removed"), is_active=False)
    indexing.embed_waiting(catalogue.pk)
    return catalogue


def exported(catalogue, **options) -> io.BytesIO:
    out = io.BytesIO()
    exports.write(catalogue, out, **options)
    out.seek(0)
    return out


def content(catalogue) -> list[tuple]:
    """All that an answer could show."""
    return [
        (
            i.number,
            i.external_id,
            i.product.label,
            i.checksum,
            i.box,
            i.box_source,
            i.source_name,
            i.file.read(),
        )
        for i in catalogue.images.select_related("product").order_by("number")
    ]


def products(catalogue) -> list[tuple]:
    return list(catalogue.products.order_by("label").values_list(*product_fields.FIELDS))


def vectors(catalogue) -> dict[tuple[int, int], list[float]]:
    rows = Embedding.objects.filter(space=catalogue.index).values_list(
        "image__number", "view", "emb"
    )
    return {(number, view): list(emb) for number, view, emb in rows}


def test_paddlex_can_read_it(full):
    with zipfile.ZipFile(exported(full)) as archive:
        assert archive.read("gallery.txt").decode() == (
            "images/0.png\tgreen tea\nimages/2.png 红茶\nimages/3.png\tgreen tea\n"
            "images/4.png\tgreen tea\n"
        )
        assert archive.read("images/0.png") == factories.png(1)
        described = json.loads(archive.read("catalogue.json"))
        assert described["counts"] == {"products": 3, "images": 4}
        assert "embeddings.npy" not in archive.namelist()


def test_everything_comes_back(full):
    other = factories.catalogue()
    job = imported(other, exported(full))
    assert (job.state, job.done, job.failed, job.total) == (State.DONE, 7, 0, 7)
    assert content(other) == content(full)
    assert products(other) == products(full)
    other.refresh_from_db()
    assert other.next_number == 5
    indexing.embed_waiting(other.pk)
    assert vectors(other) == vectors(full)


def test_vectors_of_the_same_weights_are_reused(full, monkeypatch):
    other = factories.catalogue()
    imported(other, exported(full, embeddings=True))
    assert set(other.images.values_list("state", flat=True)) == {State.DONE}
    assert vectors(other) == vectors(full) and len(vectors(full)) == 4


@pytest.mark.parametrize(
    ("field", "value"),
    [("digest", "other weights"), ("preprocessing", {}), ("crop_policy", "both")],
)
def test_vectors_of_anything_else_are_not(full, field, value):
    source = exported(full, embeddings=True)
    model = full.index.feature_model
    type(model).objects.filter(pk=model.pk).update(preprocessing={"size": 224})
    with zipfile.ZipFile(source, "a") as archive, pytest.warns(UserWarning):
        manifest = json.loads(archive.read("embeddings.json"))
        assert manifest["rows"] == 4
        archive.writestr(
            "embeddings.json", json.dumps(manifest | {"preprocessing": {"size": 224}, field: value})
        )
    source = repacked(source)
    other = factories.catalogue()
    imported(other, source)
    assert set(other.images.values_list("state", flat=True)) == {State.PENDING}
    assert not vectors(other)


def repacked(source: io.BytesIO) -> io.BytesIO:
    """Without names that come twice; the last one counts."""
    out = io.BytesIO()
    with zipfile.ZipFile(source) as before, zipfile.ZipFile(out, "w") as after:
        for name in dict.fromkeys(before.namelist()):
            after.writestr(name, before.read(name))
    out.seek(0)
    return out


@pytest.mark.parametrize("views", [["whole"], [{}], [None], [[0]], [0.5]])
def test_an_image_with_odd_vectors_is_refused_alone(full, views):
    source = exported(full, embeddings=True)
    with zipfile.ZipFile(source, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        told = json.loads(archive.read("catalogue.json"))
        told["images"][1]["vectors"] = views
        archive.writestr("catalogue.json", json.dumps(told))
    other = factories.catalogue()
    job = imported(other, repacked(source))
    assert job.state == State.DONE
    line = job.lines.get(result="error")
    assert line.reason == "its vectors are no list of numbers"
    others = {number: vector for number, vector in vectors(full).items() if number[0] != 2}
    assert vectors(other) == others  # each its own, although one was left out


def test_vectors_are_half_precision_rows_in_image_order(full):
    with zipfile.ZipFile(exported(full, embeddings=True)) as archive:
        rows = np.load(io.BytesIO(archive.read("embeddings.npy")), allow_pickle=False)
    assert (rows.shape, rows.dtype) == ((4, 64), np.float16)
    expected = vectors(full)
    assert np.array_equal(rows, np.array([expected[key] for key in sorted(expected)], np.float16))


def without(source: io.BytesIO) -> list[int]:
    """Numbers of the images that are written without a vector."""
    with zipfile.ZipFile(source) as archive:
        described = json.loads(archive.read("catalogue.json"))["images"]
        manifest = json.loads(archive.read("embeddings.json"))
        rows = np.load(io.BytesIO(archive.read("embeddings.npy")), allow_pickle=False)
    bare = [image["number"] for image in described if not image["vectors"]]
    assert (manifest["rows"], manifest["images_without"]) == (len(rows), len(bare))
    return bare


@pytest.mark.parametrize("state", [State.PENDING, State.RUNNING, State.FAILED])
def test_a_vector_of_an_older_box_stays_behind(full, state):
    image = full.images.get(number=2)
    gallery.put_box(image, [5, 5, 20, 20])
    image.state = state
    image.save()
    source = exported(full, embeddings=True)
    assert without(source) == [2]
    other = factories.catalogue()
    imported(other, source)
    assert other.images.get(number=2).state == State.PENDING
    assert vectors(other) == {of: row for of, row in vectors(full).items() if of[0] != 2}


def test_a_vector_of_a_newer_box_than_the_one_written_stays_behind(full, monkeypatch):
    read = exports._vectors

    def boxed_meanwhile(catalogue, batch):
        full.images.filter(number=2).update(box=[5, 5, 20, 20])
        return read(catalogue, batch)

    monkeypatch.setattr(exports, "_vectors", boxed_meanwhile)
    assert without(exported(full, embeddings=True)) == [2]


@pytest.mark.parametrize("setting", ["crop_policy", "detector", "index"])
def test_vectors_end_where_the_settings_change_meanwhile(full, monkeypatch, setting):
    monkeypatch.setattr(exports, "_BATCH", 1)
    model = FeatureModel.objects.create(name="other_rec", digest="0" * 64, dimension=64)
    space = VectorIndex.objects.create(catalogue=full, feature_model=model)
    value = {"crop_policy": "both", "detector": "other_det", "index": space}[setting]

    def meanwhile(done: int, total: int) -> None:
        if done == 1:
            Catalogue.objects.filter(pk=full.pk).update(**{setting: value})

    assert without(exported(full, embeddings=True, written=meanwhile)) == [2, 3, 4]


def test_two_views_and_detected_boxes_come_back(full):
    full.crop_policy, full.detector = "both", "stub_det"
    full.save()
    gallery_embedding.reembed(full)
    indexing.embed_waiting(full.pk)
    assert len(vectors(full)) == 8
    other = factories.catalogue(crop_policy="both", detector="stub_det")
    imported(other, exported(full, embeddings=True))
    assert vectors(other) == vectors(full)
    assert content(other) == content(full)


@pytest.mark.parametrize("meanwhile", ["another network", "another crop policy"])
def test_vectors_that_fit_no_longer_are_made_anew(full, monkeypatch, meanwhile):
    full.crop_policy, full.detector = "both", "stub_det"
    full.save()
    gallery_embedding.reembed(full)
    indexing.embed_waiting(full.pk)
    other = factories.catalogue(crop_policy="both", detector="stub_det")
    mine = Catalogue.objects.filter(pk=other.pk)

    def choose(job: Job) -> None:
        if other.images.count() != 1:
            return
        if meanwhile == "another network":
            model = FeatureModel.objects.create(name="other_rec", digest="0" * 64, dimension=64)
            mine.update(index=VectorIndex.objects.create(catalogue=other, feature_model=model))
        else:
            mine.update(crop_policy="main_body")

    monkeypatch.setattr(runner, "CHUNK_PICTURES", 1)
    job = imports.start(other, exported(full, embeddings=True), by=None, name="x.zip")
    assert jobs.run_here(job, choose).failed == 0
    first, *later = other.images.order_by("number")
    assert (first.state, first.box_source) == (State.DONE, BoxSource.DETECTED)
    assert set(Embedding.objects.filter(image__catalogue=other).values_list("image")) == {
        (first.pk,)
    }
    assert [(image.state, image.box, image.box_source) for image in later] == [
        (State.PENDING, [1, 1, 40, 40], BoxSource.GIVEN),
        (State.PENDING, None, BoxSource.NONE),
        (State.PENDING, None, BoxSource.NONE),
    ]


def test_damaged_descriptions_fail_with_a_reason(full):
    source = exported(full)
    for name, data, why in [
        (
            "catalogue.json",
            b'{"format": "shitu-catalogue", "version": 1, "products": [{',
            "damaged",
        ),
        ("catalogue.json", b'{"format": "else"}', "only version"),
        ("catalogue.json", b"\xff", "damaged"),
        ("embeddings.json", b"{", "damaged"),
    ]:
        out = io.BytesIO()
        with zipfile.ZipFile(source) as before, zipfile.ZipFile(out, "w") as after:
            for member in {*before.namelist(), name}:
                after.writestr(member, data if member == name else before.read(member))
        out.seek(0)
        job = imported(factories.catalogue(), out)
        assert job.state == State.FAILED and why in job.error, (name, job.error)


def test_an_image_removed_meanwhile_is_left_out_everywhere(full, media):
    image = full.images.get(number=2)
    original = exports._batches

    def removing(catalogue):
        for batch in original(catalogue):
            GalleryImage.objects.filter(pk=image.pk).delete()
            Path(media / image.file.name).unlink()
            yield batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exports, "_batches", removing)
        source = exported(full, embeddings=True)
    with zipfile.ZipFile(source) as archive:
        assert "images/2.png" not in archive.namelist()
        assert b"images/2.png" not in archive.read("gallery.txt")
        assert np.load(io.BytesIO(archive.read("embeddings.npy"))).shape == (3, 64)


def test_a_lost_file_is_no_silent_gap(full, media):
    (media / full.images.get(number=2).file.name).unlink()
    with pytest.raises(FileNotFoundError):
        exported(full)


def test_as_a_job(full):
    job = exports.start(full, by=full.owner, embeddings=True)
    jobs.run(job.pk)
    job.refresh_from_db()
    assert (job.kind, job.state, job.done, job.total) == (Job.Kind.EXPORT, State.DONE, 4, 4)
    other = factories.catalogue()
    with job.file.open() as file:
        imported_job = imports.start(other, file, by=None, name="again.zip")
    jobs.run(imported_job.pk)
    assert content(other) == content(full)


def test_what_changes_meanwhile_does_not_take_it_apart(full, monkeypatch):
    monkeypatch.setattr(exports, "_BATCH", 1)

    def meanwhile(done: int, total: int) -> None:
        if done == 1 and full.products.filter(label="green tea").exists():
            product_services.change(full.products.get(label="green tea"), label="matcha")
            trash.put(full, [full.products.get(label="红茶")])
            factories.add(full, "late", 9)

    archive = exported(full, written=meanwhile)
    with zipfile.ZipFile(archive) as inside:
        described = json.loads(inside.read("catalogue.json"))
    labels = [product["label"] for product in described["products"]]
    shown = [image["label"] for image in described["images"]]
    assert described["counts"] == {"products": len(labels), "images": len(shown)}
    assert labels == ["green tea", "removed", "红茶", "late"]
    assert shown == ["green tea", "green tea", "green tea", "late"]
    archive.seek(0)
    job = imported(factories.catalogue(), archive)
    assert (job.state, job.done, job.failed, job.total) == (State.DONE, 8, 0, 8)


def test_a_job_that_is_done_has_done_all_there_is(full):
    GalleryImage.objects.filter(catalogue=full, number=0).update(file="")  # it came as a vector
    job = jobs.run_here(exports.start(full, by=None))
    assert (job.state, job.done, job.total) == (State.DONE, 3, 3)


def test_a_cancelled_one_writes_no_more_figures(full, monkeypatch):
    monkeypatch.setattr(exports, "_BATCH", 1)
    job = exports.start(full, by=None)
    with pytest.raises(Conflict, match="cancelled"):
        jobs.run_here(job, lambda job: jobs.cancel(job, by=None))
    job.refresh_from_db()
    assert job.error == "cancelled after 1 of 4 lines; what was done stays"
    assert job.done == 1


def test_a_worker_of_slow_pictures_keeps_the_job(full, settings, monkeypatch):
    settings.SHITU_LEASE_SECONDS = 60
    clock, left = timezone.now(), []
    monkeypatch.setattr(jobs, "timezone", SimpleNamespace(now=lambda: clock))
    read = exports.files.read

    def slowly(name: str) -> bytes:
        nonlocal clock
        clock += timedelta(seconds=40)
        left.append(Job.objects.get().lease_until - clock)
        return read(name)

    monkeypatch.setattr(exports.files, "read", slowly)
    jobs.run_here(exports.start(full, by=None))
    assert len(left) == 4 and min(left) > timedelta(0)


@pytest.mark.django_db(transaction=True)
def test_one_that_is_long_to_store_keeps_its_job(full, settings, monkeypatch):
    settings.SHITU_LEASE_SECONDS = 0.6
    save, seen = Storage.save, set()

    def slowly(storage, name, content):
        def was_prolonged_again_and_again() -> bool:
            seen.add(Job.objects.get().lease_until)
            return len(seen) > 3

        until(was_prolonged_again_and_again, seconds=20)
        return save(storage, name, content)

    monkeypatch.setattr(Storage, "save", slowly)
    job = exports.start(full, by=None)
    jobs.run(job.pk)
    job.refresh_from_db()
    assert job.state == State.DONE and job.file.size


def test_one_that_another_worker_took_over_leaves_no_file(full, media, monkeypatch):
    save = Storage.save

    def taken_over(storage, name, content):
        Job.objects.update(lease_until=timezone.now() + timedelta(hours=1))
        return save(storage, name, content)

    job = exports.start(full, by=None)
    monkeypatch.setattr(Storage, "save", taken_over)
    jobs.run(job.pk)
    job.refresh_from_db()
    assert (job.state, job.file.name) == (State.RUNNING, "")
    assert not [path for path in (media / "jobs").rglob("*") if path.is_file()]
