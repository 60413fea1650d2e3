"""How much a catalogue, a user and a token may have and ask.

Defaults are the `SHITU_QUOTA_*` settings, rows of `Quota` override them, 0 is unlimited. Redis is
asked only about what has a limit.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from uuid import uuid4

import redis
import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet, Sum
from django.utils.translation import gettext as _

from recognition.errors import BadInput, LimitReached, StorageFull
from recognition.models import Action, ApiToken, Catalogue, Job, Quota, User
from recognition.models.prepared import prepared
from recognition.services import audit

log = structlog.get_logger(__name__)

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

MOST_RESETS_TO_ADDRESS = 5
MOST_RESETS_FROM_ADDRESS = 30
"""E-mails an hour with which a password can be chosen anew."""

MOST_INVITATIONS_TO_ADDRESS = 5
MOST_INVITATIONS_BY_USER = 50
"""E-mails an hour that invite somebody, to whichever catalogues."""

_MINUTE = 60
_HOUR = 60 * _MINUTE
_LOOK_AGAIN = 30.0  # seconds until a job may have ended

Limited = Catalogue | User | ApiToken


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
    keys: dict[str, Any] = {_kind(of): of.pk for of in several}
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
        "queries_per_minute": _asked_lately(catalogue) if most["queries_per_minute"] else None,
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
    whose: dict[str, Any] = {_kind(of): of}
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
    _refuse_stored(_called(catalogue), own, catalogue.stored_images, catalogue.stored_bytes)
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
                % {"whose": _called(of), "most": most, "running": running},
                retry_after=_LOOK_AGAIN,
            )


def check_query(catalogue: Catalogue, *, by: User | None) -> None:
    """Count one query; raises LimitReached when the catalogue, user or token has asked too many.

    All web processes count together in Redis. Where that cannot be reached queries go on, and the
    log says so: without it they wait for a worker anyway.
    """
    of = [one for one in (catalogue, by, by.token if by else None) if one is not None]
    limited = [
        (one, most["queries_per_minute"])
        for one, most in zip(of, _limits(of), strict=True)
        if most["queries_per_minute"]
    ]
    if not limited:
        return
    try:
        taken = _take([(_window(one), most) for one, most in limited])
    except redis.RedisError as error:
        log.warning("rate_limit_unreachable", reason=str(error))
        return
    for (one, most), full in zip(limited, taken, strict=True):
        if full is not None:
            raise LimitReached(
                _(
                    "%(whose)s may ask %(most)s queries a minute and has asked %(used)s; "
                    "ask again in %(seconds)s s"
                )
                % {
                    "whose": _called(one),
                    "most": most,
                    "used": full.used,
                    "seconds": f"{full.seconds:.0f}",
                },
                retry_after=full.seconds,
            )


def check_request(user: User) -> None:
    """Count one request of the API; raises LimitReached above `SHITU_API_REQUESTS_PER_MINUTE`.

    Each token has its own count, and whoever comes without one is counted by user.
    """
    most = settings.SHITU_API_REQUESTS_PER_MINUTE
    if not most:
        return
    one = user.token or user
    try:
        [full] = _take([(f"shitu:requests:{_kind(one)}:{one.pk}", most)])
    except redis.RedisError as error:
        log.warning("rate_limit_unreachable", reason=str(error))
        return
    if full is not None:
        raise LimitReached(
            _(
                "%(whose)s may send %(most)s requests a minute and has sent %(used)s; "
                "come back in %(seconds)s s"
            )
            % {
                "whose": _called(one),
                "most": most,
                "used": full.used,
                "seconds": f"{full.seconds:.0f}",
            },
            retry_after=full.seconds,
        )


def check_password_reset(email: str, address: str) -> None:
    """Count one e-mail with which a password can be chosen anew, asked for from network `address`.

    Raises LimitReached when too many were asked for, to that e-mail address or from there, within
    the hour. Whether the e-mail address has an account makes no difference.
    """
    windows = [
        (f"shitu:resets:to:{_digest(email)}", MOST_RESETS_TO_ADDRESS),
        (f"shitu:resets:from:{address}", MOST_RESETS_FROM_ADDRESS),
    ]
    try:
        taken = _take(windows, seconds=_HOUR)
    except redis.RedisError as error:
        log.warning("rate_limit_unreachable", reason=str(error))
        return
    for full in taken:
        if full is not None:
            raise LimitReached(
                _("too many such e-mails were asked for; ask again in %(minutes)s min")
                % {"minutes": f"{full.seconds / 60:.0f}"},
                retry_after=full.seconds,
            )


def check_invitation(email: str, *, by: User) -> None:
    """Count one e-mail that invites somebody; raises LimitReached when the address got, or the user
    sent, too many within the hour."""
    windows = [
        (f"shitu:invitations:to:{_digest(email)}", MOST_INVITATIONS_TO_ADDRESS),
        (f"shitu:invitations:by:{by.pk}", MOST_INVITATIONS_BY_USER),
    ]
    try:
        taken = _take(windows, seconds=_HOUR)
    except redis.RedisError as error:
        log.warning("rate_limit_unreachable", reason=str(error))
        return
    reasons = (
        _(
            "this address got %(most)s invitations within the hour; invite it again in "
            "%(minutes)s min"
        ),
        _("you sent %(most)s invitations within the hour; send more in %(minutes)s min"),
    )
    for reason, (_window, most), full in zip(reasons, windows, taken, strict=True):
        if full is not None:
            raise LimitReached(
                reason % {"most": most, "minutes": f"{full.seconds / 60:.0f}"},
                retry_after=full.seconds,
            )


def _digest(email: str) -> str:
    return hashlib.sha256(email.strip().lower().encode(errors="replace")).hexdigest()


@dataclass(frozen=True, slots=True)
class _Full:
    used: int
    seconds: float


@lru_cache(maxsize=1)
def _redis() -> redis.Redis:
    return redis.Redis.from_url(settings.REDIS_URL)


def _window(of: Limited) -> str:
    return f"shitu:queries:{_kind(of)}:{of.pk}"


# The time of each query of the last minute, or longer, in a sorted set: exact at every moment, with
# no edge of a minute at which twice as many pass. All sets are read before any is written.
_TAKE = """
local length = tonumber(ARGV[#ARGV - 1]) * 1000000
local now = redis.call('TIME')
now = now[1] * 1000000 + now[2]
local answer, free = {}, true
for i, key in ipairs(KEYS) do
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now - length)
    local used = redis.call('ZCARD', key)
    local wait = 0
    if used >= tonumber(ARGV[i]) then
        free = false
        local first = redis.call('ZRANGE', key, used - tonumber(ARGV[i]), used - tonumber(ARGV[i]),
            'WITHSCORES')
        wait = first[2] + length - now
    end
    answer[i] = {used, wait}
end
if free then
    for i, key in ipairs(KEYS) do
        redis.call('ZADD', key, now, ARGV[#ARGV])
        redis.call('EXPIRE', key, ARGV[#ARGV - 1] + 1)
    end
end
return answer
"""


def _take(windows: Sequence[tuple[str, int]], *, seconds: int = _MINUTE) -> list[_Full | None]:
    """Take one from every window if all have one left; for each, None or how full it is."""
    keys, most = zip(*windows, strict=True)
    answer = _redis().eval(_TAKE, len(keys), *keys, *most, seconds, uuid4().hex)
    return [
        _Full(int(used), max(wait / 1e6, 0.001)) if used >= most else None
        for (used, wait), (_, most) in zip(answer, windows, strict=True)
    ]


def _asked_lately(of: Limited) -> int:
    """Queries counted in the last minute."""
    try:
        since = time.time() - _MINUTE
        return int(_redis().zcount(_window(of), since * 1e6, "+inf"))
    except redis.RedisError as error:
        log.warning("rate_limit_unreachable", reason=str(error))
        return 0


def _kind(of: Limited) -> str:
    if isinstance(of, Catalogue):
        return "catalogue"
    return "user" if isinstance(of, User) else "token"


def _called(of: Limited) -> str:
    if isinstance(of, Catalogue):
        return _("the catalogue “%(name)s”") % {"name": of.name}
    if isinstance(of, User):
        return _("the user %(name)s") % {"name": of}
    return _("the token “%(name)s”") % {"name": of.name}
