"""The Celery application. Tasks are in `recognition/tasks.py`."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.signals import setup_logging, worker_ready
from django_structlog.celery.steps import DjangoStructLogInitStep

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shitu_site.settings")

app = Celery("shitu_site")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.steps["worker"].add(DjangoStructLogInitStep)
app.autodiscover_tasks()


@setup_logging.connect
def _keep_our_logging(**_: Any) -> None:
    """Celery configures no logging when somebody listens here; Django's settings did."""


@worker_ready.connect
def _resume(**_: Any) -> None:
    """The broker may have forgotten everything; the rows have not."""
    from recognition import tasks

    tasks.resume.delay()
