"""`python -m shitu_site.embedded {start,stop,status,run}`: the servers by hand."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

import environ

from recognition.errors import SetupError

from . import Services, acquire, hold, let_go, status

_PROJECT = Path(__file__).resolve().parents[2]


def main(arguments: list[str] | None = None) -> int:
    """Run one of the four verbs; the exit code is 0 when the state asked for is reached."""
    parser = argparse.ArgumentParser(prog="python -m shitu_site.embedded", description=__doc__)
    parser.add_argument("verb", choices=["start", "stop", "status", "run"])
    parser.add_argument(
        "--var",
        type=Path,
        default=default_var(),
        help="data directory (default: SHITU_VAR_DIR, %(default)s)",
    )
    asked = parser.parse_args(arguments)
    try:
        return {"start": _start, "stop": _stop, "status": _status, "run": _run}[asked.verb](
            asked.var.expanduser().resolve()
        )
    except SetupError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1


def default_var() -> Path:
    """Where the site has its servers: SHITU_VAR_DIR as the settings read it, `.env` included."""
    env = environ.Env()
    env.read_env(_PROJECT / ".env")
    return Path(env.str("SHITU_VAR_DIR", default=str(_PROJECT / "var")))


def _start(var: Path) -> int:
    """Start the servers, and leave them running after this command until `stop`."""
    services = acquire(var)
    hold(var)
    _tell(var, services)
    return 0


def _stop(var: Path) -> int:
    """Stop the servers, unless another command uses them."""
    if let_go(var):
        return 0
    users = ", ".join(map(str, status(var).owners)) or "another account"
    sys.stderr.write(f"{var} is still used by process {users}; they stop when it ends.\n")
    return 1


def _status(var: Path) -> int:
    """Say what runs; exit code 3 when something does not."""
    now = status(var)
    sys.stdout.write(f"directory: {var}\n")
    for name, pid in (("PostgreSQL", now.postgres), ("Valkey", now.valkey)):
        sys.stdout.write(f"{name}: {f'process {pid}' if pid else 'stopped'}\n")
    owners = ", ".join(map(str, now.owners)) or "nobody"
    sys.stdout.write(f"used by: {owners}{' (held by start)' if now.held else ''}\n")
    return 0 if now.postgres and now.valkey else 3


def _run(var: Path) -> int:
    """Keep the servers until Ctrl-C or SIGTERM."""
    signals = {signal.SIGINT, signal.SIGTERM}
    services = acquire(var)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    _tell(var, services)
    signal.sigwait(signals)
    return 0


def _tell(var: Path, services: Services) -> None:
    """For a shell to read: `eval "$(python -m shitu_site.embedded start)"`."""
    sys.stderr.write(f"the servers of {var}\n")
    sys.stdout.write(f"export DATABASE_URL='{services.database_url}'\n")
    sys.stdout.write(f"export REDIS_URL='{services.redis_url}'\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
