"""Real processes for tests: workers on the test database."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from django.db import connection


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
        deadline = time.monotonic() + 90
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
