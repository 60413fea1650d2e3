"""Importing: every format, every bad line with its reason, nothing twice."""

from __future__ import annotations

import io
import zipfile

import pytest
from django.core.files.storage import Storage
from django.db import connection
from PIL import Image

from recognition.errors import BadInput, Conflict, LimitReached
from recognition.models import (
    Action,
    AuditEntry,
    Catalogue,
    GalleryImage,
    Job,
    JobLine,
    Product,
    State,
)
from recognition.services import exports, imports, jobs, products, quotas
from tests import factories
from tests.factories import png

pytestmark = pytest.mark.django_db


def zipped(**files: bytes | str) -> io.BytesIO:
    """A ZIP; `__` in a name stands for `/`, `_dot_` is not needed: pass a dict for odd names."""
    return packed({name.replace("__", "/"): data for name, data in files.items()})


def packed(files: dict[str, bytes | str]) -> io.BytesIO:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    out.seek(0)
    return out


def imported(catalogue, source, name="source.zip", **options) -> Job:
    """An upload, imported to its end."""
    job = imports.start(catalogue, source, by=catalogue.owner, name=name, **options)
    jobs.run(job.pk)
    job.refresh_from_db()
    return job


def outcome(job: Job) -> list[tuple[int, str]]:
    return list(job.lines.order_by("number").values_list("number", "result"))


def reasons(job: Job) -> dict[int, str]:
    return dict(job.lines.values_list("number", "reason"))


def labels(catalogue) -> list[str]:
    """Label of every image, in the order they were added."""
    return list(catalogue.images.order_by("number").values_list("product__label", flat=True))


class TestGalleryList:
    def test_a_list_with_its_pictures_becomes_images_and_products(self, catalogue):
        job = imported(
            catalogue,
            packed(
                {
                    "gallery.txt": "images/a.png green tea\nimages/b.png\tred tea\n",
                    "images/a.png": png(1),
                    "images/b.png": png(2),
                }
            ),
        )
        assert (job.state, job.done, job.failed, job.total) == (State.DONE, 2, 0, 2)
        assert labels(catalogue) == ["green tea", "red tea"]
        assert all(image.state == State.PENDING for image in catalogue.images.all())

    def test_it_may_lie_in_a_folder_at_the_top_of_the_archive(self, catalogue):
        imported(catalogue, packed({"shop/gallery.txt": "a.png tea\n", "shop/a.png": png(1)}))
        assert labels(catalogue) == ["tea"]

    def test_every_bad_line_is_reported_with_its_reason_and_the_rest_is_done(
        self, catalogue, settings
    ):
        settings.SHITU_MAX_IMAGE_PIXELS = 10_000
        huge = io.BytesIO()
        Image.new("RGB", (200, 200)).save(huge, "PNG")
        lines = [
            b"\xef\xbb\xbfok.png tea",  # a BOM is not part of the path
            b"",
            b"broken.png tea",
            b"empty.png tea",
            b"huge.png tea",
            b"missing.png tea",
            b"ok2.png\tgreen  tea with spaces",
            b"ok.png tea",
            b"\xff\xfe.png tea",
            b"nolabel.png",
            "茶.png 茶".encode(),
            b"text.png tea",
        ]
        job = imported(
            catalogue,
            packed(
                {
                    "gallery.txt": b"\r\n".join(lines),
                    "ok.png": png(1),
                    "broken.png": png(3)[:60],
                    "empty.png": b"",
                    "huge.png": huge.getvalue(),
                    "ok2.png": png(2),
                    "茶.png": png(4),
                    "text.png": b"<svg/>",
                }
            ),
        )
        said = reasons(job)
        assert outcome(job) == [
            (1, "ok"),
            (2, "skipped"),
            (3, "error"),
            (4, "error"),
            (5, "error"),
            (6, "error"),
            (7, "ok"),
            (8, "skipped"),
            (9, "error"),
            (10, "error"),
            (11, "ok"),
            (12, "error"),
        ]
        assert said[2] == "blank"
        assert "damaged" in said[3]
        assert "0 bytes" in said[4]
        assert "10,000" in said[5]
        assert "no such file" in said[6]
        assert said[8] == "the same as line 1"
        assert "UTF-8" in said[9]
        assert "no label" in said[10]
        assert "SVG" in said[12]
        assert (job.state, job.done, job.failed, job.total) == (State.DONE, 5, 7, 12)
        assert labels(catalogue) == ["tea", "green  tea with spaces", "茶"]

    def test_a_list_without_pictures_is_refused(self, catalogue):
        job = imported(catalogue, io.BytesIO(b"a.png tea\n"), "gallery.txt")
        assert job.state == State.FAILED
        assert "without its pictures" in job.error


class TestFolders:
    def test_the_folder_is_the_label(self, catalogue):
        job = imported(
            catalogue,
            packed(
                {
                    "shop/green tea/1.png": png(1),
                    "shop/红茶/1.png": png(2),
                    "loose.png": png(3),
                    "__MACOSX/shop/green tea/._1.png": b"junk",
                }
            ),
        )
        assert labels(catalogue) == ["green tea", "红茶"]
        assert [result for _, result in outcome(job)] == ["ok", "ok", "error"]
        assert "no folder" in reasons(job)[3]

    def test_an_empty_archive_is_refused(self, catalogue):
        assert "no files" in imported(catalogue, packed({})).error


class TestAgain:
    SOURCE = {"gallery.txt": "a.png tea\nb.png tea\n", "a.png": png(1), "b.png": png(2)}

    def test_the_same_import_adds_nothing_twice(self, catalogue):
        imported(catalogue, packed(self.SOURCE))
        job = imported(catalogue, packed(self.SOURCE))
        assert [result for _, result in outcome(job)] == ["duplicate", "duplicate"]
        assert catalogue.images.count() == 2

    def test_a_dry_run_says_what_would_be_and_changes_nothing(self, catalogue):
        source = self.SOURCE | {"gallery.txt": "a.png tea\nb.png tea\nc.png tea\n", "c.png": png(1)}
        job = imported(catalogue, packed(source | {"d.png": b""}), dry_run=True)
        assert [result for _, result in outcome(job)] == ["ok", "ok", "duplicate"]
        assert not catalogue.images.exists() and not catalogue.products.exists()

    def test_the_upload_goes_once_nothing_is_left_to_retry(
        self, catalogue, media, django_capture_on_commit_callbacks
    ):
        with django_capture_on_commit_callbacks(execute=True):
            job = imported(catalogue, packed(self.SOURCE))
        assert not job.file
        assert not [path for path in (media / "jobs").rglob("*") if path.is_file()]

    def test_only_failed_lines_are_retried(self, catalogue, settings):
        settings.SHITU_MAX_IMAGE_BYTES = len(png(1)) - 1
        big = {"gallery.txt": "a.png tea\nsmall.png tea\n", "a.png": png(1)}
        small = io.BytesIO()
        Image.new("RGB", (9, 9)).save(small, "PNG")
        job = imported(catalogue, packed(big | {"small.png": small.getvalue()}))
        kept = job.lines.get(number=2).pk
        assert [result for _, result in outcome(job)] == ["error", "ok"]

        settings.SHITU_MAX_IMAGE_BYTES = 10_000
        assert jobs.retry(job, by=None) == 1
        assert job.state == State.PENDING
        jobs.run(job.pk)
        job.refresh_from_db()
        assert [result for _, result in outcome(job)] == ["ok", "ok"]
        assert (job.done, job.failed, job.total) == (2, 0, 2)
        assert job.lines.get(number=2).pk == kept
        with pytest.raises(Conflict):
            jobs.retry(job, by=None)

    def test_the_job_of_a_command_is_not_retried_here(self, catalogue, tmp_path):
        (tmp_path / "gallery.txt").write_text("a.png tea\nmissing.png tea\n")
        (tmp_path / "a.png").write_bytes(png(1))
        job = jobs.run_here(imports.start_here(catalogue, tmp_path, by=None))
        assert (job.state, job.failed) == (State.DONE, 1)
        with pytest.raises(Conflict, match="run the command again"):
            jobs.retry(job, by=None)
        job.refresh_from_db()
        assert (job.state, [result for _, result in outcome(job)]) == (State.DONE, ["ok", "error"])

    def test_cancelling_keeps_what_is_done_and_says_so(self, catalogue, monkeypatch):
        from recognition.services.imports import runner

        monkeypatch.setattr(runner, "CHUNK_PICTURES", 2)
        source = {"gallery.txt": "".join(f"{n}.png tea\n" for n in range(6))}
        source |= {f"{n}.png": png(n) for n in range(6)}
        job = imports.start(catalogue, packed(source), by=catalogue.owner, name="x.zip")
        claimed = Job.objects.filter(pk=job.pk).claim(1)[0]

        def cancel_at_once(running: Job) -> None:
            if running.done == 2:
                jobs.cancel(Job.objects.get(pk=job.pk), by=catalogue.owner)

        assert jobs._run(claimed, cancel_at_once) is False
        job.refresh_from_db()
        assert job.state == State.FAILED
        assert job.error == "cancelled by ann after 2 of 6 lines; what was done stays"
        assert catalogue.images.count() == 2 == job.lines.count()

        jobs.retry(job, by=None)  # goes on where it stopped
        jobs.run(job.pk)
        job.refresh_from_db()
        assert (job.state, job.error, catalogue.images.count()) == (State.DONE, "", 6)

    def test_who_lost_the_job_writes_nothing_more(self, catalogue, media):
        job = imports.start(catalogue, packed(self.SOURCE), by=None, name="x.zip")
        claimed = Job.objects.filter(pk=job.pk).claim(1)[0]

        def somebody_else_takes_it(running: Job) -> None:
            Job.objects.filter(pk=job.pk).update(lease_until=running.lease_until.replace(year=2999))

        assert jobs._run(claimed, somebody_else_takes_it) is False
        assert not catalogue.images.exists() and not JobLine.objects.exists()
        assert not list((media / "gallery").rglob("*.png"))


def test_a_full_quota_ends_the_job_at_the_picture_for_which_there_is_no_room(catalogue):
    quotas.change(catalogue, images=3)
    source = {"gallery.txt": "".join(f"{n}.png tea\n" for n in range(5))}
    source |= {f"{n}.png": png(n) for n in range(5)}
    job = imported(catalogue, packed(source))
    assert job.state == State.FAILED
    assert "may hold 3 images" in job.error
    assert catalogue.images.count() == 3 == job.lines.count()

    quotas.change(catalogue, images=10)
    jobs.retry(job, by=None)
    jobs.run(job.pk)
    job.refresh_from_db()
    assert (job.state, catalogue.images.count()) == (State.DONE, 5)


def test_too_many_jobs_at_once_are_refused(catalogue):
    quotas.change(catalogue, concurrent_jobs=1)
    source = packed({"tea/1.png": png(1)})
    imports.start(catalogue, source, by=catalogue.owner)
    with pytest.raises(LimitReached):
        imports.start(catalogue, source, by=catalogue.owner)


@pytest.mark.django_db(transaction=True)
def test_nobody_waits_for_an_upload_to_be_stored(catalogue, monkeypatch):
    quotas.change(catalogue, concurrent_jobs=1)
    save, within = Storage.save, []

    def watch(storage, name, content):
        within.append(connection.in_atomic_block)
        return save(storage, name, content)

    monkeypatch.setattr(Storage, "save", watch)
    imports.start(catalogue, packed({"tea/1.png": png(1)}), by=None, new_settings={"top_k": 3})
    assert within == [False]
    assert Catalogue.objects.get().top_k == 3


def test_an_upload_that_is_refused_behind_its_storing_is_not_kept(catalogue, media, monkeypatch):
    quotas.change(catalogue, concurrent_jobs=1)
    with pytest.raises(BadInput):
        imports.start(catalogue, packed({}), by=None, new_settings={"top_k": 0})
    save = Storage.save

    def somebody_is_faster(storage, name, content):
        exports.start(catalogue, by=None)
        return save(storage, name, content)

    monkeypatch.setattr(Storage, "save", somebody_is_faster)
    with pytest.raises(LimitReached):
        imports.start(catalogue, packed({}), by=None)
    assert Job.objects.get().kind == Job.Kind.EXPORT
    assert not [path for path in (media / "jobs").rglob("*") if path.is_file()]


def test_the_audit_log_tells_of_the_job_and_its_report_of_the_rest(catalogue):
    imported(catalogue, packed({"tea/1.png": png(1), "tea/2.png": b""}))
    start, end = AuditEntry.objects.filter(catalogue=catalogue, action__startswith="job").order_by(
        "pk"
    )
    assert (start.action, start.user) == (Action.JOB_START, catalogue.owner)
    assert (end.action, end.count, end.details["failed"]) == (Action.JOB_END, 1, 1)
    assert not AuditEntry.objects.filter(action=Action.IMAGE_ADD).exists()


def test_a_picture_of_two_products_is_pointed_out(catalogue):
    job = imported(catalogue, packed({"coffee/1.png": png(1), "tea/1.png": png(1)}))
    assert reasons(job)[2] == "another product has it too (id 0)"
    assert labels(catalogue) == ["coffee", "tea"]


def test_the_report_is_csv_in_input_order(catalogue):
    job = imported(
        catalogue, packed({"gallery.txt": 'a.png tea\nmissing.png "x"\n', "a.png": png(1)})
    )
    assert "".join(jobs.report(job)).splitlines() == [
        "line,result,reason,image,text",
        "1,ok,,0,a.png\ttea",
        '2,error,there is no such file in the archive,,"missing.png\t""x"""',
    ]


def test_many_lines_cost_a_bounded_number_of_queries(
    catalogue, django_assert_max_num_queries, media
):
    source = {"gallery.txt": "".join(f"{n}.png tea {n % 7}\n" for n in range(50))}
    source |= {f"{n}.png": png(n) for n in range(50)}
    with django_assert_max_num_queries(52):
        imported(catalogue, packed(source))
    assert GalleryImage.objects.count() == 50 and Product.objects.count() == 7


def test_nothing_is_removed_for_a_list_of_which_a_line_failed(catalogue):
    factories.add(catalogue, "cola", 9)
    products.create(catalogue, "water")
    job = imported(catalogue, packed({"gallery.txt": "a.png tea\nb.png tea\n", "a.png": png(1)}))
    assert imports.remove_others(job) is None
    assert catalogue.images.count() == 2 and catalogue.products.count() == 3


def test_a_product_that_gets_its_first_picture_at_this_moment_stays(catalogue):
    job = imported(catalogue, packed({"gallery.txt": "a.png tea\n", "a.png": png(1)}))
    for label in ("cola", "water"):
        products.create(catalogue, label)
    added: list[GalleryImage] = []

    def add_behind_the_first_look(execute, sql, params, many, context):
        found = execute(sql, params, many, context)
        if not added and "LEFT OUTER JOIN" in sql and "recognition_galleryimage" in sql:
            added.append(factories.add(catalogue, "cola", 9))
        return found

    with connection.execute_wrapper(add_behind_the_first_look):
        assert imports.remove_others(job) == (0, 1)
    assert added
    assert set(catalogue.products.values_list("label", flat=True)) == {"tea", "cola"}
