"""How often one may come: what is counted over the last minute or hour, by all processes together.

The counts are in Redis. Where that cannot be reached everybody goes on, and the log says so: what
is asked waits for a worker anyway, and a page does not fail for want of a count.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar
from uuid import uuid4

import redis
import structlog
from django.conf import settings
from django.utils.translation import gettext as _

from recognition.errors import LimitReached
from recognition.models import ApiToken, Catalogue, User

log = structlog.get_logger(__name__)

MOST_RESETS_TO_ADDRESS = 5
MOST_RESETS_FROM_ADDRESS = 30
"""E-mails an hour with which a password can be chosen anew."""

MOST_INVITATIONS_TO_ADDRESS = 5
MOST_INVITATIONS_BY_USER = 50
"""E-mails an hour that invite somebody, to whichever catalogues."""

_MINUTE = 60
_HOUR = 60 * _MINUTE

Limited = Catalogue | User | ApiToken
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Full:
    """A window that has none left: what is used of it, and in how many seconds one is free."""

    used: int
    seconds: float


def check_request(user: User) -> None:
    """Count one request of the API; raises LimitReached above `SHITU_API_REQUESTS_PER_MINUTE`.

    Each token has its own count, and whoever comes without one is counted by user.
    """
    most = settings.SHITU_API_REQUESTS_PER_MINUTE
    if not most:
        return
    one = user.token or user
    [full] = take([(f"shitu:requests:{kind(one)}:{one.pk}", most)])
    if full is not None:
        raise LimitReached(
            _(
                "%(whose)s may send %(most)s requests a minute and has sent %(used)s; "
                "come back in %(seconds)s s"
            )
            % {
                "whose": called(one),
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
    for full in take(windows, seconds=_HOUR):
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
    to_address, by_user = take(windows, seconds=_HOUR)
    if to_address is not None:
        raise LimitReached(
            _(
                "this address got %(most)s invitations within the hour; invite it again in "
                "%(minutes)s min"
            )
            % {"most": MOST_INVITATIONS_TO_ADDRESS, "minutes": f"{to_address.seconds / 60:.0f}"},
            retry_after=to_address.seconds,
        )
    if by_user is not None:
        raise LimitReached(
            _("you sent %(most)s invitations within the hour; send more in %(minutes)s min")
            % {"most": MOST_INVITATIONS_BY_USER, "minutes": f"{by_user.seconds / 60:.0f}"},
            retry_after=by_user.seconds,
        )


def _digest(email: str) -> str:
    return hashlib.sha256(email.strip().lower().encode(errors="replace")).hexdigest()


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


def take(windows: Sequence[tuple[str, int]], *, seconds: int = _MINUTE) -> list[Full | None]:
    """Take one from every window, `(key, most)`, if all have one left; for each, None or how full
    it is."""
    keys, most = zip(*windows, strict=True)
    answer = _asked(
        lambda client: client.eval(_TAKE, len(keys), *keys, *most, seconds, uuid4().hex),
        otherwise=[(0, 0)] * len(keys),
    )
    return [
        Full(int(used), max(wait / 1e6, 0.001)) if used >= most else None
        for (used, wait), (_key, most) in zip(answer, windows, strict=True)
    ]


def used_lately(key: str) -> int:
    """How many were taken from a window in the last minute."""
    since = (time.time() - _MINUTE) * 1e6
    return int(_asked(lambda client: client.zcount(key, since, "+inf"), otherwise=0))


def _asked(ask: Callable[[redis.Redis], _Answer], *, otherwise: _Answer) -> _Answer:
    """What Redis says, `otherwise` where it cannot be reached."""
    try:
        return ask(_redis())
    except redis.RedisError as error:
        log.warning("rate_limit_unreachable", reason=str(error))
        return otherwise


@lru_cache(maxsize=1)
def _redis() -> redis.Redis:
    return redis.Redis.from_url(settings.REDIS_URL)


def kind(of: Limited) -> str:
    """What it is, in a word for keys and columns."""
    if isinstance(of, Catalogue):
        return "catalogue"
    return "user" if isinstance(of, User) else "token"


def called(of: Limited) -> str:
    """What it is called, at the beginning of a sentence about its limit."""
    if isinstance(of, Catalogue):
        return _("the catalogue “%(name)s”") % {"name": of.name}
    if isinstance(of, User):
        return _("the user %(name)s") % {"name": of}
    return _("the token “%(name)s”") % {"name": of.name}
