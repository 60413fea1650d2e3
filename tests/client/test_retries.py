"""What the client does when the server says no, or nothing."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from recognition.client import ServerError, create_pipeline, transport
from recognition.client.transport import Transport
from recognition.errors import BadInput

OK = httpx.Response(200, json={"result": {"n": 1}})


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """Seconds slept instead of sleeping them."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(transport.asyncio, "sleep", sleep)
    return slept


def ask(*answers: httpx.Response | Exception, again: bool = True):
    """What `paddlex("x", {})` gives when the server answers like that; `ask.left` were not used."""
    left = list(answers)

    def handle(request: httpx.Request) -> httpx.Response:
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def run():
        made = Transport("http://host", "t", timeout=5, connections=1)
        made._http = httpx.AsyncClient(
            transport=httpx.MockTransport(handle), base_url=made.base, headers=made._http.headers
        )
        try:
            return await made.paddlex("x", {}, again=again)
        finally:
            await made.close()

    try:
        return asyncio.run(run())
    finally:
        ask.left = len(left)  # type: ignore[attr-defined]


def busy(status: int = 503, **headers: str) -> httpx.Response:
    return httpx.Response(status, headers=headers, json={"errorMsg": "busy"})


def test_a_busy_server_is_asked_again_when_it_says(waits):
    assert ask(busy(429, **{"Retry-After": "3"}), busy(**{"Retry-After": "1"}), OK) == {"n": 1}
    assert 3 <= waits[0] <= 3.5 and 1 <= waits[1] <= 1.5


def test_retry_after_may_be_a_date(waits):
    begun = datetime.now(UTC)
    soon = format_datetime(begun + timedelta(seconds=20), usegmt=True)  # in whole seconds
    assert ask(busy(**{"Retry-After": soon}), OK) == {"n": 1}
    took = (datetime.now(UTC) - begun).total_seconds()
    assert 19 - took <= waits[0] <= 20.5


def test_otherwise_it_waits_longer_each_time(waits):
    assert ask(*[busy(**{"Retry-After": "soon"})] * 7, OK) == {"n": 1}
    for number, seconds in enumerate(waits):
        longest = min(30, 0.5 * 2**number)
        assert longest / 2 <= seconds <= longest


def test_in_the_end_the_server_s_words_are_raised(waits):
    with pytest.raises(ServerError, match="busy") as raised:
        ask(*[busy()] * 8, OK)
    assert raised.value.status == 503
    assert ask.left == 1


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422, 500, 504])
def test_a_mistake_is_not_repeated(waits, status):
    answer = httpx.Response(status, json={"logId": "4711", "errorMsg": "why"})
    with pytest.raises(ServerError, match="why") as raised:
        ask(answer, OK)
    assert (raised.value.status, raised.value.log_id, ask.left) == (status, "4711", 1)


def test_the_native_api_s_words_are_understood_too(waits):
    answer = httpx.Response(404, json={"error": {"message": "gone", "request_id": "r"}})
    with pytest.raises(ServerError, match="gone"):
        ask(answer)
    with pytest.raises(ServerError, match="Bad Gateway"):
        ask(httpx.Response(502, text="<html>"))


@pytest.mark.parametrize(
    ("fault", "again", "asked"),
    [
        (httpx.ConnectError("refused"), False, 2),  # it never went out
        (httpx.ReadError("reset"), True, 2),
        (httpx.ReadError("reset"), False, 1),  # it may have been done
        (httpx.ReadTimeout("slow"), True, 1),
    ],
)
def test_a_broken_connection_is_tried_again_where_that_does_no_harm(waits, fault, again, asked):
    if asked == 2:
        assert ask(fault, OK, again=again) == {"n": 1}
    else:
        with pytest.raises(ServerError):
            ask(fault, OK, again=again)
    assert ask.left == 2 - asked


@pytest.mark.parametrize(
    ("url", "base", "header"),
    [
        ("http://host:8000/", "http://host:8000", None),
        ("http://host:8000/paddlex/abc", "http://host:8000", "Bearer abc"),
        ("https://host/shop/paddlex/ab/", "https://host/shop", "Bearer ab"),
    ],
)
def test_the_token_may_be_in_the_address(url, base, header):
    made = Transport(url, None, timeout=1, connections=1)
    assert made.base == base
    assert made._http.headers.get("Authorization") == header


def test_what_is_no_address_is_said():
    for url in ("PP-ShiTuV2", "PP-ShiTuV2.yaml", "ftp://host"):
        with pytest.raises(BadInput, match="http://host:port"):
            create_pipeline(url)
