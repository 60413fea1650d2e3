"""A site of its own for a measurement: servers, web and workers in a directory that goes again."""

from __future__ import annotations

import atexit
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from bench.models import Pair

ROOT = Path(__file__).resolve().parent.parent
_START_SECONDS = 600  # PaddleX builds its indexes of 100,000 before it listens


def machine() -> dict[str, Any]:
    """What a figure was measured on, and how busy that was."""
    from recognition.services import tuning

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return tuning.machine() | {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory / 2**30, 1),
        "python": platform.python_version(),
        "system": platform.platform(),
        "load_average": [round(one, 2) for one in os.getloadavg()],
        "date": time.strftime("%Y-%m-%d %H:%M"),
    }


def own_site(pair: Pair) -> None:
    """Django in this process on a database, broker and files of its own, with these networks.

    The first thing of a program: it sets the environment that the settings are read from.
    """
    directory = Path(tempfile.mkdtemp(prefix="shitu-bench-"))
    # Registered before the servers', so it runs after them: they stop when the last one leaves.
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "shitu_site.settings",
        "SHITU_MODELS_DIR": str(pair.root),
        "SHITU_DETECTOR": pair.detector,
        "SHITU_FEATURE_MODEL": pair.embedder,
        "SHITU_VAR_DIR": str(directory),
        "SHITU_LOG_LEVEL": "WARNING",
    }
    for name in ("DATABASE_URL", "REDIS_URL", "SHITU_MEDIA_DIR"):
        os.environ.pop(name, None)
    import django

    django.setup()
    from django.core.management import call_command

    call_command("setup", stdout=sys.stderr)


def quantised(pair: Pair) -> Pair:
    """The int8 twins of a pair, made from the demo's pictures where they are not there yet; workers
    started after this serve them."""
    from django.conf import settings

    from recognition.engine.store import ModelStore
    from recognition.services import feature_models, quantising

    twins = pair.ours("int8")
    there = ModelStore(pair.root).names()
    for name, twin in ((pair.detector, twins.detector), (pair.embedder, twins.embedder)):
        if twin not in there:
            print(f"quantising {name}", file=sys.stderr)
            quantising.quantise(name)
    feature_models.sync()
    settings.SHITU_DETECTOR, settings.SHITU_FEATURE_MODEL = twins.detector, twins.embedder
    os.environ |= {"SHITU_DETECTOR": twins.detector, "SHITU_FEATURE_MODEL": twins.embedder}
    return twins


def tune() -> None:
    """What somebody who runs the site does once: measure which engine and how many threads are
    fastest here. Workers started after this follow it."""
    from django.core.management import call_command

    call_command("tune", seconds=0.5, stdout=sys.stderr)


def write(result: dict[str, Any], file: Path) -> None:
    """Keep the figures as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result, indent=2) + "\n")


@contextmanager
def process(command: Sequence[str | Path], log: Path, **environment: str) -> Iterator[Any]:
    """A program that runs inside the block; `log` gets what it says."""
    with log.open("ab") as out:
        started = subprocess.Popen(
            [str(part) for part in command],
            cwd=ROOT,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(30)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


@contextmanager
def workers(
    count: int = 1, *, cores: Sequence[int] | None = None, settle: float = 1.0, **env: str
) -> Iterator[None]:
    """Worker processes that are ready; `cores` are those they share out, all by default.

    `settle` seconds are left to Celery, which connects after the networks are loaded.
    """
    from django.conf import settings

    from recognition.models import Worker

    Worker.objects.all().delete()
    log = settings.SHITU_VAR_DIR / "worker.log"
    command = [sys.executable, "manage.py", "worker", "--processes", str(count)]
    if cores is not None:
        command = ["taskset", "--cpu-list", ",".join(map(str, cores)), *command]
    with process(command, log, **env) as running:
        _wait(lambda: Worker.objects.alive().count() == count, running, log)
        time.sleep(settle)
        yield


_PARTS = {
    "gunicorn": "web",
    "manage.py worker": "worker",
    "shitu_site beat": "beat",
    "postgres": "postgres",
    "valkey": "valkey",
    "redis": "valkey",
}


def cpu_seconds() -> dict[str, float]:
    """Processor seconds so far of each part of this site.

    On a machine that is busy with other things this still tells what an answer costs.
    """
    spent: dict[str, float] = dict.fromkeys(_PARTS.values(), 0.0)
    for part, one in running():
        with suppress(psutil.Error):  # it has ended
            times = one.cpu_times()
            spent[part] += times.user + times.system
    return spent


def running() -> Iterator[tuple[str, psutil.Process]]:
    """This site's processes: web, worker, beat, postgres, valkey."""
    from django.conf import settings

    ours = str(settings.SHITU_VAR_DIR)
    for one in psutil.process_iter():
        try:
            line = " ".join(one.cmdline())
            part = next((part for word, part in _PARTS.items() if word in line), None)
            if part is None or one.pid == os.getpid():
                continue
            if one.environ().get("SHITU_VAR_DIR") == ours or one.cwd().startswith(ours):
                yield part, one
        except psutil.Error:  # it has ended
            continue


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def web() -> Iterator[int]:
    """Our web server; yields its port."""
    from django.conf import settings

    port, log = free_port(), settings.SHITU_VAR_DIR / "web.log"
    gunicorn = Path(sys.executable).with_name("gunicorn")
    command = [gunicorn, "shitu_site.wsgi", "--config", "shitu_site/gunicorn.conf.py"]
    with process(command, log, SHITU_BIND=f"127.0.0.1:{port}") as running:
        wait_for_port(port, running, log)
        yield port


def wait_for_port(port: int, running: Any, log: Path) -> None:
    """Until somebody listens there; raises with the program's last words when it ends first."""

    def listening() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    _wait(listening, running, log)


def _wait(condition: Any, running: Any, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not condition():
        if running.poll() is not None or time.monotonic() > deadline:
            words = log.read_text(errors="replace").splitlines()[-8:]
            raise SystemExit("it did not start:\n" + "\n".join(words))
        time.sleep(0.1)
