"""Many pictures: asked about together, answered in order, never too many at once."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from recognition.client import ServerError, create_async_pipeline, create_pipeline
from recognition.errors import RecognitionError
from tests import factories


class _Slow(BaseHTTPRequestHandler):
    """Answers as soon as `together` have asked at a time, and counts how many wait."""

    protocol_version = "HTTP/1.1"
    lock, enough = threading.Lock(), threading.Event()
    now = most = total = 0
    fail_at, together = -1, 1

    def do_POST(self) -> None:
        kind = type(self)
        with kind.lock:
            kind.now, kind.total = kind.now + 1, kind.total + 1
            kind.most, number = max(kind.most, kind.now), kind.total
            if kind.now >= kind.together:
                kind.enough.set()
        self.rfile.read(int(self.headers["Content-Length"]))
        kind.enough.wait(30)
        time.sleep(0.02)
        with kind.lock:
            kind.now -= 1
        bad = number == kind.fail_at
        body = {"errorMsg": "no"} if bad else {"result": {"detectedObjects": []}}
        data = json.dumps(body).encode()
        self.send_response(400 if bad else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def slow():
    kind = type("Slow", (_Slow,), {"lock": threading.Lock(), "enough": threading.Event()})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        kind.url = f"http://127.0.0.1:{server.server_port}"
        yield kind
        server.shutdown()


@pytest.fixture
def folder(tmp_path):
    for number in range(60):
        (tmp_path / f"{number:03}.png").write_bytes(factories.png(0))
    return tmp_path


def test_results_come_in_order_with_a_bounded_number_in_flight(slow, folder):
    slow.together = 4
    with create_pipeline(slow.url, in_flight=8) as pipeline:
        names = [result["input_path"] for result in pipeline.predict(folder)]
    assert names == [str(folder / f"{number:03}.png") for number in range(60)]
    assert 4 <= slow.most <= 8


def test_nothing_is_asked_that_nobody_wants(slow, folder):
    with create_pipeline(slow.url, in_flight=4) as pipeline:
        results = pipeline.predict(folder)
        assert slow.total == 0
        next(results)
        time.sleep(0.3)
        assert slow.total <= 8  # what the caller does not take is not asked for
        results.close()
        time.sleep(0.1)
        assert slow.total <= 8


def test_one_bad_picture_is_named_and_may_be_skipped(slow, folder, capsys):
    slow.fail_at = 3
    with create_pipeline(slow.url, in_flight=1) as pipeline:
        got = []
        with pytest.raises(ServerError, match="002.png: no"):
            got += [result["input_path"] for result in pipeline.predict(folder)]
        slow.total = 0
        assert len(list(pipeline.predict(folder, on_error="skip"))) == 59
    assert "002.png" in capsys.readouterr().err


def test_inputs_that_cannot_be_read_take_no_answer_along(slow, folder, tmp_path, capsys):
    first = str(folder / "000.png")
    for bad, why in (
        (tmp_path / "missing.jpg", "missing.jpg"),
        (5, "int is no picture"),
        ("http://127.0.0.1:9/a.jpg", "127.0.0.1:9/a.jpg cannot be fetched"),
    ):
        with create_pipeline(slow.url) as pipeline:
            results = pipeline.predict([first, bad, first])
            assert next(results)["input_path"] == first
            with pytest.raises((RecognitionError, OSError), match=why):
                next(results)
            kept = list(pipeline.predict([first, bad, first], on_error="skip"))
        assert [result["input_path"] for result in kept] == [first, first]
        assert why in capsys.readouterr().err


def test_the_asynchronous_pipeline_does_the_same(slow, folder):
    async def run() -> list[str]:
        async with create_async_pipeline(slow.url, in_flight=8) as pipeline:
            return [result["input_path"] async for result in pipeline.predict(folder)]

    assert asyncio.run(run()) == [str(folder / f"{number:03}.png") for number in range(60)]
    assert slow.most <= 8
