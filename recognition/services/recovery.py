"""Nothing that was accepted is ever forgotten."""

from __future__ import annotations

from datetime import timedelta

import structlog
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from recognition import tasks
from recognition.models import GalleryImage, RecognitionQuery, State
from recognition.services import embed_jobs, files, jobs

log = structlog.get_logger(__name__)


_PURGE_CHUNK = 500


def purge_queries() -> int:
    """Remove answered questions, and their pictures, older than `SHITU_KEEP_QUERIES_DAYS`."""
    limit = timezone.now() - timedelta(days=settings.SHITU_KEEP_QUERIES_DAYS)
    removed = 0
    while True:
        with transaction.atomic():
            old = list(
                RecognitionQuery.objects.filter(created_at__lt=limit, state__in=State.ended())
                .order_by("pk")
                .select_for_update(skip_locked=True)[:_PURGE_CHUNK]  # one being given feedback
            )
            files.remove_on_commit([query.file.name for query in old])
            RecognitionQuery.objects.filter(pk__in=[query.pk for query in old]).delete()
        removed += len(old)
        if len(old) < _PURGE_CHUNK:
            return removed


def resume() -> int:
    """Send wake-ups for every waiting row; returns how many were sent.

    One message per catalogue with waiting images, one for all waiting queries, one per job. Jobs
    whose images the workers have ended meanwhile are ended too.
    """
    embed_jobs.look()
    catalogues = list(
        GalleryImage.objects.waiting().order_by().values_list("catalogue_id", flat=True).distinct()
    )
    for catalogue_id in catalogues:
        tasks.wake(tasks.embed_images, catalogue_id)
    asked = RecognitionQuery.objects.waiting().exists()
    if asked:
        tasks.wake(tasks.answer_queries)
    started = jobs.wake_waiting()
    if catalogues or asked or started:
        log.info("resumed", catalogues=len(catalogues), queries=asked, jobs=started)
    return len(catalogues) + asked + started
