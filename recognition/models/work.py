"""The one life cycle of everything a worker must finish."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Self

from django.conf import settings
from django.db import connection, models, transaction
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _


class State(models.TextChoices):
    PENDING = "pending", _("pending")
    RUNNING = "running", _("running")
    DONE = "done", _("done")
    FAILED = "failed", _("failed")

    @classmethod
    def ended(cls) -> tuple[State, ...]:
        """The states of work that nobody has to finish any more."""
        return cls.DONE, cls.FAILED

    @classmethod
    def unfinished(cls) -> tuple[State, ...]:
        """The states of work that somebody has to finish yet."""
        return cls.PENDING, cls.RUNNING


class WorkQuerySet(models.QuerySet[Any]):
    """Rows that workers share out among themselves, safely, however many there are."""

    def waiting(self) -> Self:
        """What nobody works on: pending, or running under a lease that ran out (worker killed)."""
        return self.filter(
            Q(state=State.PENDING) | Q(state=State.RUNNING, lease_until__lt=timezone.now())
        )

    def claim(
        self,
        limit: int,
        give_up: Callable[[Any, str], object] = lambda rows, reason: rows.fail(reason),
    ) -> list[Any]:
        """Take up to `limit` waiting rows, oldest first; no two workers ever get the same row.

        The claim is a lease of `SHITU_LEASE_SECONDS`: a worker that dies gives its rows back by
        doing nothing. A row whose lease ran out `SHITU_MAX_ATTEMPTS` times is failed, because it
        may be the one that kills the workers: `give_up` does that, with the rows and the reason.
        For the same reason a row that was attempted before is taken alone, and before the others:
        what was claimed together with the one that kills must not die with it again.
        """
        with transaction.atomic():
            with connection.cursor() as cursor:
                # What a crash of the database takes back is only the lease of somebody whose
                # connection it has ended as well, so nobody waits for the disk.
                cursor.execute("SET LOCAL synchronous_commit = off")
            rows = list(
                self.waiting()
                .order_by("pk")
                .select_for_update(skip_locked=True, of=("self",))[:limit]
            )
            lease = timezone.now() + timedelta(seconds=settings.SHITU_LEASE_SECONDS)
            taken: list[Any] = []
            given_up: list[Any] = []
            for row in rows:
                (given_up if row.attempts >= settings.SHITU_MAX_ATTEMPTS else taken).append(row)
            taken = [row for row in taken if row.attempts][:1] or taken
            give_up(
                self.model._default_manager.filter(pk__in=[row.pk for row in given_up]),
                f"the worker stopped {settings.SHITU_MAX_ATTEMPTS} times here",
            )
            self.model._default_manager.filter(pk__in=[row.pk for row in taken]).update(
                state=State.RUNNING, lease_until=lease, attempts=F("attempts") + 1, error=""
            )
        for row in taken:
            row.state, row.lease_until = State.RUNNING, lease
        return taken

    def again(self) -> int:
        """Let this work wait as if nobody had tried it; returns how many rows that was."""
        return self.update(state=State.PENDING, error="", attempts=0, lease_until=None)

    def fail(self, reason: str, **also: Any) -> int:
        """End this work without a result; returns how many rows that was."""
        return self.update(state=State.FAILED, error=reason, lease_until=None, **also)


def may_leave_more(claimed: Sequence[Work], limit: int) -> bool:
    """Whether more rows may be waiting beside those that `claim(limit)` took."""
    return len(claimed) == limit or any(row.attempts for row in claimed)


class Work(models.Model):
    """Something a worker must finish. A redelivered task may run it again."""

    state = models.CharField(_("state"), max_length=8, choices=State, default=State.PENDING)
    error = models.TextField(_("reason"), blank=True, default="")
    lease_until = models.DateTimeField(_("lease until"), null=True, blank=True, editable=False)
    attempts = models.PositiveSmallIntegerField(_("attempts"), default=0, editable=False)

    class Meta:
        abstract = True
