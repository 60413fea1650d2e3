"""What passes does not end a job: a storage that is away, a database that restarts."""

from __future__ import annotations

import pytest
from django.db import InterfaceError, OperationalError, connection

from recognition.errors import TryAgain
from recognition.models import Job, State
from recognition.services import gallery_adding, imports, jobs
from recognition.services.imports import runner
from tests import factories
from tests.factories import png
from tests.services.test_job_attempts import ended, importing

pytestmark = pytest.mark.django_db


def refuse(*_: object) -> str:
    raise TryAgain("the storage is away")


def test_a_storage_that_is_away_is_waited_for(catalogue, monkeypatch, settings):
    job = importing(catalogue)

    with monkeypatch.context() as patch:
        patch.setattr(gallery_adding.files, "keep", refuse)
        for _ in range(settings.SHITU_MAX_ATTEMPTS + 1):
            jobs.run(job.pk)
            assert ended(job) == (State.PENDING, "the storage is away")
            assert (job.attempts, job.lease_until, job.finished_at) == (0, None, None)
    jobs.run(job.pk)
    assert ended(job) == (State.DONE, "")


def test_attempts_that_killed_still_count(catalogue, monkeypatch):
    job = importing(catalogue)
    Job.objects.update(attempts=2)

    monkeypatch.setattr(gallery_adding.files, "keep", refuse)
    jobs.run(job.pk)
    job.refresh_from_db()
    assert (job.state, job.attempts) == (State.PENDING, 2)


def test_a_command_says_why_and_goes_on_when_it_is_run_again(catalogue, monkeypatch, tmp_path):
    (tmp_path / "tea").mkdir()
    (tmp_path / "tea" / "1.png").write_bytes(png(1))
    job = imports.start_here(catalogue, tmp_path, by=None)

    with monkeypatch.context() as patch:
        patch.setattr(gallery_adding.files, "keep", refuse)
        with pytest.raises(TryAgain, match="the storage is away"):
            jobs.run_here(job)
    again = imports.start_here(catalogue, tmp_path, by=None)
    assert again == job and again.state == State.PENDING
    assert jobs.run_here(again).state == State.DONE


@pytest.mark.parametrize("broken", [OperationalError, InterfaceError])
def test_errors_of_the_database_are_borne_a_few_times(catalogue, monkeypatch, settings, broken):
    job = importing(catalogue)

    def fail(*_: object) -> None:
        raise broken("the server closed the connection")

    monkeypatch.setattr(runner, "_commit", fail)
    for _ in range(settings.SHITU_MAX_ATTEMPTS - 1):
        with pytest.raises(broken):
            jobs.run(job.pk)
        assert ended(job) == (State.PENDING, "")
    with pytest.raises(broken):
        jobs.run(job.pk)
    assert ended(job) == (State.FAILED, f"unexpected {broken.__name__}; see the log")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("where", ["between two transactions", "within one"])
def test_after_a_restart_of_the_database_it_goes_on(monkeypatch, where):
    catalogue = factories.catalogue()
    job = importing(catalogue)

    def lose_the_connection(*_: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    with monkeypatch.context() as patch:
        if where == "within one":
            patch.setattr(runner._Write, "__call__", lose_the_connection)
        else:
            patch.setattr(runner, "_commit", lose_the_connection)
        with pytest.raises(OperationalError):
            jobs.run(job.pk)
    assert ended(job) == (State.PENDING, "")
    jobs.run(job.pk)
    assert ended(job) == (State.DONE, "")
    assert catalogue.images.count() == 1
