"""The processes that run the networks, as they announce themselves."""

from __future__ import annotations

from datetime import timedelta
from typing import Self

from django.conf import settings
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _


class WorkerQuerySet(models.QuerySet["Worker"]):
    def alive(self) -> Self:
        """Workers that announced themselves within `SHITU_WORKER_GONE_SECONDS`."""
        limit = timedelta(seconds=settings.SHITU_WORKER_GONE_SECONDS)
        return self.filter(seen_at__gte=timezone.now() - limit)


class Worker(models.Model):
    """One worker process; `networks` is what it has loaded, with digest, engine and device."""

    name = models.CharField(_("name"), max_length=200, unique=True)
    device = models.CharField(_("device"), max_length=50)
    queues = models.CharField(_("queues"), max_length=100)
    batch_size = models.PositiveIntegerField(_("batch size"))
    networks = models.JSONField(_("networks"), default=list)
    pictures = models.PositiveBigIntegerField(_("pictures"), default=0)
    busy_seconds = models.FloatField(_("busy seconds"), default=0.0)
    memory_bytes = models.PositiveBigIntegerField(_("memory"), default=0)
    started_at = models.DateTimeField(_("since"))
    seen_at = models.DateTimeField(_("last seen"))

    objects = WorkerQuerySet.as_manager()

    class Meta:
        ordering = ["-seen_at"]
        verbose_name = _("worker")
        verbose_name_plural = _("workers")

    def __str__(self) -> str:
        return self.name

    @property
    def is_alive(self) -> bool:
        limit = timedelta(seconds=settings.SHITU_WORKER_GONE_SECONDS)
        return self.seen_at >= timezone.now() - limit

    @property
    def pictures_per_second(self) -> float | None:
        """Pictures through the networks per second of work; None before the first."""
        return self.pictures / self.busy_seconds if self.busy_seconds else None
