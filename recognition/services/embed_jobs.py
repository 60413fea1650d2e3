"""Jobs that follow images through the workers, for callers who could not wait to the end.

Such a job does nothing itself: its images are rows, and the workers embed them with or without it.
Who has embedded a batch looks here, and so does the round that resumes forgotten work; so nobody
sleeps for it, no lease is held, and nothing is lost with any process.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from django.db import transaction
from django.db.models import Case, OuterRef, Q, QuerySet, Subquery, Value, When
from django.utils import timezone, translation
from django.utils.translation import gettext as _

from recognition.errors import Conflict
from recognition.models import (
    Action,
    Catalogue,
    GalleryImage,
    Job,
    JobLine,
    LineResult,
    State,
    User,
)
from recognition.services import audit, gallery, gallery_adding, gallery_embedding, jobs
from recognition.services.gallery_adding import Added

log = structlog.get_logger(__name__)

_OWN = Q(reason="")  # a waiting line whose picture was there already has the reason from the start


def start(
    catalogue: Catalogue, added: Sequence[Added], labels: Sequence[str], *, by: User | None
) -> Job:
    """The job of embedding what was added by one call, with a line for each picture, in order.

    Never refused for a quota, because this work was accepted before; it counts for one until it
    ends.
    """
    with transaction.atomic():
        job = Job.objects.create(
            catalogue=catalogue,
            kind=Job.Kind.EMBED,
            state=State.RUNNING,
            started_by=by,
            total=len(added),
        )
        # Somebody may remove one of them at this moment.
        rows = GalleryImage.everything.filter(pk__in={one.image.pk for one in added})
        there = set(rows.order_by("pk").select_for_update(no_key=True).values_list("pk", flat=True))
        JobLine.objects.bulk_create(
            JobLine(
                job=job,
                number=number,
                text=label,
                result=LineResult.WAITING,
                reason="" if one.created else gallery_adding.has_already(one),
                image_id=one.image.pk if one.image.pk in there else None,
            )
            for number, (one, label) in enumerate(zip(added, labels, strict=True), start=1)
        )
        audit.record(Action.JOB_START, job, catalogue=catalogue, by=by)
    _look_at(job.pk)  # behind the commit: no worker could see the job before
    return job


def look(catalogue: int | None = None) -> None:
    """Write down what the workers have done for jobs of one catalogue (its id), or of all."""
    unfinished = Job.objects.filter(kind=Job.Kind.EMBED).unfinished()
    if catalogue is not None:
        unfinished = unfinished.filter(catalogue=catalogue)
    for job_id in unfinished.order_by("pk").values_list("pk", flat=True):
        _look_at(job_id)


@transaction.atomic
def _look_at(job_id: int) -> None:
    found = Job.objects.filter(pk=job_id).unfinished().select_related("catalogue", "started_by")
    job = found.select_for_update(of=("self",), no_key=True).first()
    if job is None:  # ended, or cancelled, a moment ago
        return
    waiting = _report(job)
    if not waiting:
        job.state, job.total, job.finished_at = State.DONE, job.done + job.failed, timezone.now()
    job.save(update_fields=["state", "total", "done", "failed", "finished_at"])
    if not waiting:
        jobs.record_end(job)
        log.info("job_ended", job=str(job.key), done=job.done, failed=job.failed)


def _report(job: Job) -> int:
    """Write the lines of a locked job whose images have ended, set its `done` and `failed`, and
    return how many lines wait."""
    lines = _waiting(job)
    image = GalleryImage.everything.filter(pk=OuterRef("image"))
    lines.filter(image__state=State.DONE).update(
        result=Case(When(_OWN, then=Value(LineResult.OK)), default=Value(LineResult.DUPLICATE))
    )
    lines.filter(image__state=State.FAILED).update(
        result=LineResult.ERROR, reason=Subquery(image.values("error")[:1])
    )
    with translation.override(job.language):  # whoever looks is somebody else
        removed = _("it was removed before it was embedded")
        in_trash = _("its product went into the trash before it was embedded; it is once restored")
    lines.filter(image=None).update(result=LineResult.SKIPPED, reason=removed)
    lines.filter(image__removed_at__isnull=False).update(result=LineResult.SKIPPED, reason=in_trash)
    counts = job.counts()
    job.failed = counts[LineResult.ERROR]
    job.done = sum(counts.values()) - counts[LineResult.WAITING] - job.failed
    return counts[LineResult.WAITING]


def _waiting(job: Job) -> QuerySet[JobLine]:
    return job.lines.filter(result=LineResult.WAITING)


def abandon(job: Job) -> None:
    """For `jobs.cancel`: remove the images that a locked job's call added and that have no vector
    yet."""
    images = GalleryImage.objects.filter(
        pk__in=_waiting(job).filter(_OWN).values("image"), state__in=State.unfinished()
    )
    rows = list(images.order_by("pk").select_for_update())  # no worker ends one from here on
    _report(job)
    gallery.remove_images(job.catalogue, rows)
    _waiting(job).delete()


def again(job: Job) -> int:
    """For `jobs.retry`: have the failed images of a locked job embedded; returns how many lines.

    Raises Conflict when there are none.
    """
    failed = job.lines.filter(result=LineResult.ERROR)
    rows = list(GalleryImage.objects.filter(pk__in=failed.values("image"), state=State.FAILED))
    count = failed.update(result=LineResult.WAITING, reason="")
    if not count:
        raise Conflict(
            _(
                "no picture of the job failed, and those it never came to were removed when it was "
                "cancelled; send them again"
            )
        )
    gallery_embedding.retry(rows)
    Job.objects.filter(pk=job.pk).update(state=State.RUNNING, error="", failed=0, finished_at=None)
    return count
