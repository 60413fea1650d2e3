"""Who did what to what, when, and from where: one entry for each act, in the act's transaction.

Who acts is not handed from function to function: whoever lets somebody in (middleware, command,
job) says so with `acting`, and `record` looks there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import structlog
from celery import current_task
from django.db import connection
from django.db.models import Model, QuerySet

from recognition.models import (
    Action,
    ApiToken,
    AuditEntry,
    Catalogue,
    Job,
    Product,
    Source,
    User,
)
from recognition.services import spreadsheet

MOST_IDS = 100
"""So many ids of an act upon many things are written down; the count is always exact."""

_MOST_LABELS = 10

_COLUMNS = (
    "at",
    "user_name",
    "source",
    "token",
    "request_id",
    "action",
    "object_type",
    "object_id",
    "object_name",
    "count",
    "changes",
    "details",
)


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, and from where. `job` when it is a job that acts for them (see `for_job`)."""

    source: Source
    user: User | None = None
    token: ApiToken | None = None
    job: Job | None = None


_acting: ContextVar[Callable[[], Actor] | None] = ContextVar("acting", default=None)


@contextmanager
def acting(who: Actor | Callable[[], Actor]) -> Iterator[None]:
    """Whatever is recorded in this block was done by `who`.

    A function is asked at each act: at the start of a request nobody has signed in yet.
    """
    reset = _acting.set(who if callable(who) else lambda: who)
    try:
        yield
    finally:
        _acting.reset(reset)


@contextmanager
def for_job(job: Job) -> Iterator[None]:
    """Whatever is done in this block is done by `job` for the one who started it.

    The report of a job has a line for each thing it did, kept in the same transaction, so only acts
    upon the job itself (JOB_START, JOB_END) become entries.
    """
    with acting(Actor(Source.WORKER, job.started_by, job=job)):
        yield


def actor() -> Actor:
    """Who acts now; outside of every block, a worker or a command."""
    found = _acting.get()
    if found is not None:
        return found()
    return Actor(Source.WORKER if current_task else Source.COMMAND)


def record(
    action: Action,
    on: Model | None = None,
    *,
    catalogue: Catalogue | None,
    by: User | None = None,
    count: int = 1,
    changes: Mapping[str, Sequence[Any]] | None = None,
    **details: Any,
) -> None:
    """Write down one act, in the transaction that does it: both happen, or neither.

    `on` is what it was done to, None when that were many things; `count` says how many. `by` is the
    user when nobody said so with `acting`. `changes` is `{field: [before, after]}`.
    """
    if not connection.in_atomic_block:
        raise RuntimeError(f"{action} is recorded outside of the transaction that does it")
    who = actor()
    if who.job is not None and on != who.job:
        return
    user = who.user or by
    AuditEntry.objects.create(
        catalogue=catalogue,
        user=user,
        user_name=user.get_username() if user else "",
        source=who.source,
        token=str(who.token)[:120] if who.token else "",
        request_id=str(structlog.contextvars.get_contextvars().get("request_id", ""))[:64],
        action=action,
        object_type=on._meta.model_name or "" if on is not None else "",
        object_id=str(on.pk)[:64] if on is not None else "",
        object_name=str(on)[:255] if on is not None else "",
        count=count,
        changes=dict(changes or {}),
        details=details,
    )


def record_products(
    action: Action,
    products: Sequence[Product],
    on: Product | None = None,
    *,
    catalogue: Catalogue,
    **details: Any,
) -> None:
    """`record` one act upon several products: how many, and the first ids and labels.

    Without `on` it was done to the product, if it is only one.
    """
    record(
        action,
        on or (products[0] if len(products) == 1 else None),
        catalogue=catalogue,
        count=len(products),
        ids=ids(products),
        labels=[product.label for product in products[:_MOST_LABELS]],
        **details,
    )


def ids(rows: Sequence[Model]) -> list[Any]:
    """The first ids of many rows, for the details of an entry."""
    return [row.pk for row in rows[:MOST_IDS]]


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[Any]]:
    """`{field: [before, after]}` of what is not the same."""
    return {
        field: [before[field], value] for field, value in after.items() if before[field] != value
    }


def as_csv(entries: QuerySet[AuditEntry]) -> Iterator[str]:
    """A table of entries as CSV, in bounded memory. Opens in a spreadsheet.

    A text that a spreadsheet would take for a formula gets an apostrophe in front.
    """
    yield "\ufeff"
    yield from spreadsheet.lines(_COLUMNS, entries.values_list(*_COLUMNS).iterator(chunk_size=1000))
