"""The doorway of the workers: an id in, one service call, no rules.

Rows are the truth and a message is only a wake-up: a task looks for waiting rows, so a lost, late
or doubled message costs nothing but time, and `resume` (every 15 s) finds what was forgotten.
"""

from __future__ import annotations

from typing import Any

import structlog
from celery import Task, shared_task
from django.db import transaction
from kombu.exceptions import OperationalError

log = structlog.get_logger(__name__)


def wake(task: Task, *args: Any) -> None:
    """Send a wake-up once the transaction has committed; without a broker the rows just wait."""

    def send() -> None:
        try:
            task.delay(*args)
        except OperationalError as error:
            log.warning("broker_unreachable", task=task.name, reason=str(error))

    transaction.on_commit(send)


def wake_to_answer() -> None:
    """Send one wake-up for all questions stored since the last one was taken."""
    from recognition.services import bell

    def send() -> None:
        if bell.knock():
            wake(answer_queries)

    transaction.on_commit(send)


@shared_task
def answer_queries() -> None:
    """Answer the recognition queries that wait. Queue: live."""
    from recognition.services import answering, bell

    bell.knock_taken()
    answering.answer_waiting()


@shared_task
def embed_images(catalogue_id: int) -> None:
    """Embed one batch of waiting images. Queue: bulk.

    The catalogues take turns, whichever the wake-up is for.
    """
    from recognition.services import indexing

    indexing.embed_in_turn(catalogue_id)


@shared_task
def run_job(job_id: int) -> None:
    """Work on a job, beside answering; its row says how far it is."""
    from recognition.services import jobs

    jobs.run_in_background(job_id)


@shared_task
def forget_job_files() -> None:
    """Remove the files of jobs that ended long ago."""
    from recognition.services import jobs

    jobs.forget_files()


@shared_task
def resume() -> None:
    """Wake the work that nobody works on: a worker died, or the broker forgot."""
    from recognition.services import recovery

    recovery.resume()


@shared_task
def tend_indexes() -> None:
    """Build, drop and repair vector indexes as catalogues grow and shrink, beside answering."""
    from recognition.services import background, indexes

    background.upkeep.run(indexes.tend_all)


@shared_task
def measure_recall() -> None:
    """Answer a sample of each large catalogue both ways, and search deeper where it misses; beside
    answering, and never while `tend_indexes` works here."""
    from recognition.services import background, indexes

    background.upkeep.run(indexes.measure_all)


@shared_task
def purge_trash() -> None:
    """Remove for good what has been in the trash for too long."""
    from recognition.services import trash

    trash.purge_expired()


@shared_task
def purge_queries() -> None:
    """Remove questions that are older than they are kept."""
    from recognition.services import recovery

    recovery.purge_queries()


@shared_task
def purge_sessions() -> None:
    """Remove sessions of the browser that have expired."""
    from django.core.management import call_command

    call_command("clearsessions")
