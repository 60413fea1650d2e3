"""Editors import and export on a page, and see how far it is."""

from __future__ import annotations

import io
import re
import zipfile

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse

from recognition.models import GalleryImage, Job, JobLine, Role
from recognition.services import members
from tests import factories
from tests.web.conftest import HTMX

pytestmark = pytest.mark.django_db


@pytest.fixture
def address(catalogue) -> str:
    return reverse("transfer", args=[catalogue.key])


def folder_zip() -> SimpleUploadedFile:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("green tea/1.png", factories.png(1))
        archive.writestr("green tea/2.png", b"no picture")
    return SimpleUploadedFile("teas.zip", packed.getvalue(), "application/zip")


def test_a_file_is_imported_and_its_report_is_there(
    member, catalogue, address, stub_engine, run_tasks
):
    with run_tasks():
        response = member.post(address, {"file": folder_zip()})
    assert response["Location"] == address
    job = catalogue.jobs.get()
    assert (job.kind, job.done, job.failed) == (Job.Kind.IMPORT, 1, 1)
    assert catalogue.images.get().product.label == "green tea"
    page = member.get(address).content.decode()
    assert "teas.zip" in page
    assert "1 line done" in page and "1 line failed" in page
    assert "<h1>Import and export</h1>" in page
    report = member.get(reverse("api:job-report", args=[catalogue.key, job.key]))
    assert b"2.png" in b"".join(report)


def test_a_dry_run_adds_nothing(member, catalogue, address, stub_engine, run_tasks):
    with run_tasks():
        member.post(address, {"file": folder_zip(), "dry_run": "on"})
    assert JobLine.objects.count() == 2
    assert not GalleryImage.objects.exists()


def test_an_export_is_made_and_fetched(member, catalogue, address, stub_engine, run_tasks):
    with run_tasks():
        factories.add(catalogue, "green tea", 1)
    with run_tasks():
        member.post(address, {"export": "1", "embeddings": "on"})
    job = catalogue.jobs.get()
    file = reverse("api:job-file", args=[catalogue.key, job.key])
    assert file in member.get(address).content.decode()
    with zipfile.ZipFile(io.BytesIO(b"".join(member.get(file)))) as archive:
        assert "catalogue.json" in archive.namelist()


def test_the_page_asks_again_while_a_job_runs_and_then_no_more(member, catalogue, address):
    member.post(address, {"export": "1"})
    part = member.get(address, headers=HTMX).content.decode()
    assert 'hx-trigger="every 2s"' in part
    assert "<form" not in part
    Job.objects.update(state="done")
    assert "hx-trigger" not in member.get(address, headers=HTMX).content.decode()


def test_a_picture_alone_is_told_where_it_belongs(
    member, catalogue, address, stub_engine, run_tasks
):
    for data in (factories.png(1), b"\xff\xd8\xff\xe0 a JPEG", b"RIFF....WEBP"):
        with run_tasks():
            member.post(address, {"file": SimpleUploadedFile("tea.csv", data)})
        job = catalogue.jobs.first()
        assert job.state == "failed"
        assert "this is a picture; put it into a ZIP" in job.error


def test_a_tick_stands_in_its_label(member, address):
    page = member.get(address).content.decode()
    assert re.search(r'<label class="tick"><input type="checkbox"[^>]*> Only judge it', page)


@pytest.mark.parametrize("sent", [{}, {"file": SimpleUploadedFile("a.zip", b"")}])
def test_without_a_file_the_form_says_so(member, catalogue, address, sent):
    response = member.post(address, sent)
    assert response.status_code == 422
    assert not catalogue.jobs.exists()


def test_too_large_a_file_is_refused_with_the_limit(member, catalogue, address, settings):
    settings.SHITU_MAX_IMPORT_BYTES = 100
    response = member.post(address, {"file": folder_zip()})
    assert response.status_code == 422
    assert "SHITU_MAX_IMPORT_BYTES" in response.content.decode()
    assert not catalogue.jobs.exists()


def test_too_many_jobs_are_refused_in_words(member, catalogue, address, settings):
    settings.SHITU_QUOTA_CONCURRENT_JOBS = 1
    member.post(address, {"export": "1"})
    response = member.post(address, {"export": "1"})
    assert response.status_code == 422
    assert "unfinished jobs" in response.content.decode()


def test_a_viewer_is_told_which_role_it_takes(browser, catalogue, address):
    eve = factories.user("eve")
    members.add(catalogue, eve, Role.VIEWER)
    for response in (browser(eve).get(address), browser(eve).post(address, {"export": "1"})):
        assert response.status_code == 403
        assert "editor" in response.content.decode()
    assert not catalogue.jobs.exists()


def test_the_page_costs_as_many_statements_with_twenty_jobs(
    member, catalogue, address, django_assert_max_num_queries
):
    Job.objects.bulk_create(
        Job(catalogue=catalogue, kind=Job.Kind.EXPORT, started_by=catalogue.owner)
        for _ in range(20)
    )
    with django_assert_max_num_queries(8):
        member.get(address)
