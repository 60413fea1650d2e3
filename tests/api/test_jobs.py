"""Jobs: started, watched, cancelled, tried again; their report and their file."""

from __future__ import annotations

import csv
import io
import json
import uuid
import zipfile

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.utils import translation

from recognition.models import AuditEntry, GalleryImage, Job, JobLine
from recognition.services import catalogues, exports, jobs
from tests import factories


@pytest.fixture
def job(catalogue) -> Job:
    image = factories.add(catalogue, "tea", 1)
    job = Job.objects.create(
        catalogue=catalogue,
        kind=Job.Kind.IMPORT,
        started_by=catalogue.owner,
        total=3,
        done=1,
        failed=1,
    )
    JobLine.objects.create(job=job, number=1, text="a.png tea", result="ok", image=image)
    JobLine.objects.create(job=job, number=2, text="b", result="error", reason="no label")
    return job


def test_progress(viewer, url, job):
    body = viewer.get(url("jobs", job.key)).json()
    assert (body["kind"], body["state"]) == ("import", "pending")
    assert (body["total"], body["done"], body["failed"]) == (3, 1, 1)
    assert body["started_by"] == "ann"
    assert viewer.get(url("jobs")).json()["results"] == [body]


def test_the_report_line_by_line(viewer, url, job):
    lines = viewer.get(url("jobs", job.key, "lines")).json()["results"]
    assert [(line["number"], line["result"]) for line in lines] == [(1, "ok"), (2, "error")]
    assert lines[0]["image_state"] == "pending"
    assert lines[1] == {
        "number": 2,
        "text": "b",
        "result": "error",
        "reason": "no label",
        "image": None,
        "image_state": None,
    }


def test_filters(viewer, url, job):
    [line] = viewer.get(url("jobs", job.key, "lines"), {"result": "error"}).json()["results"]
    assert line["number"] == 2
    assert viewer.get(url("jobs"), {"state": "done"}).json()["results"] == []
    assert len(viewer.get(url("jobs"), {"kind": "import"}).json()["results"]) == 1


def test_one_that_is_not_there(viewer, url):
    assert viewer.get(url("jobs", uuid.uuid4())).status_code == 404
    assert viewer.get(url("jobs", uuid.uuid4(), "lines")).status_code == 404


def _zip(**files: bytes) -> SimpleUploadedFile:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(name.replace("__", "."), data)
    return SimpleUploadedFile("shelf.zip", out.getvalue())


@pytest.fixture
def upload(editor, url, run_tasks, stub_engine):
    def post(file: SimpleUploadedFile, **fields):
        with run_tasks():
            return editor.post(url("imports"), {"file": file, **fields}, format="multipart")

    return post


GALLERY = b"a.png green tea\nb.png coffee\nmissing.png coffee\n"


def test_a_gallery_list_with_its_pictures_is_imported(upload, editor, catalogue):
    file = _zip(gallery__txt=GALLERY, a__png=factories.png(1), b__png=factories.png(2))
    started = upload(file)
    assert started.status_code == 201, started.content
    assert (started.json()["state"], started.json()["source_name"]) == ("pending", "shelf.zip")
    job = editor.get(started["Location"]).json()
    assert (job["state"], job["done"], job["failed"], job["total"]) == ("done", 2, 1, 3)
    labels = catalogue.images.values_list("product__label", flat=True).order_by("number")
    assert list(labels) == ["green tea", "coffee"]


def test_a_dry_run_adds_nothing(upload, editor):
    started = upload(_zip(gallery__txt=GALLERY, a__png=factories.png(1)), dry_run="true")
    job = editor.get(started["Location"]).json()
    assert (job["dry_run"], job["done"], job["failed"]) == (True, 1, 2)
    assert not GalleryImage.objects.exists()


def test_what_is_no_source_fails_with_a_reason(upload, editor):
    started = upload(SimpleUploadedFile("tea.zip", b"no zip"))
    job = editor.get(started["Location"]).json()
    assert job["state"] == "failed" and job["error"]


@pytest.fixture
def in_language(editor, url):
    """`in_language(language, file)` is an import that somebody started in that language."""

    def post(language: str, file: SimpleUploadedFile) -> Job:
        headers = {"Accept-Language": language}
        started = editor.post(url("imports"), {"file": file}, format="multipart", headers=headers)
        return Job.objects.get(key=started.json()["key"])

    return post


def work(job: Job, *, language: str) -> Job:
    """What a worker does, in whatever language it was left."""
    with translation.override(language):
        jobs.run(job.pk)
    job.refresh_from_db()
    return job


OF_EACH_KIND = b"""a.png tea
a.png coffee
a.png tea
missing.png tea

broken.png tea
alone
b.png tea
"""


@pytest.mark.parametrize(
    ("language", "others", "reasons"),
    [
        (
            "en",
            "zh-hans",
            [
                "",
                "another product has it too (id 0)",
                "the same as line 1",
                "there is no such file in the archive",
                "blank",
                "The picture is damaged or incomplete and cannot be decoded. Send the file again.",
                "no label: a line is a path, a space or tab, and a label",
                "the product has this picture already (id 0)",
            ],
        ),
        (
            "zh-hans",
            "en",
            [
                "",
                "另一个商品也有这张图片（编号 0）",
                "与第 1 行相同",
                "压缩包中没有这个文件",
                "空行",
                "图片：已损坏或不完整，无法解码。请重新发送该文件。",
                "没有标签：每行依次为路径、一个空格或制表符、标签",
                "该商品已有这张图片（编号 0）",
            ],
        ),
    ],
)
def test_reasons_are_in_the_language_of_whoever_started_it(in_language, language, others, reasons):
    file = _zip(
        gallery__txt=OF_EACH_KIND,
        a__png=factories.png(1),
        b__png=factories.png(1),
        broken__png=factories.png(2)[:99],
    )
    job = work(in_language(language, file), language=others)
    assert list(job.lines.order_by("number").values_list("reason", flat=True)) == reasons


@pytest.mark.parametrize(
    ("language", "others", "error"),
    [("en", "zh-hans", "does not name the columns"), ("zh-hans", "en", "第一行不是列名")],
)
def test_so_is_why_the_whole_of_it_failed(in_language, language, others, error):
    job = work(in_language(language, SimpleUploadedFile("a.zip", b"no zip")), language=others)
    assert job.state == "failed"
    assert error in job.error


def test_so_is_that_somebody_else_cancelled_it(in_language, manager, url):
    job = in_language("zh-hans", _zip(gallery__txt=GALLERY))
    answer = manager.post(url("jobs", job.key, "cancel"), headers={"Accept-Language": "en"})
    assert answer.json()["error"] == "已由 ann 取消，已处理 0 行；已完成的保留"


def test_an_upload_without_a_file_is_refused(editor, url):
    assert editor.post(url("imports"), {}, format="multipart").status_code == 400
    empty = {"file": SimpleUploadedFile("a.zip", b"")}
    assert editor.post(url("imports"), empty, format="multipart").status_code == 400
    assert editor.post(url("imports"), {}, format="json").status_code == 415
    assert not Job.objects.exists()


def test_an_import_may_be_larger_than_other_requests(upload, editor, url, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 2000
    file = _zip(gallery__txt=GALLERY, a__png=factories.png(1, (640, 480)))
    assert file.size > 2000
    assert upload(file).status_code == 201
    settings.SHITU_MAX_IMPORT_BYTES = 2000
    file.seek(0)
    assert upload(file).status_code == 413


def test_the_report_as_a_table(viewer, url, job):
    answer = viewer.get(viewer.get(url("jobs", job.key)).json()["report"])
    assert answer["Content-Type"].startswith("text/csv")
    rows = list(csv.reader(io.StringIO(b"".join(answer.streaming_content).decode())))
    assert rows[0] == ["line", "result", "reason", "image", "text"]
    assert rows[2] == ["2", "error", "no label", "", "b"]


def test_an_export_is_fetched_when_it_is_done(editor, viewer, url, catalogue, run_tasks):
    factories.add(catalogue, "tea", 1)
    waiting = editor.post(url("exports"), {}, format="json").json()
    assert waiting["file"] is None
    assert editor.get(url("jobs", waiting["key"], "file")).status_code == 409
    with run_tasks():
        started = editor.post(url("exports"), {}, format="json")
    address = editor.get(started["Location"]).json()["file"]
    file = editor.get(address)
    assert f'filename="{catalogue.name}.zip"' in file["Content-Disposition"]
    with zipfile.ZipFile(io.BytesIO(b"".join(file.streaming_content))) as archive:
        assert {"gallery.txt", "catalogue.json", "images/0.png"} <= set(archive.namelist())
    assert viewer.get(address).status_code == 403
    Job.objects.update(file="")
    assert editor.get(address).status_code == 404


def test_what_was_uploaded_is_not_given_out(upload, editor, url):
    job = upload(_zip(gallery__txt=GALLERY)).json()
    assert job["file"] is None
    assert editor.get(url("jobs", job["key"], "file")).status_code == 404


def test_cancelled(editor, url, job):
    body = editor.post(url("jobs", job.key, "cancel")).json()
    assert body["state"] == "failed" and "cancelled" in body["error"]
    assert editor.post(url("jobs", job.key, "cancel")).status_code == 409
    assert AuditEntry.objects.filter(action="job.cancel", object_id=str(job.pk)).exists()


def test_only_the_failed_lines_are_tried_again(upload, editor, url, catalogue, run_tasks):
    job = upload(_zip(gallery__txt=GALLERY, a__png=factories.png(1))).json()
    assert editor.get(job["url"]).json()["failed"] == 2
    with run_tasks():
        assert editor.post(url("jobs", job["key"], "retry")).json() == {"retried": 2}
    again = editor.get(job["url"]).json()
    assert (again["state"], again["done"], again["failed"]) == ("done", 1, 2)
    assert catalogue.images.count() == 1


def test_nothing_to_try_again(editor, url, job):
    assert editor.post(url("jobs", job.key, "retry")).status_code == 409
    Job.objects.update(state="done", failed=0)
    assert editor.post(url("jobs", job.key, "retry")).status_code == 409


@pytest.fixture
def export(catalogue, stub_engine):
    """An export of a catalogue with settings of its own."""
    other = factories.catalogue(catalogue.owner, "other", top_k=7, det_threshold=0.25)
    catalogues.change(other, metric="L2", rec_threshold=0.75)
    factories.add(other, "tea", 1)
    out = io.BytesIO()
    exports.write(other, out, embeddings=False)
    return SimpleUploadedFile("other.zip", out.getvalue())


def test_an_export_brings_its_settings_when_asked_to(manager, url, catalogue, export, run_tasks):
    name = catalogue.name
    for settings in (False, True):
        export.seek(0)
        with run_tasks():
            answer = manager.post(url("imports"), {"file": export, "settings": settings})
        assert answer.status_code == 201, answer.content
        found = manager.get(url()).json()
        own = (found["name"], found["metric"], found["top_k"], found["rec_threshold"])
        assert own == ((name, "L2", 7, 0.75) if settings else (name, "IP", 5, None))
    assert manager.get(answer["Location"]).json()["state"] == "done"
    entry = AuditEntry.objects.filter(action="catalogue.change", catalogue=catalogue).get()
    assert entry.changes["top_k"] == [5, 7]


def test_its_settings_take_the_role_manager(editor, url, export):
    answer = editor.post(url("imports"), {"file": export, "settings": True})
    assert answer.status_code == 403 and "role manager" in answer.json()["error"]["message"]
    assert not Job.objects.exists()


def test_a_dry_run_takes_no_settings(manager, url, export, catalogue, run_tasks):
    with run_tasks():
        body = {"file": export, "settings": True, "dry_run": True}
        assert manager.post(url("imports"), body).status_code == 201
    assert manager.get(url()).json()["top_k"] == 5


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"top_k": "many"}, "top_k"),
        ({"detector": "of_nobody"}, "detector"),
        ({"description": "\0"}, "description"),
        ({"crop_policy": None}, "crop_policy"),
    ],
)
def test_settings_that_cannot_be_are_refused_and_nothing_starts(manager, url, change, field):
    kept = {"format": "shitu-catalogue", "version": 1, "catalogue": change, "products": []}
    file = _zip(catalogue__json=json.dumps(kept).encode())
    answer = manager.post(url("imports"), {"file": file, "settings": True})
    assert answer.status_code == 400
    assert list(answer.json()["error"]["fields"]) == [field]
    assert not Job.objects.exists()


def test_only_an_export_has_settings(manager, url):
    file = _zip(gallery__txt=GALLERY, a__png=factories.png(1))
    answer = manager.post(url("imports"), {"file": file, "settings": True})
    assert (answer.status_code, list(answer.json()["error"]["fields"])) == (400, ["settings"])
