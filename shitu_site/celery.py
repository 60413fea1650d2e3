"""The Celery application. Tasks are in `recognition/tasks.py`."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.signals import setup_logging, task_prerun, worker_ready
from django_structlog.celery.steps import DjangoStructLogInitStep

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shitu_site.settings")

app = Celery("shitu_site")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.steps["worker"].add(DjangoStructLogInitStep)
app.autodiscover_tasks()


@setup_logging.connect
def _keep_our_logging(**_: Any) -> None:
    """Celery configures no logging when somebody listens here; Django's settings did."""


@task_prerun.connect
def _check_connections(**_: Any) -> None:
    """As Django does before a request: a connection that broke or is too old is not used again."""
    from django.db import close_old_connections

    close_old_connections()


@worker_ready.connect
def _resume(**_: Any) -> None:
    """The broker may have forgotten everything; the rows have not."""
    from recognition import tasks

    tasks.resume.delay()
