"""Is it up?"""

from __future__ import annotations

import pytest
from django.db import DatabaseError
from django.utils import timezone

from recognition.models import Worker


def _worker() -> None:
    now = timezone.now()
    Worker.objects.create(
        name="w", device="cpu", queues="live", batch_size=1, started_at=now, seen_at=now
    )


@pytest.mark.django_db
def test_healthy_as_paddlex_says_it(client):
    _worker()
    response = client.get("/health")
    body = response.json()
    assert response.status_code == 200
    assert (body["errorCode"], body["errorMsg"]) == (0, "Healthy")
    assert body["logId"]
    assert (body["database"], body["broker"], body["workers"]) == (True, True, True)
    assert set(body) == {"logId", "errorCode", "errorMsg", "database", "broker", "workers"}


@pytest.mark.django_db
def test_without_a_worker_it_is_up_and_says_so(client):
    response = client.get("/health")
    assert (response.status_code, response.json()["workers"]) == (200, False)


@pytest.mark.django_db
def test_without_a_broker(client, settings):
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    response = client.get("/health")
    assert response.status_code == 503
    assert response.json()["errorCode"] == 503
    assert response.json()["broker"] is False


@pytest.mark.django_db
def test_without_a_database_and_without_telling_why(client, monkeypatch):
    def refuse() -> None:
        raise DatabaseError("connection to 10.0.0.7 refused")

    monkeypatch.setattr(Worker.objects, "alive", refuse)
    monkeypatch.setattr("recognition.api.health.connection.close", lambda: None)
    response = client.get("/health")
    assert response.status_code == 503
    assert response.json()["database"] is False
    assert "10.0.0.7" not in response.content.decode()


@pytest.mark.django_db
def test_nobody_writes_to_it(client):
    assert client.post("/health").status_code == 405
