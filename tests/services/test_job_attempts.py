"""A job that kills its worker at one line is given up, one that comes on is not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone

from recognition.models import GalleryImage, Job, State
from recognition.services import exports, imports, jobs
from recognition.services.imports import runner
from recognition.services.jobs import Lease
from tests import factories
from tests.factories import png
from tests.services.test_import import packed

pytestmark = pytest.mark.django_db


class Killed(BaseException):
    """The process ends here, and writes nothing down."""


def run_and_kill(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work on a job until something raises `Killed`, then let its lease run out."""
    with monkeypatch.context() as patch:
        patch.setattr(Lease, "end", lambda *_, **__: None)
        with pytest.raises(Killed):
            jobs.run(job.pk)
    Job.objects.filter(pk=job.pk).update(lease_until=timezone.now() - timedelta(seconds=1))


def importing(catalogue, pictures: int = 1) -> Job:
    source = {"gallery.txt": "".join(f"{n}.png tea\n" for n in range(pictures))}
    source |= {f"{n}.png": png(n) for n in range(pictures)}
    return imports.start(catalogue, packed(source), by=None, name="x.zip")


def in_a_transaction(lease: Lease) -> None:
    with lease.transaction():
        pass


def ended(job: Job) -> tuple[str, str]:
    job.refresh_from_db()
    return job.state, job.error


def test_killed_at_one_picture_of_an_import(catalogue, monkeypatch, settings):
    job = importing(catalogue)

    def die(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(runner, "_check", die)
    for _ in range(settings.SHITU_MAX_ATTEMPTS):
        run_and_kill(job, monkeypatch)
    jobs.run(job.pk)
    assert ended(job) == (State.FAILED, "the worker stopped 3 times here")


def test_killed_at_one_picture_of_an_export(catalogue, monkeypatch, settings):
    for seed in range(3):
        factories.add(catalogue, "tea", seed)
    job = exports.start(catalogue, by=None)
    copy = exports._copy_picture

    def die(image: GalleryImage, *to) -> bool:
        if image.number == 2:
            raise Killed
        return copy(image, *to)

    monkeypatch.setattr(exports, "_BATCH", 1)
    monkeypatch.setattr(exports, "_copy_picture", die)
    # The first run comes on, the others only do again what it did.
    for _ in range(1 + settings.SHITU_MAX_ATTEMPTS):
        run_and_kill(job, monkeypatch)
        job.refresh_from_db()
        assert job.done == 2
    jobs.run(job.pk)
    assert ended(job) == (State.FAILED, "the worker stopped 3 times here")


def test_killed_again_and_again_but_each_time_further_on(catalogue, monkeypatch, settings):
    count = 2 * settings.SHITU_MAX_ATTEMPTS
    job = importing(catalogue, count)
    commit = runner._commit

    def commit_and_die(*given) -> None:
        commit(*given)
        raise Killed

    monkeypatch.setattr(runner, "CHUNK_PICTURES", 1)
    with monkeypatch.context() as patch:
        patch.setattr(runner, "_commit", commit_and_die)
        for done in range(1, count + 1):
            run_and_kill(job, monkeypatch)
            assert catalogue.images.count() == done
    jobs.run(job.pk)
    assert ended(job) == (State.DONE, "")
    assert job.done == count


@pytest.mark.parametrize(
    ("hold", "attempts"),
    [
        (lambda lease: lease.renew(total=3), 1),
        (lambda lease: lease.prove(), 1),
        (lambda lease: lease.renew_if_old(), 1),
        (in_a_transaction, 1),
        (lambda lease: lease.advance(total=3), 0),
    ],
)
def test_only_what_was_done_counts_as_progress(
    catalogue, hold: Callable[[Lease], object], attempts: int
):
    [job] = Job.objects.filter(pk=importing(catalogue).pk).claim(1)
    nearly_over = timezone.now() + timedelta(seconds=0.1)
    Job.objects.update(lease_until=nearly_over)
    job.lease_until = nearly_over
    hold(Lease(job))
    job.refresh_from_db()
    assert job.lease_until > nearly_over
    assert job.attempts == attempts
