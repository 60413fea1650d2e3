"""Against a real server on this machine that knows ranges and can be told to misbehave."""

from __future__ import annotations

import io
import tarfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from recognition.engine import download as download_module
from recognition.engine.download import download
from recognition.errors import BadInput, ModelUnavailable, TooLarge


class Mirror(ThreadingHTTPServer):
    content = b""
    etag = '"first"'
    break_after: int | None = None  # bytes after which the next answer stops

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/PP-ShiTuV2_rec_infer.tar"


class Answer(BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        mirror = self.server
        if self.path != "/PP-ShiTuV2_rec_infer.tar":
            self.send_error(404)
            return
        start = 0
        if (wanted := self.headers.get("Range")) and self.headers.get("If-Range") == mirror.etag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            self.send_response(206)
        else:
            self.send_response(200)
        self.send_header("ETag", mirror.etag)
        self.send_header("Content-Length", str(len(mirror.content) - start))
        self.end_headers()
        mirror.starts.append(start)
        body = mirror.content[start:]
        if mirror.break_after is not None:
            body, mirror.break_after = body[: mirror.break_after], None
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def mirror():
    server = Mirror(("127.0.0.1", 0), Answer)
    server.starts = []
    server.content = bytes(range(256)) * 4096
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def get(mirror, tmp_path, **options):
    return download(mirror.url, tmp_path / "file", max_bytes=2**24, **options).read_bytes()


def test_it_downloads_and_tells_how_far_it_is(mirror, tmp_path):
    told = []
    assert get(mirror, tmp_path, progress=lambda *pair: told.append(pair)) == mirror.content
    assert told[-1] == (2**20, 2**20)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_broken_transfer_goes_on_where_it_ended(mirror, tmp_path):
    mirror.break_after = 300_000
    assert get(mirror, tmp_path) == mirror.content
    assert mirror.starts[0] == 0 < mirror.starts[1] <= 300_000


def test_so_does_one_of_an_earlier_call(mirror, tmp_path, monkeypatch):
    monkeypatch.setattr(download_module, "ATTEMPTS", 1)
    mirror.break_after = 300_000
    with pytest.raises(ModelUnavailable, match="cannot be had"):
        get(mirror, tmp_path)
    assert get(mirror, tmp_path) == mirror.content
    assert mirror.starts[1] > 0


def test_but_never_with_the_rest_of_another_file(mirror, tmp_path, monkeypatch):
    monkeypatch.setattr(download_module, "ATTEMPTS", 1)
    mirror.break_after = 300_000
    with pytest.raises(ModelUnavailable):
        get(mirror, tmp_path)
    mirror.content, mirror.etag = mirror.content[::-1], '"second"'
    assert get(mirror, tmp_path) == mirror.content
    assert mirror.starts[1] == 0


def test_a_file_that_is_too_large_is_refused(mirror, tmp_path):
    with pytest.raises(TooLarge):
        download(mirror.url, tmp_path / "file", max_bytes=1000)
    assert not (tmp_path / "file").exists()


def test_what_the_server_does_not_have_is_an_error(mirror, tmp_path):
    with pytest.raises(ModelUnavailable, match="the server answered 404. Carry it"):
        download(mirror.url + "x", tmp_path / "f", max_bytes=1000, otherwise="Carry it by hand.")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x", "no address"])
def test_only_http_is_fetched(tmp_path, url):
    with pytest.raises(BadInput):
        download(url, tmp_path / "f", max_bytes=1000)


def test_no_network_is_an_error_in_seconds_with_the_ways_out(store):
    started = time.perf_counter()
    with pytest.raises(ModelUnavailable, match="--from FILE.tar"):
        store.fetch("PP-ShiTuV2_rec", url="http://127.0.0.1:9/x.tar")
    assert time.perf_counter() - started < 30


def test_a_fetched_model_is_installed_and_not_fetched_again(mirror, store, exported):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        tar.add(exported(), "PP-ShiTuV2_rec_infer")
    mirror.content = content.getvalue()
    model = store.fetch("PP-ShiTuV2_rec", url=mirror.url)
    assert model.origin["url"] == mirror.url
    assert store.fetch("PP-ShiTuV2_rec") == model
    assert len(mirror.starts) == 1
    assert not list((store.root / ".downloads").iterdir())


def test_only_official_models_can_be_fetched(store):
    with pytest.raises(BadInput, match="known: PP-ShiTuV2_det"):
        store.fetch("bottles")
    with pytest.raises(BadInput, match="build-starter"):
        store.fetch("starter_rec")
