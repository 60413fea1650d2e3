"""So many requests a minute, for each token."""

from __future__ import annotations

import pytest

from recognition.services import rates


@pytest.fixture
def limited(settings, catalogue, nobody_counted):
    settings.SHITU_API_REQUESTS_PER_MINUTE = 3


def test_beyond_the_limit_it_says_when_to_come_back(limited, manager, url):
    assert [manager.get(url()).status_code for _ in range(4)] == [200, 200, 200, 429]
    refused = manager.get(url())
    assert 1 <= int(refused["Retry-After"]) <= 60
    error = refused.json()["error"]
    assert error["code"] == "limit_reached"
    assert "3 requests a minute and has sent 3" in error["message"]


def test_each_token_has_its_own_count(limited, with_token, catalogue, url):
    busy, idle = with_token(catalogue.owner), with_token(catalogue.owner)
    assert [busy.get(url()).status_code for _ in range(4)][-1] == 429
    assert idle.get(url()).status_code == 200


def test_what_is_public_is_not_counted(limited, client):
    assert {client.get("/api/schema/").status_code for _ in range(5)} == {200}


def test_no_limit_unless_there_is_one(manager, url, settings):
    settings.SHITU_API_REQUESTS_PER_MINUTE = 0
    assert {manager.get(url()).status_code for _ in range(5)} == {200}


def test_without_redis_everybody_goes_on(limited, manager, url, monkeypatch):
    def broken(*_):
        raise rates.redis.RedisError("down")

    monkeypatch.setattr(rates._redis(), "eval", broken)
    assert {manager.get(url()).status_code for _ in range(5)} == {200}
