"""Jobs are cancelled and tried again by staff who may."""

from __future__ import annotations

import io
import zipfile

import pytest
from django.contrib.auth.models import Permission
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse

from recognition.models import Action, AuditEntry, Job, LineResult, Source, State
from tests import factories

PAGES = "admin:recognition_job"


@pytest.fixture
def failed(rows) -> Job:
    """One that ended with a failed line."""
    job = Job.objects.create(
        catalogue=rows.catalogue, kind=Job.Kind.IMPORT, state=State.DONE, total=2, done=1, failed=1
    )
    job.lines.create(number=1, text="a.jpg tea", result=LineResult.OK)
    job.lines.create(number=2, text="b.jpg tea", result=LineResult.ERROR, reason="it is missing")
    return job


def page(client, job: Job) -> str:
    return client.get(reverse(f"{PAGES}_change", args=[job.pk])).content.decode()


def button(job: Job, name: str) -> str:
    return reverse(f"{PAGES}_{name}_this", args=[job.pk])


def press(client, job: Job, name: str):
    return client.post(button(job, name), {"_form_submitted": "on"})


def choose(client, name: str, *chosen: Job):
    form = {"action": name, "_selected_action": [job.pk for job in chosen]}
    return client.post(reverse(f"{PAGES}_changelist"), form, follow=True).content.decode()


def cancelled(job: Job) -> bool:
    job.refresh_from_db()
    return job.state == State.FAILED and "cancelled by root" in job.error


def test_a_button_cancels_and_asks_first(staff, rows):
    asked = staff.get(button(rows.job, "cancel")).content.decode()
    assert "It stops; what was done stays." in asked
    assert not cancelled(rows.job)
    answer = press(staff, rows.job, "cancel")
    assert answer["HX-Redirect"] == reverse(f"{PAGES}_change", args=[rows.job.pk])
    assert cancelled(rows.job)
    assert "1 job cancelled." in page(staff, rows.job)
    entry = AuditEntry.objects.get(action=Action.JOB_CANCEL)
    assert (entry.source, entry.user) == (Source.ADMIN, staff.user)


def test_a_button_tries_failed_lines_again(staff, failed):
    press(staff, failed, "retry")
    failed.refresh_from_db()
    assert (failed.state, failed.failed) == (State.PENDING, 0)
    assert [line.number for line in failed.lines.all()] == [1]
    assert "1 job goes on." in page(staff, failed)


def test_only_what_can_be_done_is_offered(staff, rows, failed):
    def offered(job: Job) -> list[str]:
        text = page(staff, job)
        return [name for name in ("cancel", "retry") if button(job, name) in text]

    assert offered(rows.job) == ["cancel"]
    assert offered(failed) == ["retry"]
    failed.lines.all().delete()
    Job.objects.filter(pk=failed.pk).update(failed=0)
    assert offered(failed) == []
    Job.objects.filter(pk=failed.pk).update(state=State.FAILED)
    assert offered(failed) == ["retry"]


def test_one_that_ended_meanwhile_says_so(staff, rows):
    Job.objects.filter(pk=rows.job.pk).update(state=State.DONE)
    press(staff, rows.job, "cancel")
    assert "has ended already" in page(staff, rows.job)


def test_several_at_once_and_what_is_refused_stops_no_other(staff, rows, failed):
    other = Job.objects.create(catalogue=rows.catalogue, kind=Job.Kind.EXPORT)
    text = choose(staff, "cancel", rows.job, failed, other)
    assert cancelled(rows.job) and cancelled(other)
    assert "2 jobs cancelled." in text and "has ended already" in text
    text = choose(staff, "retry", rows.job, failed)
    assert "2 jobs go on." in text
    assert set(Job.objects.exclude(pk=other.pk).values_list("state", flat=True)) == {State.PENDING}


@pytest.mark.parametrize(("permission", "may"), [("change_job", True), ("add_job", False)])
def test_it_needs_the_permission(client, rows, failed, permission, may):
    clerk = factories.user("root", is_staff=True)
    clerk.user_permissions.set(Permission.objects.filter(codename__in=["view_job", permission]))
    client.force_login(clerk)
    assert (button(rows.job, "cancel") in page(client, rows.job)) is may
    assert press(client, rows.job, "cancel").status_code == (200 if may else 403)
    assert press(client, failed, "retry").status_code == (200 if may else 403)
    assert cancelled(rows.job) is may
    Job.objects.update(state=State.PENDING, error="")
    choose(client, "cancel", rows.job)
    assert cancelled(rows.job) is may


def test_the_progress_bar_is_there(staff, failed):
    assert 'role="progressbar"' in page(staff, failed)


def test_a_job_that_is_none(staff, rows):
    for name in ("cancel", "retry"):
        assert press(staff, Job(pk=10**9), name).status_code == 404


# --- Import and export ----------------------------------------------------------------------------


def shelf(name: str = "a.png") -> SimpleUploadedFile:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("gallery.txt", f"{name} oolong\n")
        archive.writestr("a.png", factories.png(7))
    return SimpleUploadedFile("shelf.zip", out.getvalue())


def act_on(client, name: str, *catalogues, **fields):
    form = {"action": name, "_selected_action": [one.pk for one in catalogues], **fields}
    address = reverse("admin:recognition_catalogue_changelist")
    return client.post(address, form, follow=True).content.decode()


@pytest.mark.parametrize(("action", "labels"), [("import_file", ["oolong"]), ("judge_file", [])])
def test_a_file_is_imported_or_only_judged(
    staff, catalogue, stub_engine, run_tasks, action, labels
):
    asked = act_on(staff, action, catalogue)
    assert "Which file?" in asked and 'enctype="multipart/form-data"' in asked
    with run_tasks():
        said = act_on(staff, action, catalogue, chosen=shelf())
    job = Job.objects.get(kind=Job.Kind.IMPORT)
    assert reverse(f"{PAGES}_change", args=[job.pk]) in said
    assert (job.state, job.done, job.failed, job.started_by) == (State.DONE, 1, 0, staff.user)
    assert [product.label for product in catalogue.products.all()] == labels
    entry = AuditEntry.objects.get(action=Action.JOB_START)
    assert (entry.source, entry.user) == (Source.ADMIN, staff.user)


def test_a_file_goes_into_one_catalogue(staff, catalogue):
    said = act_on(staff, "import_file", catalogue, factories.catalogue(), chosen=shelf())
    assert "choose one" in said
    assert not Job.objects.exists()


def test_a_file_too_large_is_refused_where_it_was_chosen(staff, catalogue, settings):
    settings.SHITU_MAX_IMPORT_BYTES = 10
    said = act_on(staff, "import_file", catalogue, chosen=shelf())
    assert "SHITU_MAX_IMPORT_BYTES" in said and "Which file?" in said
    assert not Job.objects.exists()


@pytest.mark.parametrize("vectors", ["yes", "no"])
def test_catalogues_are_exported_and_the_file_is_fetched(
    staff, catalogue, stub_engine, run_tasks, vectors
):
    with run_tasks():
        factories.add(catalogue, "tea", 1)
        act_on(staff, "export", catalogue, chosen=vectors)
    job = Job.objects.get(kind=Job.Kind.EXPORT)
    address = reverse(f"{PAGES}_file", args=[job.pk])
    assert address in page(staff, job)
    answer = staff.get(address)
    assert answer["Content-Disposition"].startswith("attachment")
    with zipfile.ZipFile(io.BytesIO(b"".join(answer.streaming_content))) as archive:
        assert "catalogue.json" in archive.namelist()
        assert ("embeddings.npy" in archive.namelist()) == (vectors == "yes")


def test_the_report_is_fetched(staff, failed):
    assert reverse(f"{PAGES}_report", args=[failed.pk]) in page(staff, failed)
    answer = staff.get(reverse(f"{PAGES}_report", args=[failed.pk]))
    assert b"it is missing" in b"".join(answer.streaming_content)


def test_only_an_export_that_is_done_has_a_file(staff, failed):
    assert staff.get(reverse(f"{PAGES}_file", args=[failed.pk])).status_code == 404
    assert reverse(f"{PAGES}_file", args=[failed.pk]) not in page(staff, failed)


@pytest.mark.parametrize("name", ["file", "report"])
def test_neither_is_for_staff_who_may_not_see_jobs(client, failed, name):
    clerk = factories.user("clerk", is_staff=True)
    clerk.user_permissions.add(Permission.objects.get(codename="view_product"))
    client.force_login(clerk)
    assert client.get(reverse(f"{PAGES}_{name}", args=[failed.pk])).status_code == 403
