"""When the site starts servers of its own, and the command that does it by hand."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
import redis

from shitu_site import embedded

PROJECT = Path(__file__).resolve().parents[2]

SETTINGS = """
import json
from django.conf import settings
from django.core.cache import cache
from django.db import connection
from kombu import Connection
with connection.cursor() as cursor:
    cursor.execute("SELECT inet_server_addr(), current_setting('data_directory')")
    _, data = cursor.fetchone()
    cursor.execute("SHOW jit")
    [jit] = cursor.fetchone()
cache.set("tea", "green")
with Connection(settings.CELERY_BROKER_URL) as broker:
    broker.ensure_connection(max_retries=1, timeout=5)
    broker.default_channel.client.ping()
print(json.dumps({"data": data, "redis": settings.REDIS_URL, "jit": jit}))
"""


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("DATABASE_URL", "REDIS_URL")}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=PROJECT,
        env={**kept, "DJANGO_SETTINGS_MODULE": "shitu_site.settings", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def site(var: Path, **environment: str) -> dict[str, str]:
    """What a process of the site is connected to with these variables set."""
    done = python("-c", SETTINGS, SHITU_VAR_DIR=str(var), **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def var(tmp_path: Path) -> Path:
    return tmp_path / "var"


@pytest.fixture
def others(tmp_path: Path) -> Iterator[embedded.Services]:
    """Servers that are not the site's own, reached by URL."""
    yield embedded.acquire(tmp_path / "others")
    embedded.release(tmp_path / "others")


def test_with_nothing_set_the_site_runs_both_and_stops_them(var):
    seen = site(var)
    assert seen["data"] == str(var / "postgres/data")
    assert seen["redis"] == f"unix://{var}/run/sockets/valkey.sock"
    assert seen["jit"] == "off"
    now = embedded.status(var)
    assert (now.postgres, now.valkey) == (None, None)


def test_with_both_set_nothing_of_its_own_starts(var, others, tmp_path):
    seen = site(var, DATABASE_URL=others.database_url, REDIS_URL=others.redis_url)
    assert seen["data"] == str(tmp_path / "others/postgres/data")
    assert seen["redis"] == others.redis_url
    for name in ("run", "postgres", "valkey"):
        assert not (var / name).exists()


def test_with_one_set_the_other_starts(var, others, tmp_path):
    seen = site(var, DATABASE_URL=others.database_url)
    assert seen["data"] == str(tmp_path / "others/postgres/data")
    assert seen["redis"] == f"unix://{var}/run/sockets/valkey.sock"
    assert not (var / "postgres").exists()

    seen = site(var, REDIS_URL=others.redis_url)
    assert seen["data"] == str(var / "postgres/data")
    assert seen["redis"] == others.redis_url


KEY = "from django.conf import settings; print(settings.SECRET_KEY)"


def test_processes_that_start_together_sign_with_one_secret(var):
    elsewhere = {
        "DATABASE_URL": "postgres://nobody@nowhere/x",
        "REDIS_URL": "redis://nowhere",
        "SHITU_SECRET_KEY": "",
    }
    with ThreadPoolExecutor() as pool:
        started = list(
            pool.map(lambda _: python("-c", KEY, SHITU_VAR_DIR=str(var), **elsewhere), range(3))
        )
    assert len({done.stdout for done in started}) == 1, started
    assert len(started[0].stdout.strip()) >= 50
    assert (var / "secret_key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in var.iterdir()] == ["secret_key"]

    (var / "secret_key").write_text("")  # of a full disk
    done = python("-c", KEY, SHITU_VAR_DIR=str(var), **elsewhere)
    assert "secret_key is empty: remove it" in done.stderr


# --- python -m shitu_site.embedded ----------------------------------------------------------------


def by_hand(verb: str, var: Path) -> subprocess.CompletedProcess[str]:
    return python("-m", "shitu_site.embedded", verb, f"--var={var}")


def addresses(text: str) -> dict[str, str]:
    return dict(re.findall(r"^export (\w+)='(.*)'$", text, re.MULTILINE))


def test_start_leaves_them_running_until_stop(var):
    assert by_hand("status", var).returncode == 3
    started = by_hand("start", var)
    assert started.returncode == 0, started.stderr
    told = addresses(started.stdout)
    with psycopg.connect(told["DATABASE_URL"]) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert redis.from_url(told["REDIS_URL"]).ping()
    running = by_hand("status", var)
    assert running.returncode == 0
    assert "held by start" in running.stdout

    embedded.acquire(var)
    busy = by_hand("stop", var)
    assert busy.returncode == 1
    assert f"is still used by process {os.getpid()}" in busy.stderr
    embedded.release(var)
    assert by_hand("status", var).returncode == 3  # no longer held, so the last owner stopped them


def test_stop_stops_what_start_started(var):
    by_hand("start", var)
    assert by_hand("stop", var).returncode == 0
    assert by_hand("status", var).returncode == 3


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_run_keeps_them_until_it_is_told_to_end(var, how):
    with subprocess.Popen(
        [sys.executable, "-m", "shitu_site.embedded", "run", f"--var={var}"],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        told = addresses(process.stdout.readline() + process.stdout.readline())
        assert redis.from_url(told["REDIS_URL"]).ping()
        process.send_signal(how)
        assert process.wait(120) == 0
    now = embedded.status(var)
    assert (now.postgres, now.valkey) == (None, None)


def test_it_is_about_the_directory_of_the_site(tmp_path, monkeypatch, capsys):
    from shitu_site.embedded import __main__ as command

    monkeypatch.setenv("SHITU_VAR_DIR", str(tmp_path / "named"))
    assert command.main(["status"]) == 3
    assert f"directory: {tmp_path / 'named'}\n" in capsys.readouterr().out
    monkeypatch.delenv("SHITU_VAR_DIR")
    monkeypatch.setattr(command, "_PROJECT", tmp_path)
    assert command.default_var() == tmp_path / "var"
    (tmp_path / ".env").write_text(f"SHITU_VAR_DIR={tmp_path}/in_file\n")
    assert command.default_var() == tmp_path / "in_file"
