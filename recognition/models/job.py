"""Work over many rows, with progress and a report line by line."""

from __future__ import annotations

import uuid
from pathlib import PurePath
from typing import Any, Self

from django.conf import settings
from django.db import models
from django.utils import timezone
from django.utils.translation import get_language
from django.utils.translation import gettext_lazy as _

from recognition.models.catalogue import Catalogue, InCatalogueQuerySet
from recognition.models.gallery import GalleryImage
from recognition.models.work import State, Work, WorkQuerySet

LOCAL_PATH = "path"


class JobQuerySet(WorkQuerySet, InCatalogueQuerySet):  # type: ignore[override]  # two as_manager
    def for_workers(self) -> Self:
        """Without the jobs of commands: only the machine of the command has their files."""
        return self.exclude(options__has_key=LOCAL_PATH)

    def unfinished(self) -> Self:
        return self.filter(state__in=State.unfinished())

    def fail(self, reason: str, **also: Any) -> int:
        return super().fail(reason, finished_at=timezone.now(), **also)


def current_language() -> str:
    """The language of the page or request that is being answered, of a command the site's."""
    return get_language() or settings.LANGUAGE_CODE


def job_path(job: Job, filename: str) -> str:
    """Random like every stored name; the uploader's own is in `source_name`."""
    return f"jobs/{job.catalogue.key}/{uuid.uuid4().hex}{PurePath(filename).suffix.lower()[:8]}"


class Job(Work):
    """An import, an export, a rebuild. `done + failed` of `total` lines are behind it.

    `file` is what was uploaded for an import and the result of an export. `options` are those of
    the kind; an import that a command started has the local `path` there and no `file`. Its reasons
    are written in the `language` of whoever started it.
    """

    class Kind(models.TextChoices):
        IMPORT = "import", _("import")
        EXPORT = "export", _("export")
        REBUILD = "rebuild", _("rebuild the index")
        REEMBED = "reembed", _("embed with another model")
        EMBED = "embed", _("embed added pictures")

    key = models.UUIDField(_("key"), default=uuid.uuid4, unique=True, editable=False)
    catalogue = models.ForeignKey(
        Catalogue, on_delete=models.CASCADE, related_name="jobs", verbose_name=_("catalogue")
    )
    kind = models.CharField(_("kind"), max_length=10, choices=Kind)
    started_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        related_name="+",
        verbose_name=_("started by"),
    )
    language = models.CharField(
        _("language"), max_length=16, default=current_language, editable=False
    )
    file = models.FileField(_("file"), upload_to=job_path, max_length=255, blank=True, default="")
    source_name = models.CharField(_("name of the source"), max_length=255, blank=True, default="")
    options = models.JSONField(_("options"), default=dict, blank=True, editable=False)
    dry_run = models.BooleanField(_("dry run"), default=False)
    total = models.PositiveIntegerField(_("lines"), default=0)
    done = models.PositiveIntegerField(_("done"), default=0)
    failed = models.PositiveIntegerField(_("failed"), default=0)
    created_at = models.DateTimeField(_("started"), auto_now_add=True)
    finished_at = models.DateTimeField(_("finished"), null=True, editable=False)

    objects = JobQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        verbose_name = _("job")
        verbose_name_plural = _("jobs")
        indexes = [
            models.Index(
                fields=["id"],
                name="job_unfinished",
                condition=models.Q(state__in=["pending", "running"]),
            )
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.key}"

    @property
    def is_finished(self) -> bool:
        return self.state in State.ended()

    def counts(self) -> dict[str, int]:
        """How many lines came to which result; every result is there."""
        found = dict(self.lines.order_by().values_list("result").annotate(count=models.Count("pk")))
        return {str(result): found.get(result, 0) for result in LineResult}


class LineResult(models.TextChoices):
    """What became of one line. Whether its image is embedded yet says the image's own row."""

    WAITING = "waiting", _("waiting")
    OK = "ok", _("ok")
    DUPLICATE = "duplicate", _("already there")
    SKIPPED = "skipped", _("skipped")
    ERROR = "error", _("error")


class JobLine(models.Model):
    """One line of a job's input, in input order. There is a row for every line that is behind; a
    job that embeds what was added before has one for every line, those to come are waiting."""

    job = models.ForeignKey(
        Job, on_delete=models.CASCADE, related_name="lines", verbose_name=_("job")
    )
    number = models.PositiveIntegerField(_("line"))
    text = models.TextField(_("text"))
    result = models.CharField(_("result"), max_length=9, choices=LineResult)
    reason = models.TextField(_("reason"), blank=True, default="")
    image = models.ForeignKey(
        GalleryImage,
        on_delete=models.SET_NULL,
        null=True,
        related_name="+",
        verbose_name=_("gallery image"),
    )

    class Meta:
        ordering = ["job", "number"]
        verbose_name = _("job line")
        verbose_name_plural = _("job lines")
        constraints = [models.UniqueConstraint(fields=["job", "number"], name="job_line_number")]

    def __str__(self) -> str:
        return f"{self.number}: {self.result}"
