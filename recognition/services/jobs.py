"""Jobs: one process at a time works on each, and another goes on when that one dies.

Whoever works on a job holds its lease, and the exact time written there is the proof: a transaction
of `Lease.transaction` commits only while the job was neither cancelled nor taken over.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models import F, QuerySet
from django.db.models.functions import Greatest
from django.utils import timezone, translation
from django.utils.translation import gettext as _

from recognition import tasks
from recognition.errors import Conflict, RecognitionError, TryAgain
from recognition.models import Action, Job, LineResult, State, User
from recognition.models.job import LOCAL_PATH
from recognition.services import audit, background, files, quotas, spreadsheet

log = structlog.get_logger(__name__)

KEEP_FILES_DAYS = 30

Progress = Callable[[Job], object]
"""Called with the job after every step; `done`, `failed` and `total` are up to date."""

Run = Callable[[Job, "Lease", Progress], None]


class Superseded(Exception):
    """The job is no longer ours: it was cancelled, or another process took it over."""


class Lease:
    """The right of this process to work on a job."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def renew(self, **changes: Any) -> None:
        """Prove and prolong the right, and write `changes` of the job; raises Superseded."""
        until = _lease_end()
        if not self._update(lease_until=until, **changes):
            raise Superseded
        self.job.lease_until = until

    def advance(self, **changes: Any) -> None:
        """`renew`, where something was done that nobody who goes on has to do again.

        The count of attempts starts again: a job that takes a day may survive any number of
        restarts, and one that kills its worker at one line only a few.
        """
        self.renew(attempts=0, **changes)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """A transaction that begins with `renew`: cancelled or taken over, the job does nothing."""
        before = self.job.lease_until
        try:
            with transaction.atomic():
                self.renew()
                yield
        except BaseException:
            self.job.lease_until = before  # so it still says in the database
            raise

    @contextmanager
    def kept(self, lost: Callable[[], object]) -> Iterator[None]:
        """Renewed from a thread, for a block that is one long statement of the database.

        When the right is gone, `lost` is called to end the block early, every second until it has
        ended: the statement may not have begun yet. `renew` behind the block tells.
        """
        stop = threading.Event()

        def keep() -> None:
            try:
                while not stop.wait(min(1.0, settings.SHITU_LEASE_SECONDS / 3)):
                    try:
                        self.prove()
                    except Superseded:
                        lost()
                    except (OperationalError, InterfaceError):
                        connection.close()  # a database that restarts; through another next time
            finally:
                connection.close()

        thread = threading.Thread(target=keep, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def renew_if_old(self, share: float = 0.5) -> None:
        """`renew` once less than this share of the time is left."""
        left = timedelta(seconds=settings.SHITU_LEASE_SECONDS * share)
        if self.job.lease_until is None or self.job.lease_until - timezone.now() < left:
            self.renew()

    def prove(self) -> None:
        """Raises Superseded when the right is gone, and prolongs it in good time."""
        if not self._held().exists():
            raise Superseded
        self.renew_if_old(2 / 3)

    def end(self, state: State, *, error: str = "") -> None:
        """Write how it ended; nothing happens when the job is no longer ours."""
        finished = None if state == State.PENDING else timezone.now()
        with transaction.atomic():
            mine = self._update(state=state, error=error, lease_until=None, finished_at=finished)
            if mine and finished:
                self.job.refresh_from_db()
                record_end(self.job)

    def put_back(self, why: str) -> None:
        """Let the job wait for the next round that resumes work, as often as it takes: this was no
        attempt. Nothing happens when the job is no longer ours."""
        attempts = Greatest(F("attempts") - 1, 0)
        self._update(state=State.PENDING, error=why, lease_until=None, attempts=attempts)

    def may_be_tried_again(self) -> bool:
        """Whether whoever claims the job next would work on it."""
        return bool(self._held().filter(attempts__lt=settings.SHITU_MAX_ATTEMPTS).exists())

    def _update(self, **changes: Any) -> int:
        return self._held().update(**changes)

    def _held(self) -> Any:
        return Job.objects.filter(
            pk=self.job.pk, state=State.RUNNING, lease_until=self.job.lease_until
        )


def queue(job: Job, *, action: Action = Action.JOB_START) -> Job:
    """Store a new job for the workers, in the transaction that is open.

    Raises LimitReached when too many jobs run.
    """
    quotas.check_job(job.catalogue, by=job.started_by)
    job.save(force_insert=True)
    audit.record(action, job, catalogue=job.catalogue, by=job.started_by)
    tasks.wake(tasks.run_job, job.pk)
    return job


def record_end(job: Job) -> None:
    """Write into the audit log how a job ended, in the transaction that ends it."""
    with audit.for_job(job):
        audit.record(
            Action.JOB_END,
            job,
            catalogue=job.catalogue,
            count=job.done,
            failed=job.failed,
            state=job.state,
            reason=job.error,
        )


@transaction.atomic
def fail(unfinished: QuerySet[Job], reason: str) -> None:
    """End jobs that nobody will finish, whoever works on them."""
    ids = list(unfinished.order_by("pk").select_for_update().values_list("pk", flat=True))
    ended = Job.objects.filter(pk__in=ids)
    ended.fail(reason)
    for job in ended.select_related("catalogue", "started_by"):
        record_end(job)


def _lease_end() -> Any:
    return timezone.now() + timedelta(seconds=settings.SHITU_LEASE_SECONDS)


def run(job_id: int) -> None:
    """Work on one waiting job until it ends; nothing happens when somebody else does already."""
    for job in Job.objects.for_workers().filter(pk=job_id, kind__in=_runs()).claim(1, fail):
        try:
            _run(Job.objects.select_related(*_WITH).get(pk=job.pk))
        except TryAgain as error:
            log.warning("job_put_back", job=str(job.key), reason=error.message)


def run_here(job: Job, progress: Progress = lambda job: None) -> Job:
    """Work on a job in this process, whoever had it before; returns it as it ended.

    For commands. Raises Conflict when another process took it over meanwhile, TryAgain for what
    passes: it waits, and called again it goes on.
    """
    Job.objects.filter(pk=job.pk).update(
        state=State.RUNNING, lease_until=_lease_end(), error="", finished_at=None
    )
    job = Job.objects.select_related(*_WITH).get(pk=job.pk)
    if not _run(job, progress):
        raise Conflict(_("the job was cancelled, or another process took it over"))
    job.refresh_from_db()
    return job


_WITH = ("catalogue__index__feature_model", "started_by")


def run_in_background(job_id: int) -> None:
    """`run` in the thread of this process that works on jobs, when it is free; returns at once."""
    background.jobs.run(run, job_id)


def wake_waiting() -> int:
    """Send a wake-up for every job that nobody works on; returns how many that was."""
    ids = list(_waiting().values_list("pk", flat=True))
    for job_id in ids:
        tasks.wake(tasks.run_job, job_id)
    return len(ids)


def cancel(job: Job, *, by: User | None) -> None:
    """Stop a job; what it did stays, and its `error` says how far it came.

    Pictures that a job of the kind `embed` has not come to are removed. Raises Conflict when it has
    ended already.
    """
    from recognition.services import embed_jobs

    with transaction.atomic():
        locked = Job.objects.select_for_update().get(pk=job.pk)
        if locked.is_finished:
            raise Conflict(_("the job has ended already"))
        if locked.kind == Job.Kind.EMBED:
            embed_jobs.abandon(locked)
        behind = locked.done + locked.failed
        with translation.override(locked.language):
            locked.error = _cancelled(locked, behind, by)
        locked.state, locked.lease_until, locked.finished_at = State.FAILED, None, timezone.now()
        locked.save(
            update_fields=["state", "error", "lease_until", "finished_at", "done", "failed"]
        )
        audit.record(Action.JOB_CANCEL, locked, catalogue=locked.catalogue, by=by, count=behind)
    job.refresh_from_db()


def _cancelled(job: Job, behind: int, by: User | None) -> str:
    """How far a job came that somebody cancelled, and what that leaves."""
    who = _("cancelled by %(user)s") % {"user": by} if by else _("cancelled")
    if job.kind == Job.Kind.REBUILD:
        return who + _("; the index that was there goes on answering")
    if job.total:
        far = _(" after %(behind)s of %(total)s lines") % {"behind": behind, "total": job.total}
    else:
        far = _(" after %(behind)s lines") % {"behind": behind}
    if job.kind == Job.Kind.EMBED:
        return who + far + _("; what was done stays, the other pictures were removed")
    return who + far + _("; what was done stays")


def retry(job: Job, *, by: User | None) -> int:
    """Do the failed lines again, and those a stopped job never came to; returns the failed ones.

    Raises Conflict while it runs, when there is nothing to do again, and for the job of a command;
    LimitReached when too many jobs run.
    """
    from recognition.services import embed_jobs

    with transaction.atomic():
        locked = Job.objects.select_for_update().get(pk=job.pk)
        if not locked.is_finished:
            raise Conflict(_("the job has not ended; cancel it first"))
        if locked.state == State.DONE and not locked.failed:
            raise Conflict(_("no line of the job failed"))
        if LOCAL_PATH in locked.options:
            raise Conflict(
                _(
                    "a command on the server started this job, and it alone has the files; run "
                    "the command again: what is in the catalogue already is not added twice"
                )
            )
        quotas.check_job(locked.catalogue, by=by)
        if locked.kind == Job.Kind.EMBED:
            count = embed_jobs.again(locked)
        else:
            count = forget_errors(locked)
            tasks.wake(tasks.run_job, locked.pk)
        audit.record(Action.JOB_START, locked, catalogue=locked.catalogue, by=by, again=count)
    job.refresh_from_db()
    return count


def forget_errors(job: Job) -> int:
    """Make a job ready to do its failed lines again; returns how many there are."""
    count, _ = job.lines.filter(result=LineResult.ERROR).delete()
    Job.objects.filter(pk=job.pk).update(
        state=State.PENDING, error="", attempts=0, lease_until=None, failed=0, finished_at=None
    )
    return count


def forget_files() -> int:
    """Remove uploads and exports of jobs that ended long ago; returns how many.

    Their reports stay; an import can then no longer be retried.
    """
    limit = timezone.now() - timedelta(days=KEEP_FILES_DAYS)
    old = Job.objects.filter(finished_at__lt=limit).exclude(file="")
    with transaction.atomic():
        names = list(old.select_for_update().values_list("file", flat=True))
        old.update(file="")
        files.remove_on_commit(names)
    return len(names)


def report(job: Job) -> Iterator[str]:
    """The lines of the job as CSV, in input order: number, result, reason, image, text.

    A text that a spreadsheet would take for a formula gets an apostrophe in front.
    """
    rows = job.lines.order_by("number").values_list(
        "number", "result", "reason", "image__number", "text"
    )
    return spreadsheet.lines(
        ("line", "result", "reason", "image", "text"), rows.iterator(chunk_size=1000)
    )


def _waiting() -> Any:
    return Job.objects.for_workers().filter(kind__in=_runs()).waiting().order_by("pk")


def _runs() -> dict[str, Run]:
    """What runs a job of each kind; those of the kind `embed` only follow others' work."""
    from recognition.services import exports, index_jobs, model_switch
    from recognition.services.imports import runner

    return {
        Job.Kind.IMPORT: runner.run,
        Job.Kind.EXPORT: exports.run,
        Job.Kind.REBUILD: index_jobs.run,
        Job.Kind.REEMBED: model_switch.run,
    }


def _run(job: Job, progress: Progress = lambda job: None) -> bool:
    """Run a job that is ours; False when it was taken from us."""
    lease, started = Lease(job), time.monotonic()
    structlog.contextvars.bind_contextvars(job=str(job.key))
    try:
        with audit.for_job(job), translation.override(job.language), _ending(lease):
            _runs()[job.kind](job, lease, progress)
    except Superseded:
        log.info("job_superseded")
        return False
    finally:
        log.info("job_ended", seconds=round(time.monotonic() - started, 1))
        structlog.contextvars.unbind_contextvars("job")
    return True


@contextmanager
def _ending(lease: Lease) -> Iterator[None]:
    """Done at the end of the block; failed with the reason when it raises one.

    It never writes over somebody else's state, and what passes leaves the job waiting instead of
    failed: an interruption, a TryAgain, and a database that restarts, or that
    ends one of two transactions that wait for each other. What only looks like passing is bounded
    by the attempts.
    """
    try:
        yield
    except TryAgain as error:
        lease.put_back(error.message)
        raise
    except RecognitionError as error:
        lease.end(State.FAILED, error=error.message)
    except Superseded:
        raise
    except Exception as error:
        passing = isinstance(error, OperationalError | InterfaceError)
        if passing and not connection.is_usable():
            connection.close()  # the end is written through another
        if passing and lease.may_be_tried_again():
            lease.end(State.PENDING)
        else:
            what = _("unexpected %(error)s; see the log") % {"error": type(error).__name__}
            lease.end(State.FAILED, error=what)
        raise
    except BaseException:  # Ctrl-C
        lease.end(State.PENDING)
        raise
    else:
        lease.end(State.DONE)
