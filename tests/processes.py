"""Several at work: real processes on the test database, and threads that wait for each other."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from secrets import randbelow
from threading import Event
from typing import TypeVar

from django.db import connection, transaction

Waited = TypeVar("Waited")


def environment(settings) -> dict[str, str]:
    """What a process needs to use the database, broker and files of the running test."""
    database = connection.settings_dict
    host = database["HOST"]
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "shitu_site.settings",
        "DATABASE_URL": f"postgres://{database['USER']}@:5432/{database['NAME']}?host={host}",
        "REDIS_URL": settings.REDIS_URL,
        "SHITU_MEDIA_DIR": str(settings.MEDIA_ROOT),
        "SHITU_LEASE_SECONDS": str(settings.SHITU_LEASE_SECONDS),
    }


def free_port() -> int:
    """A port of this machine for a server that is about to start.

    Below those that the system gives to outgoing connections: one of these could be gone again
    before the server has it.
    """
    while True:
        port = 20_000 + randbelow(10_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def until(happened: Callable[[], object], seconds: float = 60) -> None:
    """Look until it has; so long that a busy machine is no reason to fail."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"it did not come about within {seconds:g} s"
        time.sleep(0.02)


def somebody_waits() -> bool:
    """Whether a connection to the test's PostgreSQL waits for a lock."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)")
        return bool(cursor.fetchone()[0])


def behind(first: Callable[[], object], second: Callable[[], Waited]) -> Waited:
    """Do `second` while a transaction with `first` in it is open, which commits once `second` waits
    for it; returns what `second` does."""
    done = Event()

    def hold() -> None:
        try:
            with transaction.atomic():
                first()
                done.set()
                until(somebody_waits)
        finally:
            done.set()
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(hold)
        try:
            assert done.wait(60)
            return second()
        finally:
            held.result()


class Workers:
    def __init__(self, settings, log: Path) -> None:
        self._settings, self._log = settings, log
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        from recognition.models import Worker

        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "manage.py", "worker"],
                cwd=self._settings.BASE_DIR,
                env=environment(self._settings),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._processes.append(process)
        deadline = time.monotonic() + 180
        while not Worker.objects.filter(name__endswith=f":{process.pid}").exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the worker did not start:\n{self._log.read_text()}")
            time.sleep(0.1)
        return process

    def stop(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()
