"""What the client does when the server says no, or nothing."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
from PIL import Image

from recognition.client import (
    ServerError,
    asynchronous,
    create_async_pipeline,
    create_pipeline,
    transport,
)
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


def test_that_nobody_is_there_is_said_once(waits, capsys):
    refused = httpx.ConnectError("refused")
    assert ask(refused, refused, httpx.ReadError("reset"), OK) == {"n": 1}
    assert (
        capsys.readouterr().err == "http://host cannot be reached (refused); trying for a minute\n"
    )


def building(handle, pictures: int = 1) -> None:
    """Build an index of pictures on a server that answers as `handle` says."""

    async def run() -> None:
        async with create_async_pipeline("http://host") as pipeline:
            pipeline.transport._http = httpx.AsyncClient(
                transport=httpx.MockTransport(handle), base_url="http://host"
            )
            images = [Image.new("RGB", (8, 8), (number, 0, 0)) for number in range(pictures)]
            await pipeline.build_index(images, ["tea"] * pictures)

    asyncio.run(run())


def test_without_a_token_nothing_goes_up_where_the_site_wants_one():
    sent: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        sent.append(request.method)
        return httpx.Response(401, json={"error": {"message": "no credentials"}})

    with pytest.raises(ServerError, match="manage.py create_token") as raised:
        building(handle)
    assert raised.value.status == 401
    assert sent == ["GET"]


def test_what_cannot_be_taken_back_does_not_hide_why():
    def handle(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            return httpx.Response(200, json={"result": {"indexKey": "k1", "ids": [0]}})
        if request.url.path == "/api/v1/catalogues":
            return httpx.Response(200, json={"results": []})
        why = "gone" if request.method == "DELETE" else "no figures"
        return httpx.Response(500, json={"error": {"message": why}})

    with pytest.raises(ServerError, match="no figures") as raised:
        building(handle)
    [note] = raised.value.__notes__
    assert "the index k1 is left on the server" in note and note.endswith("gone")


def test_it_asks_about_its_own_pictures_a_page_at_a_time(waits, monkeypatch):
    monkeypatch.setattr(asynchronous, "_PAGE", 2)
    looked: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            return httpx.Response(200, json={"result": {"indexKey": "k", "ids": [0, 1, 2, 7, 7]}})
        if "number" not in request.url.params:
            return httpx.Response(200, json={"results": []})
        looked.append(request.url.params["number"])
        busy = [{"number": 0, "state": "running", "error": ""}] if len(looked) == 1 else []
        bad = [{"number": 7, "state": "failed", "error": "damaged"}] if len(looked) == 3 else []
        return httpx.Response(200, json={"results": busy + bad})

    with pytest.raises(ServerError, match=r"1 pictures could not be embedded \(id 7: damaged\)"):
        building(handle, pictures=5)
    assert looked == ["0,1", "0,2", "7"]
    assert waits == [0.2]


def test_what_the_server_decides_is_taken_with_a_warning():
    with pytest.warns(UserWarning, match="SHITU_DEVICE") as warned:
        create_pipeline(pipeline="http://host", device="gpu:0", use_hpip=None).close()
    assert [one.filename for one in warned] == [__file__]
    with pytest.warns(UserWarning, match="pipeline_config"):
        asyncio.run(create_async_pipeline("http://host", config={}).close())
    with pytest.raises(TypeError, match="devices"):
        create_pipeline("http://host", devices="gpu:0")


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
