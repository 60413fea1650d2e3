"""Commands with the stub engine: what a worker would do is done where the command waits."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from tests.factories import png


@pytest.fixture
def own_worker(stub_engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for a worker is the worker."""
    from recognition.management import progress
    from recognition.management.commands import evaluate, predict
    from recognition.models import Catalogue
    from recognition.services import answering, bell, indexing

    for module in (progress, predict, evaluate):
        monkeypatch.setattr(module, "worker_running", lambda stdout: nullcontext())
    monkeypatch.setattr(bell, "listen", lambda key, deadline: answering.answer_waiting())

    def embed(seconds: float) -> None:
        for catalogue_id in Catalogue.objects.values_list("pk", flat=True):
            indexing.embed_waiting(catalogue_id)

    monkeypatch.setattr(progress.time, "sleep", embed)


@pytest.fixture
def run(db) -> Callable[..., tuple[int, str, str]]:
    """`run("command", ...)` is its exit code, what it said, and what it complained about."""

    def command(name: str, *arguments: object, **options: object) -> tuple[int, str, str]:
        out, err = StringIO(), StringIO()
        try:
            call_command(name, *map(str, arguments), stdout=out, stderr=err, **options)
        except CommandError as error:
            return error.returncode, out.getvalue(), err.getvalue() + str(error)
        return 0, out.getvalue(), err.getvalue()

    return command


@pytest.fixture
def boss(db):
    """The first superuser, who owns what nobody is named for."""
    from tests import factories

    return factories.user("boss", is_superuser=True)


@pytest.fixture
def shop(tmp_path):
    """A folder with a gallery list: three pictures of two products."""
    folder = tmp_path / "shop"
    folder.mkdir()
    for number in (1, 2, 3):
        (folder / f"{number}.png").write_bytes(png(number))
    (folder / "gallery.txt").write_text("1.png tea\n2.png tea\n3.png\tgreen coffee\n")
    return folder
