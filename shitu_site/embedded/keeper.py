"""Stops the servers once nobody owns them any more.

The last owner calls `stop_unless_held` itself when it leaves in peace. For the one that is killed
there is the keeper: this file run as a script, a process that sleeps in the kernel until the last
shared lock on `run/owners.lock` is gone. It imports nothing of this project, so it costs a few
milliseconds of start and a few megabytes of memory.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

OWNERS_LOCK = "run/owners.lock"
KEEPER_LOCK = "run/keeper.lock"
SOCKETS = "run/sockets"
HELD = "run/held"  # exists after `start`: the servers stay although nobody owns them

POSTGRES_DATA = "postgres/data"
POSTGRES_PID = "postgres/data/postmaster.pid"
VALKEY_DIR = "valkey"
VALKEY_PID = "valkey/valkey.pid"

# PostgreSQL's "fast" shutdown: ends sessions, writes everything, needs no recovery afterwards.
_STOP = {
    POSTGRES_PID: (POSTGRES_DATA, signal.SIGINT),
    VALKEY_PID: (VALKEY_DIR, signal.SIGTERM),
}
_PATIENCE = 60.0  # seconds for a last checkpoint on a slow disk


def running(pid_file: Path, directory: Path) -> int | None:
    """Process id of the live server that keeps `directory`, or None.

    A pid file alone proves nothing: its server may have been killed and the number given to another
    process. The command line names the directory, and unlike most of `/proc` it may be read across
    accounts without special rights.
    """
    try:
        pid = int(pid_file.read_text().split("\n", 1)[0])
        process = psutil.Process(pid)
        # Nobody may ever collect a killed server where process 1 is not an init (containers).
        if process.status() != psutil.STATUS_ZOMBIE and str(directory) in process.cmdline():
            return pid
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess, psutil.AccessDenied):
        pass  # no pid file, one cut short by a crash, a pid nobody has now, or a stranger
    return None


def stop(var: Path, *pid_files: str) -> None:
    """Stop the named servers (all by default), together, and wait until they are gone.

    Raises TimeoutError when one is still there after a minute of asking and ten seconds of order.
    """
    asked = {name: _STOP[name] for name in pid_files or _STOP}
    for name, (directory, gentle) in asked.items():
        if pid := running(var / name, var / directory):
            os.kill(pid, gentle)
    for name, (directory, _) in asked.items():
        if _gone(var / name, var / directory, _PATIENCE):
            continue
        if pid := running(var / name, var / directory):
            # Both survive this: PostgreSQL replays its log, Valkey its append-only file.
            os.kill(pid, signal.SIGQUIT if name == POSTGRES_PID else signal.SIGKILL)
        if not _gone(var / name, var / directory, 10.0):
            raise TimeoutError(f"the server of {var / directory} does not stop")


def stop_unless_held(var: Path) -> None:
    """What happens when the last owner has gone; the caller holds the owners' lock alone."""
    if (var / HELD).exists():
        return
    stop(var)
    sockets = var / SOCKETS
    if sockets.is_symlink():  # they lie in a directory of their own among the temporary files
        with suppress(OSError):  # it is not ours alone any more, or gone: nothing is lost
            sockets.readlink().rmdir()
        sockets.unlink()


def _gone(pid_file: Path, directory: Path, patience: float) -> bool:
    until = time.monotonic() + patience
    while running(pid_file, directory):
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def keep(var: Path) -> None:
    """Become the one keeper of `var`: returns in the caller, waits and stops in a child."""
    keeper = os.open(var / KEEPER_LOCK, os.O_RDWR)
    try:
        fcntl.flock(keeper, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return  # there is one
    owners = os.open(var / OWNERS_LOCK, os.O_RDWR)
    if os.fork():
        os._exit(0)  # the child has both locks; whoever started us stops waiting and goes on
    os.setsid()  # Ctrl-C in the terminal is for the owners
    fcntl.flock(owners, fcntl.LOCK_EX)
    stop_unless_held(var)
    # This order matters: an owner that comes now finds either the lock taken or no keeper.
    os.close(keeper)
    os.close(owners)


if __name__ == "__main__":
    keep(Path(sys.argv[1]))
