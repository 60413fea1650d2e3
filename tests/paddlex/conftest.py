"""PaddleX's endpoints on a real socket, with a real worker behind them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import factories, processes
from tests.paddlex import record
from tests.paddlex.cases import RECORDED


@pytest.fixture(autouse=True)
def paddlex_settings(settings) -> Any:
    settings.SHITU_PADDLEX_TIMEOUT = 60.0
    settings.SHITU_PADDLEX_ID_MAP_LIMIT = 10_000
    settings.SHITU_PADDLEX_DEFAULT_CATALOGUE = ""
    settings.SHITU_PADDLEX_ANONYMOUS_USER = ""
    settings.SHITU_PADDLEX_STRICT_ERRORS = False
    settings.SHITU_PIPELINE_CONFIG = ""
    return settings


@pytest.fixture(scope="session")
def recorded() -> dict[str, Any]:
    """What PaddleX's serving app answered, by name of the case."""
    return json.loads((RECORDED / "serving.json").read_text(encoding="utf-8"))


@pytest.fixture
def files_url() -> Iterator[str]:
    """A server of the pictures."""
    with record.files() as url:
        yield url


@pytest.fixture
def someone(db):
    return factories.user("paddlex client")


@pytest.fixture
def token(someone) -> str:
    from recognition.services import tokens

    return tokens.create(someone, "test")[1]


@pytest.fixture
def serve(
    worker, token, starter_models, settings, tmp_path
) -> Iterator[Callable[..., httpx.Client]]:
    """`serve(SETTING="value")` starts gunicorn and a worker; a client of it that is signed in."""
    from recognition.services import feature_models

    feature_models.sync()
    running: list[subprocess.Popen[bytes]] = []

    def start(**environment: str) -> httpx.Client:
        port, log = processes.free_port(), tmp_path / "web.log"
        with log.open("ab") as out:
            process = subprocess.Popen(
                [
                    Path(sys.executable).with_name("gunicorn"),
                    "shitu_site.wsgi",
                    "--config",
                    "shitu_site/gunicorn.conf.py",
                ],
                cwd=settings.BASE_DIR,
                env=processes.environment(settings)
                | {"SHITU_BIND": f"127.0.0.1:{port}"}
                | environment,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        running.append(process)
        worker()
        made = httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            headers={"Authorization": f"Bearer {token}"},
            timeout=120,
        )
        deadline = time.monotonic() + 180
        while not _answers(made):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        return made

    yield start
    for process in running:
        process.terminate()
        process.wait()


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/shitu-infer").status_code == 405
    except httpx.ConnectError:
        return False


@pytest.fixture
def local(transactional_db, stub_engine, monkeypatch, settings, token) -> Iterator[httpx.Client]:
    """The site in this process, signed in; the stub networks answer as soon as a row commits."""
    from django.core.wsgi import get_wsgi_application
    from django.db import transaction

    from recognition import tasks

    settings.SHITU_FEATURE_MODEL = factories.feature_model().name
    settings.SHITU_DETECTOR = ""
    monkeypatch.setattr(
        tasks, "wake", lambda task, *args: transaction.on_commit(lambda: task(*args))
    )
    with httpx.Client(
        transport=httpx.WSGITransport(app=get_wsgi_application()),
        base_url="http://127.0.0.1",
        headers={"Authorization": f"Bearer {token}"},
    ) as client:
        yield client
