"""How much a catalogue, a user and a token may have and ask.

Defaults are the `SHITU_QUOTA_*` settings, rows of `Quota` override them, 0 is unlimited. What is
counted by the minute is in `rates`, which is asked only about what has a limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet, Sum
from django.utils.translation import gettext as _

from recognition.errors import BadInput, LimitReached, StorageFull
from recognition.models import Action, Catalogue, Job, Quota, User
from recognition.models.prepared import prepared
from recognition.services import audit, rates
from recognition.services.rates import Limited

LIMITS = ("images", "stored_bytes", "queries_per_minute", "concurrent_jobs")
_DEFAULTS = {
    ("catalogue", "images"): "SHITU_QUOTA_CATALOGUE_IMAGES",
    ("catalogue", "stored_bytes"): "SHITU_QUOTA_CATALOGUE_BYTES",
    ("catalogue", "queries_per_minute"): "SHITU_QUOTA_CATALOGUE_QUERIES_PER_MINUTE",
    ("catalogue", "concurrent_jobs"): "SHITU_QUOTA_CONCURRENT_JOBS",
    ("user", "queries_per_minute"): "SHITU_QUOTA_USER_QUERIES_PER_MINUTE",
    ("user", "concurrent_jobs"): "SHITU_QUOTA_CONCURRENT_JOBS",
}
"""What no setting names is unlimited until a row says otherwise."""

_LOOK_AGAIN = 30.0  # seconds until a job may have ended


@dataclass(frozen=True, slots=True)
class Usage:
    """One limit: what is used of it now (None: not counted), and the most (None: unlimited)."""

    limit: str
    used: int | None
    most: int | None


def limits(of: Limited) -> dict[str, int | None]:
    """The limits that hold for a catalogue, user or token, by name; None is unlimited."""
    return _limits([of])[0]


def _limits(several: Sequence[Limited]) -> list[dict[str, int | None]]:
    """`limits` of each, in one statement; at most one catalogue, one user and one token."""
    keys: dict[str, Any] = {rates.kind(of): of.pk for of in several}
    rows = {
        kind: row
        for row in _rows(keys.get("catalogue"), keys.get("user"), keys.get("token"))
        for kind in keys
        if getattr(row, f"{kind}_id") is not None
    }
    answer = []
    for kind in keys:
        found: dict[str, int | None] = {}
        for name in LIMITS:
            own = getattr(rows.get(kind), name, None)
            setting = _DEFAULTS.get((kind, name))
            default = getattr(settings, setting) if setting else 0
            found[name] = (default if own is None else own) or None
        answer.append(found)
    return answer


@prepared
def _rows(catalogue: int | None, user: int | None, token: str | None) -> QuerySet[Quota]:
    return Quota.objects.filter(Q(catalogue=catalogue) | Q(user=user) | Q(token=token))


def usage(catalogue: Catalogue) -> list[Usage]:
    """What a catalogue has used of each of its limits."""
    most = limits(catalogue)
    used: dict[str, int | None] = {
        "images": catalogue.stored_images,
        "stored_bytes": catalogue.stored_bytes,
        "queries_per_minute": rates.used_lately(_window(catalogue))
        if most["queries_per_minute"]
        else None,
        "concurrent_jobs": Job.objects.filter(catalogue=catalogue).unfinished().count(),
    }
    return [Usage(name, used[name], most[name]) for name in LIMITS]


@transaction.atomic
def change(of: Limited, **most: int | None) -> Quota:
    """Set limits of a catalogue, user or token; None is the default again, 0 unlimited.

    Raises BadInput for a name that is no limit, or a number below 0.
    """
    for name, value in most.items():
        if name not in LIMITS:
            raise BadInput(
                _("%(name)s is no limit; there are %(limits)s")
                % {"name": name, "limits": ", ".join(LIMITS)},
                field=name,
            )
        if value is not None and value < 0:
            raise BadInput(_("%(name)s must be 0 (unlimited) or more") % {"name": name}, field=name)
    whose: dict[str, Any] = {rates.kind(of): of}
    row, _created = Quota.objects.select_for_update().get_or_create(**whose)
    changes = audit.differences({name: getattr(row, name) for name in most}, most)
    if changes:
        for name, value in most.items():
            setattr(row, name, value)
        row.save(update_fields=most)
        audit.record(
            Action.QUOTA_CHANGE,
            of,
            catalogue=of if isinstance(of, Catalogue) else None,
            changes=changes,
        )
    return row


def check_stored(catalogue: Catalogue) -> None:
    """Raises StorageFull when the catalogue, or all its owner's together, hold more than allowed.

    Call it in the adding transaction, after the catalogue's counts have moved: the lock that took
    is what makes it exact however many add at once.
    """
    own, most = _limits([catalogue, catalogue.owner])
    _refuse_stored(rates.called(catalogue), own, catalogue.stored_images, catalogue.stored_bytes)
    if most["images"] or most["stored_bytes"]:
        # Additions to two catalogues of one owner meet here only.
        User.objects.select_for_update(no_key=True).get(pk=catalogue.owner_id)
        held = Catalogue.objects.filter(owner=catalogue.owner_id).aggregate(
            images=Sum("stored_images", default=0), stored_bytes=Sum("stored_bytes", default=0)
        )
        _refuse_stored(
            _("the catalogues of %(owner)s together") % {"owner": catalogue.owner},
            most,
            held["images"],
            held["stored_bytes"],
            say_held=False,  # who adds may not see the owner's other catalogues
        )


def _refuse_stored(
    whose: str,
    most: dict[str, int | None],
    images: int,
    byte_size: int,
    *,
    say_held: bool = True,
) -> None:
    for name, held, unit in (
        ("images", images, _("images")),
        ("stored_bytes", byte_size, _("bytes")),
    ):
        limit = most[name]
        if limit is not None and held > limit:
            would = _("would hold more")
            if say_held:
                would = _("would hold %(held)s") % {"held": f"{held:,}"}
            raise StorageFull(
                _(
                    "%(whose)s may hold %(most)s %(unit)s and %(would)s, with those in the trash; "
                    "remove some for good, or ask the site's staff for more"
                )
                % {"whose": whose, "most": f"{limit:,}", "unit": unit, "would": would},
                field="images",
            )


def check_job(catalogue: Catalogue, *, by: User | None) -> None:
    """Raises LimitReached when as many jobs run as are allowed, in the catalogue or of the user.

    Call it in the transaction that makes the job, before it is made.
    """
    both: list[Catalogue | User] = [one for one in (catalogue, by) if one is not None]
    for of, limited in zip(both, _limits(both), strict=True):
        most = limited["concurrent_jobs"]
        if most is None:
            continue
        # Not type(of): a request's user is a wrapper around it.
        of.__class__._default_manager.select_for_update(no_key=True).get(pk=of.pk)
        mine = Q(catalogue=of) if isinstance(of, Catalogue) else Q(started_by=of)
        running = Job.objects.filter(mine).unfinished().count()
        if running >= most:
            raise LimitReached(
                _(
                    "%(whose)s may have %(most)s unfinished jobs at once and has %(running)s; "
                    "wait for one to end, or cancel one"
                )
                % {"whose": rates.called(of), "most": most, "running": running},
                retry_after=_LOOK_AGAIN,
            )


def check_query(catalogue: Catalogue, *, by: User | None) -> None:
    """Count one query; raises LimitReached when the catalogue, user or token has asked too many."""
    of = [one for one in (catalogue, by, by.token if by else None) if one is not None]
    limited = [
        (one, most["queries_per_minute"])
        for one, most in zip(of, _limits(of), strict=True)
        if most["queries_per_minute"]
    ]
    if not limited:
        return
    taken = rates.take([(_window(one), most) for one, most in limited])
    for (one, most), full in zip(limited, taken, strict=True):
        if full is not None:
            raise LimitReached(
                _(
                    "%(whose)s may ask %(most)s queries a minute and has asked %(used)s; "
                    "ask again in %(seconds)s s"
                )
                % {
                    "whose": rates.called(one),
                    "most": most,
                    "used": full.used,
                    "seconds": f"{full.seconds:.0f}",
                },
                retry_after=full.seconds,
            )


def _window(of: Limited) -> str:
    return f"shitu:queries:{rates.kind(of)}:{of.pk}"
