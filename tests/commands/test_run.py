"""The whole site in the foreground, and all of it stopped again."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.error import URLError

import pytest
from django.core.management import CommandError, call_command

from recognition.management.commands import run
from shitu_site import embedded
from tests.processes import free_port

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def address() -> str:
    return f"127.0.0.1:{free_port()}"


def healthy(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/health", timeout=5) as answer:  # noqa: S310
            body = json.load(answer)
    except (URLError, ConnectionError, TimeoutError):
        return False
    return bool(body["database"] and body["broker"] and body["workers"])


def test_it_finds_the_python_of_the_project(tmp_path):
    manage = tmp_path / "manage.py"
    shutil.copy(ROOT / "manage.py", manage)
    assert os.access(manage, os.X_OK)

    def typed(*words: str) -> subprocess.CompletedProcess[str]:
        """With a Python that has no Django, as that of the system."""
        command = [sys.executable, "-S", manage, *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    ran = typed("check")
    assert (ran.returncode, ran.stderr.count("\n")) == (1, 1)
    assert "make setup" in ran.stderr
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$@"; exit 3\n')
    python.chmod(0o755)
    ran = typed("check", "--deploy")
    assert (ran.returncode, ran.stdout) == (3, f"{manage} check --deploy\n")


@pytest.mark.parametrize("host", ["127.0.0.1", ""])
def test_a_port_that_is_taken_is_said_before_anything_is_made(monkeypatch, host):
    monkeypatch.setattr(run.setup, "set_up", lambda say: pytest.fail("it began"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("SHITU_BIND", f"{host}:{taken.getsockname()[1]}")
        with pytest.raises(CommandError, match="Address already in use.*SHITU_BIND"):
            call_command("run")


def test_it_starts_answers_and_stops_on_ctrl_c(settings, starter_models, address, tmp_path):
    var, log = tmp_path / "var", tmp_path / "log"
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "shitu_site.settings",
        "SHITU_VAR_DIR": str(var),
        "SHITU_BIND": address,
    }
    environment.pop("SHITU_SECRET_KEY", None)
    with log.open("w") as out:
        site = subprocess.Popen(
            [sys.executable, "manage.py", "run", "--no-demo"],
            cwd=settings.BASE_DIR,
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 240
        while not healthy(address):
            assert site.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
        words = log.read_text()
        assert f"http://{address}/" in words
        assert len(re.findall(r"password: \S{12,}", words)) == 1
        assert "starter models" in words
        assert embedded.status(var).postgres is not None
    finally:
        site.send_signal(signal.SIGINT)
        code = site.wait(timeout=180)
    assert code == 0, log.read_text()
    after = embedded.status(var)
    assert (after.postgres, after.valkey) == (None, None)
    assert not healthy(address)
