"""PostgreSQL and Valkey of the project's own, for whoever has none.

`acquire(var)` starts them, or joins those that run already; they keep running as long as any
process that acquired them lives, and stop with the last one. Everything they have lies under `var`;
they listen on Unix sockets in private directories, so they never meet a system's own servers.

- `keeper`    how servers are recognised and stopped, and the process that does it after a crash
- `ownership` who uses the servers
- `account`   who they run as
- `place`     where they keep their things
- `postgres`, `valkey`   how each is set up and started

With DATABASE_URL and REDIS_URL set, nobody calls this.
"""

from __future__ import annotations

import atexit
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from . import keeper, ownership, postgres, valkey
from .place import Place, explained

__all__ = ["Services", "Status", "acquire", "broker_url", "hold", "let_go", "release", "status"]

_held: dict[Path, int] = {}  # var: the descriptor of its lock
_lock = threading.RLock()


@dataclass(frozen=True)
class Services:
    """Where the servers of one `var` are reached; a server that was not asked for has ''."""

    database_url: str  # postgres://shitu@:5432/shitu?host=/DIRECTORY
    redis_url: str  # unix:///DIRECTORY/valkey.sock, for redis-py and Django's cache

    @property
    def broker_url(self) -> str:
        """The same server in Celery's words."""
        return broker_url(self.redis_url)


@dataclass(frozen=True)
class Status:
    """What runs, by process id, and for whom."""

    postgres: int | None
    valkey: int | None
    owners: list[int]
    held: bool


def acquire(var: Path, *, postgres: bool = True, valkey: bool = True) -> Services:
    """Start the servers of `var`, or join them, and own them until this process ends.

    To call it again is cheap and right: it heals what died meanwhile, at the same addresses. A
    forked child owns nothing by inheritance; it may acquire for itself. Raises SetupError with a
    sentence for the operator when the disk, a permission, a package or the machine forbids it.
    """
    place = Place.of(var)
    with _lock, explained(place.var):
        joined = place.var not in _held
        if joined:
            _held[place.var] = ownership.join(place.var)
        try:
            return _ensure(place, with_postgres=postgres, with_valkey=valkey)
        except BaseException:
            if joined:
                release(place.var)
            raise


def release(var: Path | None = None) -> None:
    """Give up `var`, or everything this process owns; the last owner stops the servers."""
    with _lock:
        for place in [var.resolve()] if var is not None else list(_held):
            if (lock := _held.pop(place, None)) is not None:
                ownership.leave(place, lock)


def status(var: Path) -> Status:
    """What runs under `var` now, asking nobody to start."""
    var = var.resolve()
    with explained(var):
        return Status(
            postgres=keeper.running(var / keeper.POSTGRES_PID, var / keeper.POSTGRES_DATA),
            valkey=keeper.running(var / keeper.VALKEY_PID, var / keeper.VALKEY_DIR),
            owners=ownership.owners(var),
            held=(var / keeper.HELD).exists(),
        )


def hold(var: Path) -> None:
    """Let the servers stay without an owner, until `let_go`. For a process that owns them."""
    with explained(var):
        (var.resolve() / keeper.HELD).touch()


def let_go(var: Path) -> bool:
    """Undo `hold`; True when the servers are stopped, False while somebody still owns them."""
    var = var.resolve()
    with explained(var):
        (var / keeper.HELD).unlink(missing_ok=True)
        return not (var / keeper.OWNERS_LOCK).exists() or ownership.stop_if_unowned(var)


def broker_url(redis_url: str) -> str:
    """A Redis URL as Celery wants it: kombu has words of its own for Unix sockets.

    `unix:///path?db=1` becomes `redis+socket:///path?virtual_host=1`; others stay as they are.
    """
    if not redis_url.startswith("unix://"):
        return redis_url
    path, _, query = redis_url.removeprefix("unix://").partition("?")
    query = query.replace("db=", "virtual_host=") or "virtual_host=0"
    return f"redis+socket://{path}?{query}"


def _ensure(place: Place, *, with_postgres: bool, with_valkey: bool) -> Services:
    with ownership.starting(place.var):
        sockets = place.sockets()
        if with_postgres:
            postgres.ensure(place, sockets)
        if with_valkey:
            valkey.ensure(place, sockets)
    return Services(
        database_url=postgres.url(sockets) if with_postgres else "",
        redis_url=valkey.url(sockets) if with_valkey else "",
    )


def _forget() -> None:
    """In a forked child: the locks are its parent's, and so may have been the thread in here."""
    global _lock
    _lock = threading.RLock()
    _held.clear()


atexit.register(release)
os.register_at_fork(after_in_child=_forget)
