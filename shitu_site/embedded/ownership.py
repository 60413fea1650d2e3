"""Who uses the servers, told by the kernel.

Every owner holds a shared lock (flock) on `run/owners.lock` for as long as it lives. The kernel
drops it however the process ends, so there is no list of process ids that could be stale, and no id
that could have been given away. Whoever gets the lock for itself alone knows that nobody is left.
`run/start.lock` lets one process at a time start servers.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from recognition.errors import SetupError

from . import keeper


def join(var: Path) -> int:
    """Become an owner, after any stop in progress; gives the descriptor that holds the lock."""
    owners = _open(var / keeper.OWNERS_LOCK)
    fcntl.flock(owners, fcntl.LOCK_SH)
    return owners


def leave(var: Path, owners: int) -> None:
    """Stop being an owner; the last one stops the servers and returns when they are gone."""
    # Closing alone would not do: a forked child may have the same lock open.
    fcntl.flock(owners, fcntl.LOCK_UN)
    os.close(owners)
    stop_if_unowned(var)


def stop_if_unowned(var: Path) -> bool:
    """Stop the servers unless somebody owns them; True when nobody does."""
    owners = _open(var / keeper.OWNERS_LOCK)
    try:
        try:
            fcntl.flock(owners, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        else:
            keeper.stop_unless_held(var)
            return True
        try:
            fcntl.flock(owners, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(owners, fcntl.LOCK_SH)  # the keeper was faster: wait till it has stopped
            return True
        return False
    finally:
        os.close(owners)


@contextmanager
def starting(var: Path) -> Iterator[None]:
    """One process at a time in here, for one that has joined already."""
    lock = _open(var / "run/start.lock")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with _keeper(var):
            yield
    finally:
        os.close(lock)


def owners(var: Path) -> list[int]:
    """Process ids of the owners, as far as this account may see them."""
    lock = str(var / keeper.OWNERS_LOCK)
    found = []
    for process in psutil.process_iter():
        try:
            used = any(opened.path == lock for opened in process.open_files())
            if used and str(Path(keeper.__file__)) not in process.cmdline():
                found.append(process.pid)
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue  # another account's, which cannot own what is private to ours, or ended
    return found


@contextmanager
def _keeper(var: Path) -> Iterator[None]:
    """See to it that there is a keeper, while the servers start."""
    lock = _open(var / keeper.KEEPER_LOCK)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield  # there is one
        return
    finally:
        os.close(lock)
    # -P: a script's own directory must not hide installed packages (there is a valkey.py here).
    with subprocess.Popen(  # noqa: S603 (our own file)
        [sys.executable, "-P", keeper.__file__, str(var)],
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as starter:
        yield
    if starter.returncode:
        raise SetupError(
            f"The watch over the embedded servers could not be started with {sys.executable} "
            f"(exit code {starter.returncode}). Without it they would outlive a killed command; "
            "install the project's requirements into the environment that runs it."
        )


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CLOEXEC)
