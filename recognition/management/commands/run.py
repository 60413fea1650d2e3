"""The whole site in the foreground: web, worker and beat, stopped together by Ctrl-C."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from argparse import ArgumentParser
from pathlib import Path
from types import FrameType
from typing import IO, Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from recognition.errors import RecognitionError
from recognition.management.workers import die_with_parent
from recognition.services import setup

# What `docker-compose.yml` runs too, one container each.
PROCESSES: dict[str, list[str]] = {
    "web": ["gunicorn", "shitu_site.wsgi", "--config", "shitu_site/gunicorn.conf.py"],
    "worker": ["python", "manage.py", "worker"],
    "beat": ["celery", "--app", "shitu_site", "beat", "--loglevel", "INFO"],
}
_STOP_SECONDS = 20


class Command(BaseCommand):
    help = "Run the site on http://127.0.0.1:8000 with the demo catalogue; Ctrl-C stops it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--no-demo", action="store_true", help="without the demo catalogue")

    def handle(self, *, no_demo: bool, **options: Any) -> None:
        bind = os.environ.get("SHITU_BIND", "127.0.0.1:8000")
        _check_free(bind)
        try:
            setup.set_up(self.stdout.write)
            admin, password = setup.ensure_admin()
            if not no_demo:
                from recognition.services import showcase

                showcase.ensure(admin, self.stdout.write)
        except RecognitionError as error:
            raise CommandError(error.message) from error
        self.stdout.write(f"\n  http://{bind}/   sign in as {admin.username}")
        if password:
            self.stdout.write(f"  password: {password}   (shown this once)")
        else:
            self.stdout.write(f"  forgotten: ./manage.py changepassword {admin.username}")
        if _opens_to_this_machine(bind):
            os.environ["SHITU_PADDLEX_ANONYMOUS_USER"] = admin.username
            self.stdout.write(
                "  PaddleX's four operations need no token from this machine: they act as "
                f"{admin.username}\n  (SHITU_PADDLEX_ANONYMOUS_USER= turns that off). "
                f"All else does: ./manage.py create_token {admin.username} --name NAME"
            )
        self.stdout.write(f"  data: {settings.SHITU_VAR_DIR}   Ctrl-C stops everything\n\n")
        self.stdout.flush()
        raise SystemExit(Supervisor(self.stdout).run())


def _check_free(bind: str) -> None:
    """Find out before anything starts that the web server could not listen. Raises CommandError."""
    for address in bind.split(","):
        host, _, port = address.strip().rpartition(":")
        if not port.isdigit():  # a Unix socket
            continue
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            with socket.socket(family) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gunicorn does
                probe.bind((host, int(port)))
        except (OSError, OverflowError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise CommandError(
                f"the site cannot listen on {address} ({why}): stop what does, or set SHITU_BIND "
                "to another address, such as 127.0.0.1:8001"
            ) from error


def _opens_to_this_machine(bind: str) -> bool:
    """Whether PaddleX's clients may come without a token: on loopback, unless it is set."""
    names = {bind.rsplit(":", 1)[0], *settings.ALLOWED_HOSTS}  # a proxy needs its own name there
    return (
        names <= {"127.0.0.1", "[::1]", "localhost"}
        and "SHITU_PADDLEX_ANONYMOUS_USER" not in os.environ
    )


class Supervisor:
    """Starts the processes, passes their words on, and stops all of them when one ends."""

    def __init__(self, stdout: Any) -> None:
        self._stdout = stdout
        self._stopping = False
        self._running: dict[str, subprocess.Popen[str]] = {}

    def run(self) -> int:
        """Until a signal or the end of a process; 0 after a signal, 1 otherwise."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        for name, command in PROCESSES.items():
            self._running[name] = self._start(name, command)
        ended = None
        while not self._stopping and ended is None:
            time.sleep(0.2)
            ended = next((n for n, p in self._running.items() if p.poll() is not None), None)
        if ended is not None:
            self._say("run", f"{ended} ended by itself, stopping the rest")
        self._stop_all()
        return 0 if ended is None else 1

    def _start(self, name: str, command: list[str]) -> subprocess.Popen[str]:
        program = Path(sys.executable).with_name(command[0])
        process = subprocess.Popen(  # noqa: S603
            [str(program), *command[1:]],
            cwd=settings.BASE_DIR,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C reaches us alone, and we stop them in order
            preexec_fn=die_with_parent,  # noqa: PLW1509  (one prctl call, before any thread)
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        threading.Thread(target=self._pass_on, args=(name, process.stdout), daemon=True).start()
        return process

    def _pass_on(self, name: str, lines: IO[str]) -> None:
        for line in lines:
            self._say(name, line.rstrip())

    def _say(self, name: str, line: str) -> None:
        self._stdout.write(f"{name:>6} | {line}")
        self._stdout.flush()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True

    def _stop_all(self) -> None:
        self._say("run", "stopping")
        for process in self._running.values():
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + _STOP_SECONDS
        for process in self._running.values():
            try:
                process.wait(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
