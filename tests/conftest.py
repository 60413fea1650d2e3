"""What every test may ask for. Real PostgreSQL and Valkey, in a directory of the tests' own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

# A busy machine is no reason to fail.
hypothesis.settings.register_profile("shitu", deadline=None)
hypothesis.settings.load_profile("shitu")


@pytest.fixture(autouse=True)
def media(settings, tmp_path: Path) -> Path:
    """Uploads go to a directory that goes with the test; pages need no collected static files."""
    settings.MEDIA_ROOT = tmp_path / "media"
    settings.STORAGES = settings.STORAGES | {
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    }
    return settings.MEDIA_ROOT


@pytest.fixture
def stub_engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Answers come from the small deterministic stub networks, in this process."""
    from recognition.engine.stub import stub_runtime
    from recognition.services import answering, indexing

    runtime = stub_runtime()
    monkeypatch.setattr(indexing, "get_runtime", lambda: runtime)
    monkeypatch.setattr(answering, "get_runtime", lambda: runtime)
    yield


@pytest.fixture
def run_tasks(monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks):
    """A context in which wake-ups run at once, in this process, when the block ends."""
    from recognition import tasks
    from recognition.services import jobs

    def at_once(task, *args) -> None:
        from django.db import transaction

        transaction.on_commit(lambda: task(*args))

    monkeypatch.setattr(tasks, "wake", at_once)
    monkeypatch.setattr(jobs, "run_in_background", jobs.run)
    return lambda: django_capture_on_commit_callbacks(execute=True)


@pytest.fixture(autouse=True)
def nobody_has_knocked() -> None:
    """No wake-up of an earlier test stands for one of this test."""
    from recognition.services import bell

    bell.knock_taken()


@pytest.fixture(autouse=True)
def nobody_was_invited() -> None:
    """No invitation of another test counts towards the limits an hour."""
    from recognition.services import rates

    for key in rates._redis().scan_iter("shitu:invitations:*"):
        rates._redis().delete(key)


@pytest.fixture(autouse=True)
def in_english() -> Iterator[None]:
    """The language of a test's last request ends with it, as a thread's does with its next one."""
    yield
    from django.utils import translation

    translation.deactivate()


@pytest.fixture
def user(db):
    from tests import factories

    return factories.user("ann")


@pytest.fixture
def catalogue(db, user):
    """An empty catalogue of `user`, for logic: its feature model is the stub."""
    from tests import factories

    return factories.catalogue(owner=user)


@pytest.fixture
def tea(catalogue, stub_engine, run_tasks):
    """A product of `catalogue` with one picture, number 1 of `factories.picture`, embedded."""
    from tests import factories

    with run_tasks():
        return factories.add(catalogue, "tea", 1).product


@pytest.fixture
def coffee(catalogue):
    """A product of `catalogue` without pictures."""
    from recognition.services import products

    return products.create(catalogue, "coffee")


@pytest.fixture
def ask(catalogue, stub_engine, run_tasks) -> Callable:
    """`ask(seed, ...)` submits a picture and returns the query, answered."""
    from recognition.services import queries
    from tests import factories

    def answered(seed: int, of=catalogue, **options):
        picture, wanted = factories.picture(seed), queries.Options(**options)
        with run_tasks():
            query = queries.submit(of, picture, by=None, options=wanted)
        query.refresh_from_db()
        return query

    return answered


@pytest.fixture
def api() -> Callable:
    """`api(user)` is a client signed in as that user; `api()` is nobody."""
    from rest_framework.test import APIClient

    def client(user=None) -> APIClient:
        made = APIClient()
        if user is not None:
            made.force_authenticate(user)
        return made

    return client


@pytest.fixture(scope="session")
def starter_models():
    """The starter models, built at first use."""
    from django.conf import settings

    from recognition.engine.starter import build_starter
    from recognition.engine.store import ModelStore

    store = ModelStore(settings.SHITU_MODELS_DIR)
    build_starter(store)
    return store


@pytest.fixture
def worker(transactional_db, settings, starter_models, tmp_path: Path):
    """Starts real worker processes on the test database, broker and files; stops them afterwards.

    `worker()` returns the process once it takes work.
    """
    from tests.processes import Workers

    workers = Workers(settings, tmp_path / "worker.log")
    yield workers.start
    workers.stop()


@pytest.fixture
def starter_catalogue(transactional_db, starter_models):
    """`starter_catalogue(...)` makes a catalogue that runs the starter models."""
    from recognition.services import catalogues, feature_models
    from tests import factories

    feature_models.sync()

    def make(name: str = "real", **options):
        return catalogues.create(name, owner=factories.user(f"owner of {name}"), **options)

    return make


@pytest.fixture
def nobody_counted() -> Iterator[None]:
    """No request of another test counts towards the limit a minute, and none of this one later."""
    from recognition.services import rates

    def forget() -> None:
        for key in rates._redis().scan_iter("shitu:requests:*"):
            rates._redis().delete(key)

    forget()
    yield
    forget()
