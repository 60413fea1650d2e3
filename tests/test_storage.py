"""Pictures in a bucket: everything goes there and comes from there, and only to whoever may see it.

Against a server that speaks S3 on this machine and checks every signature (tests/s3.py).
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from django.core.checks import run_checks
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse

from recognition import checks
from recognition.errors import TryAgain
from recognition.models import GalleryImage, Job, RecognitionQuery, Role, State
from recognition.services import (
    catalogues,
    exports,
    files,
    gallery,
    gallery_adding,
    imports,
    jobs,
    queries,
    trash,
)
from tests import factories, s3
from tests.test_checks import found


@pytest.fixture
def bucket(settings) -> Iterator[s3.S3]:
    """The site's pictures are in this bucket."""
    with s3.serving() as server:
        for name, value in server.settings().items():
            setattr(settings, name, value)
        settings.STORAGES = settings.STORAGES | {
            "default": {"BACKEND": "recognition.storage.Bucket"}
        }
        yield server


@pytest.fixture
def url(catalogue):
    return lambda *parts: "/".join(["/api/v1/catalogues", str(catalogue.key), *map(str, parts)])


@pytest.fixture
def editor(api, catalogue):
    return api(factories.member(catalogue, Role.EDITOR))


def _upload(editor, url, seed: int = 1) -> int:
    body = {"label": "tea", "images": [SimpleUploadedFile("a.png", factories.png(seed))]}
    response = editor.post(url("images"), body, format="multipart")
    assert response.status_code == 201, response.content
    return response.json()["results"][0]["image"]["number"]


class TestStorage:
    def test_what_is_stored_is_read_again(self, bucket, media):
        name = files.keep("gallery/绿茶/a.png", factories.png(1))
        assert files.read(name) == factories.png(1)
        assert bucket.objects == {f"shop/{name}": factories.png(1)}
        assert bucket.kinds == {f"shop/{name}": "image/png"}
        assert not media.exists(), "nothing is written here"

    def test_each_is_one_request(self, bucket):
        files.keep("a.png", b"1")
        files.read("a.png")
        default_storage.delete("a.png")
        assert [method for method, _ in bucket.asked] == ["PUT", "GET", "DELETE"]

    def test_what_is_not_there(self, bucket):
        with pytest.raises(FileNotFoundError):
            files.read("gallery/none.png")
        default_storage.delete("gallery/none.png")

    def test_a_large_file_comes_and_goes_in_parts(self, bucket):
        data = bytes(range(256)) * 40_000  # 10 MB
        name = default_storage.save("jobs/big.zip", ContentFile(data))
        assert [method for method, _ in bucket.asked] == ["POST", "PUT", "PUT", "POST"]
        with default_storage.open(name) as file:
            file.seek(-3, io.SEEK_END)
            assert (file.tell(), file.read()) == (len(data) - 3, data[-3:])

    def test_a_service_that_fails_is_asked_again_and_then_named(self, bucket, monkeypatch):
        monkeypatch.setattr(time, "sleep", lambda seconds: None)  # botocore's pauses
        name = files.keep("a.png", b"1")
        bucket.failing = True
        bucket.asked.clear()
        for act in (lambda: files.read(name), lambda: files.keep("b.png", b"2")):
            with pytest.raises(TryAgain, match="InternalError"):
                act()
        assert len(bucket.asked) == 6

    def test_a_service_that_is_away_is_named(self, bucket, settings, monkeypatch):
        monkeypatch.setattr(time, "sleep", lambda seconds: None)
        settings.SHITU_S3_ENDPOINT = "http://127.0.0.1:9"
        settings.STORAGES = dict(settings.STORAGES)  # made anew
        with pytest.raises(TryAgain, match="EndpointConnectionError"):
            files.read("a.png")

    def test_a_wrong_key_is_refused(self, bucket, settings):
        settings.SHITU_S3_SECRET_KEY = "wrong"
        settings.STORAGES = dict(settings.STORAGES)
        with pytest.raises(TryAgain, match="SignatureDoesNotMatch"):
            files.keep("a.png", b"1")
        assert bucket.objects == {}

    def test_the_key_may_come_from_where_the_aws_tools_take_it(self, bucket, settings, monkeypatch):
        settings.SHITU_S3_ACCESS_KEY = settings.SHITU_S3_SECRET_KEY = ""
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.ACCESS_KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.SECRET_KEY)
        settings.STORAGES = dict(settings.STORAGES)
        files.keep("a.png", b"1")
        assert bucket.objects == {"shop/a.png": b"1"}

    def test_our_own_key_counts_before_that_of_the_environment(self, bucket, monkeypatch):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "other")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "other")
        monkeypatch.setenv("AWS_SESSION_TOKEN", "other")
        files.keep("a.png", b"1")
        assert bucket.objects == {"shop/a.png": b"1"}


@pytest.mark.django_db
class TestSignedAddresses:
    @pytest.fixture
    def image(self, bucket, catalogue) -> GalleryImage:
        return factories.add(catalogue, "tea", 1)

    @pytest.fixture
    def viewer(self, api, catalogue):
        return api(factories.member(catalogue, Role.VIEWER))

    def test_the_picture_is_a_redirect_to_an_address_that_downloads(self, viewer, url, image):
        response = viewer.get(url("images", image.number, "picture"))
        assert response.status_code == 302 and response.content == b""
        answer = httpx.get(response["Location"])
        assert (answer.status_code, answer.content) == (200, factories.png(1))
        assert answer.headers["Content-Type"] == "image/png"
        assert "private" in answer.headers["Cache-Control"]

    def test_the_site_itself_asks_nothing_for_it(self, viewer, url, image, bucket):
        bucket.asked.clear()
        viewer.get(url("images", image.number, "picture"))
        assert bucket.asked == []

    def test_the_redirect_is_remembered_no_longer_than_the_address_is_good(
        self, viewer, url, image, settings
    ):
        settings.SHITU_S3_URL_SECONDS = 60
        response = viewer.get(url("images", image.number, "picture"))
        assert response["Cache-Control"] == "private, max-age=30"
        assert "Authorization" in response["Vary"] and "ETag" not in response
        assert parse_qs(urlsplit(response["Location"]).query)["X-Amz-Expires"] == ["60"]

    def test_it_expires(self, viewer, url, image, bucket, settings):
        address = viewer.get(url("images", image.number, "picture"))["Location"]
        bucket.later = timedelta(seconds=settings.SHITU_S3_URL_SECONDS - 5)
        assert httpx.get(address).status_code == 200
        bucket.later = timedelta(seconds=settings.SHITU_S3_URL_SECONDS + 5)
        refused = httpx.get(address)
        assert refused.status_code == 403 and "expired" in refused.text

    def test_it_is_good_for_that_picture_alone_and_cannot_be_guessed(
        self, viewer, url, image, catalogue
    ):
        other = factories.add(catalogue, "tea", 2)
        address = viewer.get(url("images", image.number, "picture"))["Location"]
        moved = address.replace(image.file.name, other.file.name)
        assert moved != address
        assert httpx.get(moved).status_code == 403
        longer = address.replace("X-Amz-Expires=300", "X-Amz-Expires=3000")
        assert httpx.get(longer).status_code == 403
        assert httpx.get(address.partition("?")[0]).status_code == 403

    def test_an_outsider_gets_404_and_no_address(self, api, url, image):
        response = api(factories.user()).get(url("images", image.number, "picture"))
        assert response.status_code == 404 and "Location" not in response
        assert api().get(url("images", image.number, "picture")).status_code == 401

    def test_the_addresses_handed_out_are_ours(self, viewer, url, image, bucket):
        text = viewer.get(url("images", image.number)).content.decode()
        assert bucket.address not in text and image.file.name not in text
        assert f"/images/{image.number}/picture" in text

    def test_thumbnails_are_made_here(self, viewer, url, image):
        response = viewer.get(url("images", image.number, "thumbnail"))
        assert (response.status_code, response["Content-Type"]) == (200, "image/jpeg")

    def test_the_pages_and_the_admin_redirect_too(self, client, catalogue, image):
        client.force_login(catalogue.owner)
        address = reverse("gallery-picture", args=[catalogue.key, image.number])
        assert httpx.get(client.get(address)["Location"]).content == factories.png(1)
        client.force_login(factories.user(is_staff=True, is_superuser=True))
        address = reverse("admin:recognition_galleryimage_picture", args=[image.pk])
        assert httpx.get(client.get(address)["Location"]).content == factories.png(1)
        assert client.get(f"{address}96/")["Content-Type"] == "image/jpeg"

    def test_a_question_s_picture_too(self, api, catalogue, bucket):
        query = queries.submit(catalogue, factories.picture(5), by=catalogue.owner)
        address = f"/api/v1/recognitions/{query.key}/picture"
        asker, stranger = api(catalogue.owner), api(factories.user())
        assert httpx.get(asker.get(address)["Location"]).content == factories.png(5)
        assert stranger.get(address).status_code == 404

    def test_browsers_may_know_the_service_by_another_name(self, viewer, url, image, settings):
        settings.SHITU_S3_PUBLIC_ENDPOINT = "https://pictures.example.com"
        settings.STORAGES = dict(settings.STORAGES)
        address = viewer.get(url("images", image.number, "picture"))["Location"]
        assert address.startswith("https://pictures.example.com/pictures/shop/gallery/")
        assert files.read(image.file.name) == factories.png(1)

    def test_the_bucket_may_stand_before_the_host_name(self, image, viewer, url, settings):
        settings.SHITU_S3_ADDRESSING = "virtual"
        settings.SHITU_S3_PUBLIC_ENDPOINT = "https://oss.example.com"
        settings.STORAGES = dict(settings.STORAGES)
        address = viewer.get(url("images", image.number, "picture"))["Location"]
        assert address.startswith("https://pictures.oss.example.com/shop/gallery/")

    def test_or_the_site_sends_them_itself(self, viewer, url, image, settings):
        settings.SHITU_S3_URL_SECONDS = 0
        response = viewer.get(url("images", image.number, "picture"))
        assert b"".join(response.streaming_content) == factories.png(1)
        assert response["Content-Type"] == "image/png" and response["ETag"]

    def test_what_is_gone_is_said_to_be_missing_where_the_site_looks(
        self, viewer, url, image, bucket, settings
    ):
        bucket.objects.clear()
        assert viewer.get(url("images", image.number, "thumbnail")).status_code == 404
        settings.SHITU_S3_URL_SECONDS = 0
        assert viewer.get(url("images", image.number, "picture")).status_code == 404

    def test_while_the_service_is_away_pictures_are_503(
        self, viewer, url, image, bucket, monkeypatch, client, catalogue
    ):
        monkeypatch.setattr(time, "sleep", lambda seconds: None)
        bucket.failing = True
        response = viewer.get(url("images", image.number, "thumbnail"))
        assert (response.status_code, response.json()["error"]["code"]) == (503, "try_again")
        client.force_login(catalogue.owner)
        small = reverse("gallery-thumbnail", args=[catalogue.key, image.number, 160])
        assert client.get(small).status_code == 503


@pytest.mark.django_db
class TestEverythingGoesThroughIt:
    def test_uploaded_embedded_recognised_removed(
        self, bucket, editor, url, catalogue, stub_engine, run_tasks
    ):
        with run_tasks():
            number = _upload(editor, url)
        assert catalogue.images.get().state == State.DONE
        assert list(bucket.objects.values()) == [factories.png(1)]
        with run_tasks():
            query = queries.submit(catalogue, factories.picture(1), by=catalogue.owner)
        query.refresh_from_db()
        assert query.state == State.DONE
        assert query.detections.get().matches.get().label == "tea"
        with run_tasks():
            assert editor.delete(url("images", number)).status_code == 204
            queries.remove(query)
        assert bucket.objects == {}

    def test_what_is_refused_leaves_no_object(self, bucket, catalogue):
        from recognition.errors import StorageFull
        from recognition.services import quotas

        quotas.change(catalogue, images=1)
        new = [gallery_adding.NewImage("tea", factories.picture(n)) for n in (1, 2)]
        with pytest.raises(StorageFull):
            gallery_adding.add_images(catalogue, new, by=None)
        assert bucket.objects == {}

    def test_only_a_picture_that_is_there_is_looked_for(self, bucket, catalogue):
        bucket.asked.clear()
        image = factories.add(catalogue, "tea", 1)
        assert [method for method, _ in bucket.asked] == ["PUT"]
        factories.add(catalogue, "tea", 1)
        assert [method for method, _ in bucket.asked] == ["PUT", "HEAD"]
        bucket.objects.clear()
        factories.add(catalogue, "tea", 1)
        assert [method for method, _ in bucket.asked] == ["PUT", "HEAD", "HEAD", "PUT"]
        image.refresh_from_db()
        assert bucket.objects == {f"shop/{image.file.name}": factories.png(1)}

    def test_while_the_service_is_away_an_upload_is_refused(
        self, bucket, editor, url, monkeypatch, catalogue
    ):
        monkeypatch.setattr(time, "sleep", lambda seconds: None)
        bucket.failing = True
        body = {"label": "tea", "images": [SimpleUploadedFile("a.png", factories.png(1))]}
        response = editor.post(url("images"), body, format="multipart")
        assert (response.status_code, response.json()["error"]["code"]) == (503, "try_again")
        assert not catalogue.images.exists()

    def test_while_the_service_is_away_images_wait(
        self, bucket, catalogue, stub_engine, run_tasks, monkeypatch
    ):
        from recognition.services import indexing

        monkeypatch.setattr(time, "sleep", lambda seconds: None)
        image = factories.add(catalogue, "tea", 1)
        bucket.failing = True
        with pytest.raises(TryAgain):
            indexing.embed_waiting(catalogue.pk)
        image.refresh_from_db()
        assert image.state == State.RUNNING, "its lease brings it back"
        GalleryImage.objects.update(lease_until="2020-01-01T00:00Z")
        bucket.failing = False
        indexing.embed_waiting(catalogue.pk)
        image.refresh_from_db()
        assert image.state == State.DONE

    def test_an_object_that_cannot_be_removed_now_is_for_the_log(
        self, bucket, catalogue, monkeypatch, django_capture_on_commit_callbacks
    ):
        monkeypatch.setattr(time, "sleep", lambda seconds: None)
        image = factories.add(catalogue, "tea", 1)
        bucket.failing = True
        with django_capture_on_commit_callbacks(execute=True):
            gallery.remove_images(catalogue, [image])
        assert not catalogue.images.exists() and bucket.objects

    def test_an_archive_is_imported_and_an_export_fetched(
        self, bucket, catalogue, editor, url, run_tasks, stub_engine
    ):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("gallery.txt", "a.png tea\nb.png coffee\n")
            archive.writestr("a.png", factories.png(1))
            archive.writestr("b.png", factories.png(2))
        out.seek(0)
        job = imports.start(catalogue, out, by=catalogue.owner, name="shelf.zip")
        with run_tasks():
            jobs.run(job.pk)
        assert catalogue.images.count() == 2
        assert not any(name.endswith(".zip") for name in bucket.objects), "it is not needed again"
        with run_tasks():
            started = editor.post(url("exports"), {}, format="json")
        address = editor.get(started["Location"]).json()["file"]
        answer = httpx.get(editor.get(address)["Location"])
        assert f'filename="{catalogue.name}.zip"' in answer.headers["Content-Disposition"]
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            assert {"images/0.png", "images/1.png"} <= set(archive.namelist())
            assert archive.read("images/1.png") == factories.png(2)

    def test_while_the_service_is_away_jobs_wait(self, bucket, catalogue, settings, monkeypatch):
        monkeypatch.setattr(time, "sleep", lambda seconds: None)
        factories.add(catalogue, "tea", 1)
        manifest = io.BytesIO(b"label,category\ncoffee,drinks\n")
        waiting = [
            imports.start(catalogue, manifest, by=None, name="list.csv"),
            exports.start(catalogue, by=None),
        ]
        bucket.failing = True
        for job in waiting:
            for _ in range(settings.SHITU_MAX_ATTEMPTS + 1):
                jobs.run(job.pk)
            job.refresh_from_db()
            assert (job.state, job.attempts) == (State.PENDING, 0)
            assert "InternalError" in job.error
        bucket.failing = False
        for job in waiting:
            jobs.run(job.pk)
            job.refresh_from_db()
            assert (job.state, job.done, job.error) == (State.DONE, 1, "")

    @pytest.mark.parametrize("name", ["list.csv", "list.xlsx"])
    def test_a_manifest_is_imported(self, bucket, catalogue, name):
        import openpyxl

        out = io.BytesIO(b"label,category\ntea,drinks\n")
        if name.endswith("xlsx"):
            book = openpyxl.Workbook()
            book.active.append(["label", "category"])
            book.active.append(["tea", "drinks"])
            out = io.BytesIO()
            book.save(out)
            out.seek(0)
        job = imports.start(catalogue, out, by=None, name=name)
        jobs.run(job.pk)
        job.refresh_from_db()
        assert (job.state, job.done) == (State.DONE, 1), job.error
        assert catalogue.products.get().category == "drinks"

    def test_purged_with_the_trash_and_with_the_catalogue(
        self, bucket, catalogue, django_capture_on_commit_callbacks
    ):
        image = factories.add(catalogue, "tea", 1)
        factories.add(catalogue, "coffee", 2)
        queries.submit(catalogue, factories.picture(3), by=None)
        Job.objects.create(
            catalogue=catalogue, kind=Job.Kind.EXPORT, file=files.keep("jobs/x.zip", b"zip")
        )
        assert len(bucket.objects) == 4
        with django_capture_on_commit_callbacks(execute=True):
            trash.put(catalogue, [image.product])
            assert len(bucket.objects) == 4
        with django_capture_on_commit_callbacks(execute=True):
            catalogues.remove(catalogue)
        assert bucket.objects == {}
        assert not RecognitionQuery.objects.exists()


@pytest.mark.worker
@pytest.mark.django_db(transaction=True)
def test_a_real_worker_embeds_what_the_web_server_stored(
    bucket, worker, starter_catalogue, monkeypatch, api
):
    for name, value in bucket.settings().items():
        monkeypatch.setenv(name, value)
    worker()
    catalogue = starter_catalogue()
    editor = api(catalogue.owner)
    body = {"label": "tea", "images": [SimpleUploadedFile("a.png", factories.png(1, (320, 240)))]}
    editor.post(f"/api/v1/catalogues/{catalogue.key}/images", body, format="multipart")
    image = catalogue.images.get()
    deadline = time.monotonic() + 60
    while image.state in (State.PENDING, State.RUNNING) and time.monotonic() < deadline:
        time.sleep(0.1)
        image.refresh_from_db()
    assert (image.state, image.error) == (State.DONE, "")
    assert ("GET", f"shop/{image.file.name}") in bucket.asked


class TestChecks:
    def test_nothing_starts_with_a_storage_that_is_misspelt(self):
        started = subprocess.run(
            [sys.executable, "-c", "import shitu_site.settings"],
            env=os.environ
            | {
                "SHITU_MEDIA_STORAGE": "s4",
                "DATABASE_URL": "postgres://x",
                "REDIS_URL": "redis://x",
            },
            capture_output=True,
            text=True,
        )
        assert started.returncode != 0
        assert "SHITU_MEDIA_STORAGE=s4 is none of local, s3" in started.stderr

    def test_a_sound_bucket_has_nothing_to_complain_about(self, bucket):
        assert found(checks.bucket_is_described) == {}
        assert found(checks.bucket_answers, databases=["default"]) == {}
        assert found(checks.media_is_writable) == {}

    @pytest.mark.parametrize(
        ("name", "value", "complaint"),
        [
            ("SHITU_S3_BUCKET", "", "SHITU_S3_BUCKET is missing"),
            ("SHITU_S3_SECRET_KEY", "", "Set both, or none"),
            ("SHITU_S3_ENDPOINT", "minio:9000", "https://s3.example.com"),
            ("SHITU_S3_PUBLIC_ENDPOINT", "minio", "SHITU_S3_PUBLIC_ENDPOINT is no web address"),
            ("SHITU_S3_ADDRESSING", "host", "auto, path, virtual"),
            ("SHITU_S3_URL_SECONDS", -1, "between 0 and 604800"),
            ("SHITU_S3_URL_SECONDS", 604_801, "a week"),
        ],
    )
    def test_a_setting_that_is_missing_or_wrong(self, bucket, settings, name, value, complaint):
        setattr(settings, name, value)
        assert complaint in found(checks.bucket_is_described)["recognition.E022"]
        assert found(checks.bucket_answers, databases=["default"]) == {}, "not asked with that"

    def test_packages_that_are_missing(self, bucket, monkeypatch):
        monkeypatch.setattr(checks, "find_spec", lambda name: None)
        assert "requirements-s3.txt" in found(checks.bucket_is_described)["recognition.E022"]

    def test_nginx_cannot_send_what_is_in_a_bucket(self, bucket, settings):
        settings.SHITU_ACCEL_REDIRECT = "/protected/"
        assert "Unset it" in found(checks.bucket_is_described)["recognition.W023"]

    def test_a_bucket_that_is_named_and_not_used(self, settings):
        settings.SHITU_S3_BUCKET = "pictures"
        assert "SHITU_MEDIA_STORAGE=s3" in found(checks.media_is_writable)["recognition.W021"]

    @pytest.mark.parametrize(
        ("name", "value"),
        [("SHITU_S3_BUCKET", "other"), ("SHITU_S3_SECRET_KEY", "wrong")],
    )
    def test_a_bucket_that_does_not_open(self, bucket, settings, name, value):
        setattr(settings, name, value)
        settings.STORAGES = dict(settings.STORAGES)
        complaint = found(checks.bucket_answers, databases=["default"])["recognition.E024"]
        assert "SHITU_S3_ENDPOINT" in complaint and "wrong" not in complaint

    def test_the_service_is_asked_only_with_the_database(self, bucket):
        run_checks()
        assert bucket.asked == []
