"""The builder of an index is killed: PostgreSQL stops, and whoever takes the job over builds."""

from __future__ import annotations

import subprocess
import sys
import threading
from datetime import timedelta

import pytest
from django.conf import settings as django_settings
from django.db import connections, transaction
from django.utils import timezone

from recognition import search
from recognition.models import Job, State
from recognition.search import physical
from recognition.services import index_jobs, jobs
from tests.processes import environment, until

_CHILD = """
import sys, django
django.setup()
from django.db import connections
options = connections["default"].settings_dict["OPTIONS"]
options["options"] = options["options"].replace("interval=10s", "interval=100ms")  # no long wait
from recognition.search import planner
from recognition.services import jobs
planner.DROP_BELOW = 300
jobs.run(int(sys.argv[1]))
"""


@pytest.fixture
def writer():
    """`writer(made)` leaves a transaction open that builds wait for, until `writer.done.set()`."""
    done, threads = threading.Event(), []

    def write(made) -> None:
        wrote = threading.Event()

        def hold() -> None:
            try:
                with transaction.atomic():
                    search.store(made.space, made.ids[:1].tolist(), [0], made.vectors[:1])
                    wrote.set()
                    done.wait(120)
            finally:
                connections.close_all()

        threads.append(threading.Thread(target=hold))
        threads[-1].start()
        assert wrote.wait(60)

    write.done = done
    yield write
    done.set()
    for thread in threads:
        thread.join(60)


@pytest.mark.django_db(transaction=True)
def test_a_killed_builder_keeps_nobody_waiting(indexed, writer, settings):
    made = indexed(700)
    [before] = physical.existing(made.space.pk)
    job = index_jobs.start_rebuild(made.space.catalogue, by=None)
    writer(made)
    process = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(job.pk)],
        cwd=django_settings.BASE_DIR,
        env=environment(settings),
    )
    try:
        until(lambda: (found := physical.progress(made.space.pk)) and "wait" in found.phase)
    finally:
        process.kill()
        process.wait()
    until(lambda: physical.progress(made.space.pk) is None, seconds=20)  # the writer is still there
    with physical.builder() as mine:
        assert mine
    writer.done.set()
    Job.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    jobs.run(job.pk)
    job.refresh_from_db()
    assert (job.state, job.error) == (State.DONE, "")
    [after] = physical.existing(made.space.pk)
    assert after.valid and after.name != before.name
