"""For commands that need a worker: use the one that is there, or have one for a while."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings
from django.core.management.base import CommandError, OutputWrapper

from recognition.models import Worker

_START_SECONDS = 120


@contextmanager
def worker_running(stdout: OutputWrapper) -> Iterator[None]:
    """A worker answers inside the block: an existing one, else one started here and stopped after.

    Raises CommandError with the worker's last words when it does not start.
    """
    if Worker.objects.alive().exists():
        yield
        return
    log_path = settings.SHITU_VAR_DIR / "worker.log"
    stdout.write(f"no worker is running: starting one for this command (log: {log_path})")
    with log_path.open("ab") as log:
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, str(settings.BASE_DIR / "manage.py"), "worker"],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches the command first, which then stops the worker
            env={**os.environ, "SHITU_LOG_FORMAT": "console"},
        )
    try:
        _wait_until_ready(process, log_path)
        yield
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], log_path: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not Worker.objects.alive().filter(name__endswith=f":{process.pid}").exists():
        if process.poll() is not None or time.monotonic() > deadline:
            words = log_path.read_text(errors="replace").strip().splitlines()[-5:]
            raise CommandError("the worker did not start:\n" + "\n".join(words))
        time.sleep(0.1)
