"""Jobs survive the death of whoever works on them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.conf import settings as django_settings
from django.db import connection
from django.utils import timezone

from recognition import tasks
from recognition.models import GalleryImage, Job, State
from recognition.services import background, exports, gallery_adding, imports, jobs, recovery
from recognition.services.imports import formats, paddlex, runner
from tests import factories
from tests.factories import png
from tests.processes import until
from tests.services.test_import import packed

COUNT = 400


@pytest.fixture
def source(tmp_path):
    """A folder of small pictures, every seventh of them broken."""
    for number in range(COUNT):
        data = png(number % 250, (64 + number // 250, 48))
        (tmp_path / f"{number}.png").write_bytes(data if number % 7 else data[:50])
    (tmp_path / "gallery.txt").write_text(
        "".join(f"{number}.png tea {number % 9}\n" for number in range(COUNT))
    )
    return tmp_path


_CHILD = """
import sys, django
from pathlib import Path
django.setup()
from django.conf import settings
from django.db import connections
settings.DATABASES["default"]["NAME"] = connections["default"].settings_dict["NAME"] = sys.argv[1]
settings.MEDIA_ROOT = sys.argv[2]
from recognition.models import Catalogue
from recognition.services import imports, jobs
from recognition.services.imports import runner
if len(sys.argv) > 5:  # so slow that it is surely caught in the middle
    import time
    check = runner._check
    runner._check = lambda line: time.sleep(0.05) or check(line)
catalogue = Catalogue.objects.get(pk=int(sys.argv[3]))
folder = Path(sys.argv[4])
job = imports.start_here(catalogue, folder, by=None, labels=folder / "gallery.txt")
print(job.pk, flush=True)
jobs.run_here(job)
"""


@pytest.mark.django_db(transaction=True)
def test_killed_and_run_again_nothing_is_lost_and_nothing_comes_twice(source, media):
    catalogue = factories.catalogue()

    def start(*slow: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                *(sys.executable, "-c", _CHILD, connection.settings_dict["NAME"], str(media)),
                *(str(catalogue.pk), str(source), *slow),
            ],
            cwd=django_settings.BASE_DIR,
            env=os.environ | {"DJANGO_SETTINGS_MODULE": "shitu_site.settings"},
            stdout=subprocess.PIPE,
        )

    stops: list[int] = []
    for least in (1, 120):
        process = start("slow")
        until(lambda: GalleryImage.objects.count() >= least)  # noqa: B023  (called here and now)
        process.send_signal(signal.SIGKILL)
        process.wait()
        stops.append(GalleryImage.objects.count())
    assert 0 < stops[0] < COUNT * 6 // 7, "it was not killed in the middle"
    assert stops[0] <= stops[1] < COUNT * 6 // 7
    assert Job.objects.get().state == State.RUNNING

    process = start()
    assert process.wait(timeout=300) == 0
    job = Job.objects.get()  # the same one went on
    broken = len(range(0, COUNT, 7))
    assert (job.state, job.done, job.failed, job.total) == (
        State.DONE,
        COUNT - broken,
        broken,
        COUNT,
    )
    assert list(job.lines.order_by("number").values_list("number", flat=True)) == list(
        range(1, COUNT + 1)
    )
    assert job.counts() == {
        "waiting": 0,
        "ok": COUNT - broken,
        "duplicate": 0,
        "skipped": 0,
        "error": broken,
    }
    assert GalleryImage.objects.count() == COUNT - broken
    assert GalleryImage.objects.values("product__label", "checksum").distinct().count() == (
        COUNT - broken
    )
    for image in GalleryImage.objects.all():
        assert (media / image.file.name).stat().st_size == image.byte_size
    catalogue.refresh_from_db()
    assert catalogue.next_number == COUNT - broken


@pytest.mark.django_db
class TestResume:
    @pytest.fixture
    def woken(self, monkeypatch) -> list[int]:
        ids: list[int] = []
        monkeypatch.setattr(
            tasks, "wake", lambda task, *args: ids.extend(args) if task is tasks.run_job else None
        )
        return ids

    def job(self, catalogue) -> Job:
        source = packed({"gallery.txt": "a.png tea\n", "a.png": png(1)})
        return imports.start(catalogue, source, by=None, name="x.zip")

    def test_a_forgotten_job_is_woken(self, catalogue, woken):
        job = self.job(catalogue)
        woken.clear()
        recovery.resume()
        assert woken == [job.pk]

    def test_one_whose_worker_died_is_woken_and_goes_on(self, catalogue, woken):
        job = self.job(catalogue)
        Job.objects.filter(pk=job.pk).claim(1)
        woken.clear()
        recovery.resume()
        assert woken == []  # its lease still runs
        Job.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
        recovery.resume()
        assert woken == [job.pk]
        jobs.run(job.pk)
        job.refresh_from_db()
        assert job.state == State.DONE and catalogue.images.count() == 1

    def test_the_job_of_a_command_is_left_to_the_command(self, catalogue, woken, tmp_path):
        job = imports.start_here(catalogue, tmp_path, by=None)
        recovery.resume()
        jobs.run(job.pk)
        job.refresh_from_db()
        assert woken == [] and job.state == State.PENDING

    def test_a_job_that_kills_its_worker_again_and_again_is_given_up(self, catalogue, settings):
        job = self.job(catalogue)
        for _ in range(settings.SHITU_MAX_ATTEMPTS):
            assert Job.objects.filter(pk=job.pk).claim(1)
            Job.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
        assert not Job.objects.filter(pk=job.pk).claim(1)
        job.refresh_from_db()
        assert job.state == State.FAILED

    def test_an_export_begins_again(self, catalogue, woken):
        job = exports.start(catalogue, by=None)
        Job.objects.filter(pk=job.pk).claim(1)
        Job.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
        recovery.resume()
        jobs.run(job.pk)
        job.refresh_from_db()
        assert job.state == State.DONE and job.file


@pytest.mark.django_db
def test_a_job_that_is_killed_at_its_very_end_is_done_nevertheless(
    catalogue, media, monkeypatch, django_capture_on_commit_callbacks
):
    class Killed(BaseException):
        pass

    def kill(*_: object, **__: object) -> None:
        raise Killed

    job = TestResume().job(catalogue)
    with monkeypatch.context() as patch:
        patch.setattr(jobs.Lease, "end", kill)
        with django_capture_on_commit_callbacks(execute=True), pytest.raises(Killed):
            jobs.run(job.pk)
    Job.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    with django_capture_on_commit_callbacks(execute=True):
        jobs.run(job.pk)
    job.refresh_from_db()
    assert (job.state, job.error, job.done, job.total) == (State.DONE, "", 1, 1)
    assert job.finished_at and not job.file
    assert not [path for path in (media / "jobs").rglob("*") if path.is_file()]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("slow", ["the upload", "a line"])
def test_what_is_long_to_read_keeps_its_job(catalogue, settings, monkeypatch, slow):
    settings.SHITU_LEASE_SECONDS = 0.6

    def wait() -> None:
        seen = set()

        def was_prolonged_again_and_again() -> bool:
            seen.add(Job.objects.get().lease_until)
            return len(seen) > 3

        until(was_prolonged_again_and_again, seconds=20)

    if slow == "the upload":
        stored = formats._stored
        monkeypatch.setattr(formats, "_stored", lambda job: wait() or stored(job))
    else:
        lines = paddlex.lines

        def slowly(*given):
            wait()
            yield from lines(*given)

        monkeypatch.setattr(paddlex, "lines", slowly)
    job = TestResume().job(catalogue)
    jobs.run(job.pk)
    job.refresh_from_db()
    assert (job.state, job.done) == (State.DONE, 1)


@pytest.mark.django_db
def test_pictures_that_are_long_to_store_keep_their_job(catalogue, settings, monkeypatch):
    settings.SHITU_LEASE_SECONDS = 60
    clock, left = timezone.now(), []
    monkeypatch.setattr(jobs, "timezone", SimpleNamespace(now=lambda: clock))
    keep = gallery_adding.files.keep

    def slowly(name: str, data: bytes) -> str:
        nonlocal clock
        clock += timedelta(seconds=40)
        return keep(name, data)

    def look(job: Job) -> None:
        if job.done:
            left.append(Job.objects.get().lease_until - clock)

    monkeypatch.setattr(gallery_adding.files, "keep", slowly)
    source = packed({f"tea/{n}.png": png(n) for n in range(4)})
    job = imports.start(catalogue, source, by=None, name="x.zip")
    assert jobs.run_here(job, look).done == 4
    assert left == [timedelta(seconds=60)]


@pytest.mark.django_db
def test_a_job_that_is_given_up_has_ended_so_its_file_goes_too(catalogue, settings):
    imports.start(catalogue, packed({"gallery.txt": "a.png tea\n"}), by=None)
    for _ in range(settings.SHITU_MAX_ATTEMPTS):
        assert Job.objects.all().claim(1)
        Job.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    assert Job.objects.all().claim(1) == []
    job = Job.objects.get()
    assert job.state == State.FAILED and "stopped 3 times" in job.error
    assert job.finished_at is not None


@pytest.mark.django_db
def test_files_of_old_jobs_go_and_their_reports_stay(
    catalogue, media, django_capture_on_commit_callbacks
):
    files = {"gallery.txt": "a.png tea\nmissing.png tea\n", "a.png": png(1)}
    old, young = (imports.start(catalogue, packed(files), by=None) for _ in range(2))
    for job in (old, young):
        jobs.run(job.pk)
    ended = timezone.now() - timedelta(days=jobs.KEEP_FILES_DAYS + 1)
    Job.objects.filter(pk=old.pk).update(finished_at=ended)
    with django_capture_on_commit_callbacks(execute=True):
        assert jobs.forget_files() == 1
    assert [path for path in (media / "jobs").rglob("*") if path.is_file()] == [
        media / young.file.name
    ]
    assert old.lines.count() == 2
    jobs.retry(old, by=None)
    jobs.run(old.pk)
    old.refresh_from_db()
    assert (old.state, old.error) == (
        State.FAILED,
        "what was uploaded is no longer there; send it again",
    )


@pytest.mark.django_db
def test_an_unforeseen_error_fails_the_job_in_words_that_do_not_leak(catalogue, monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("secret path")

    monkeypatch.setattr(runner, "_commit", fail)
    job = TestResume().job(catalogue)
    with pytest.raises(RuntimeError):
        jobs.run(job.pk)
    job.refresh_from_db()
    assert (job.state, job.error) == (State.FAILED, "unexpected RuntimeError; see the log")


@pytest.mark.django_db
def test_an_interrupted_command_leaves_its_job_waiting(catalogue, tmp_path):
    (tmp_path / "tea").mkdir()
    (tmp_path / "tea" / "1.png").write_bytes(png(1))
    job = imports.start_here(catalogue, tmp_path, by=None)

    def interrupt(job: Job) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        jobs.run_here(job, interrupt)
    again = imports.start_here(catalogue, tmp_path, by=None)
    assert again == job and again.state == State.PENDING
    assert jobs.run_here(again).state == State.DONE
    assert imports.start_here(catalogue, tmp_path, by=None) != job


@pytest.mark.django_db
def test_a_changed_list_begins_a_new_job(catalogue, tmp_path):
    (tmp_path / "list").write_text("a.png tea\n")
    job = imports.start_here(catalogue, tmp_path, by=None, labels=tmp_path / "list")
    (tmp_path / "list").write_text("b.png tea\na.png tea\n")
    other = imports.start_here(catalogue, tmp_path, by=None, labels=tmp_path / "list")
    job.refresh_from_db()
    assert other != job
    assert job.state == State.FAILED and "changed" in job.error


@pytest.mark.django_db
@pytest.mark.parametrize("listed", [False, True])
def test_so_does_a_changed_folder(catalogue, tmp_path, monkeypatch, listed):
    monkeypatch.setattr(runner, "CHUNK_PICTURES", 1)
    shop = tmp_path / "shop"
    (shop / "tea").mkdir(parents=True)
    for number, name in enumerate("bcd"):
        (shop / "tea" / f"{name}.png").write_bytes(png(number))
    listing = shop / "gallery.txt"
    if listed:
        listing.write_text("".join(f"tea/{name}.png tea\n" for name in "bcd"))

    def interrupt(job: Job) -> None:
        if job.done == 2:
            raise KeyboardInterrupt

    job = imports.start_here(catalogue, shop, by=None)
    with pytest.raises(KeyboardInterrupt):
        jobs.run_here(job, interrupt)
    assert imports.start_here(catalogue, shop, by=None) == job
    (shop / "tea" / "a.png").write_bytes(png(9))
    if listed:
        listing.write_text("".join(f"tea/{name}.png tea\n" for name in "abcd"))
    other = imports.start_here(catalogue, shop, by=None)
    assert other != job
    ended = jobs.run_here(other)
    assert (ended.counts()["ok"], ended.counts()["duplicate"]) == (2, 2)
    assert sorted(catalogue.images.values_list("source_name", flat=True)) == [
        f"tea/{name}.png" for name in "abcd"
    ]


@pytest.mark.django_db(transaction=True)
def test_a_worker_goes_on_answering_while_a_job_runs(media):
    catalogue = factories.catalogue()
    ids = [TestResume().job(catalogue).pk, exports.start(catalogue, by=None).pk]
    jobs.run_in_background(ids[0])  # returns at once
    jobs.run_in_background(ids[1])  # the thread is busy, and goes on with this one
    _wait_for_jobs(2)


def _wait_for_jobs(count: int) -> None:
    until(lambda: Job.objects.filter(state=State.DONE).count() == count)
    until(lambda: not background.jobs.busy)  # the thread has closed its connection


@pytest.mark.django_db(transaction=True)
def test_a_wake_up_while_the_thread_is_busy_is_not_lost(media, monkeypatch):
    catalogue = factories.catalogue()
    first = exports.start(catalogue, by=None).pk
    real, runs = jobs.run, []

    def run(job_id: int) -> None:
        runs.append(job_id)
        real(job_id)
        if job_id == first:
            late = exports.start(catalogue, by=None).pk
            jobs.run_in_background(late)
            jobs.run_in_background(late)  # by whoever resumes forgotten work

    monkeypatch.setattr(jobs, "run", run)
    jobs.run_in_background(first)
    _wait_for_jobs(2)
    assert len(runs) == 2


@pytest.mark.django_db(transaction=True)
def test_what_a_job_raises_is_in_the_log_and_the_next_one_runs(media, monkeypatch, caplog):
    catalogue = factories.catalogue()
    real = jobs.run

    def run(job_id: int) -> None:
        if not job_id:
            jobs.run_in_background(exports.start(catalogue, by=None).pk)
            raise RuntimeError("the database went away")
        real(job_id)

    monkeypatch.setattr(jobs, "run", run)
    jobs.run_in_background(0)
    _wait_for_jobs(1)
    assert "background_work_failed" in caplog.text and "'exc_info': True" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_imports_beside_each_other_neither_wait_in_a_circle_nor_add_twice(media, monkeypatch):

    monkeypatch.setattr(runner, "CHUNK_PICTURES", 4)
    catalogue = factories.catalogue()
    header = "external_id,label,sku,attributes.n,image,image_id\n"
    plain = [f",plain {n % 5},,{n},{n % 20}.png," for n in range(40)]
    named = [f"P{n % 6},named {n % 6},s{n},{n},{n % 20}.png,I{n % 30}" for n in range(40)]
    both = [row for pair in zip(plain, named, strict=True) for row in pair]
    pictures = {f"{n}.png": png(n) for n in range(20)}
    ids = [
        imports.start(
            catalogue, packed({"list.csv": header + "\n".join(rows)} | pictures), by=None
        ).pk
        for rows in (both, both[::-1], plain, named[::-1])
    ]

    def work(job_id: int) -> None:
        try:
            jobs.run(job_id)
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=(job_id,)) for job_id in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(Job.objects.values_list("state", "error", "failed")) == [("done", "", 0)] * 4
    images = GalleryImage.objects.filter(catalogue=catalogue)
    assert images.values("product", "checksum").distinct().count() == images.count()
    assert sorted(set(catalogue.products.values_list("label", flat=True))) == sorted(
        {f"plain {n}" for n in range(5)} | {f"named {n}" for n in range(6)}
    )
    assert {path.name for path in (media / "gallery").rglob("*.png")} == {
        image.file.name.rpartition("/")[2] for image in images
    }
