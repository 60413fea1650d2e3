"""The whole site in the foreground, and all of it stopped again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from urllib.error import URLError

import pytest

from shitu_site import embedded
from tests.processes import free_port


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
