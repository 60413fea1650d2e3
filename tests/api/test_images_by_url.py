"""Images added by URL: a worker fetches them, line by line, through the guard."""

from __future__ import annotations

import base64
import csv
import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from django.core.files.storage import default_storage
from django.utils import translation

from recognition.models import Action, AuditEntry, GalleryImage, Job, JobLine
from recognition.services import jobs, quotas
from tests import factories


class Shop(BaseHTTPRequestHandler):
    """`/3.png` is a picture, the other paths are what a shop may answer instead."""

    asked: list[str]
    closed: set[str]
    gate: threading.Event

    def do_GET(self) -> None:
        self.asked.append(self.path)
        what, _, rest = self.path[1:].partition("?")
        with suppress(BrokenPipeError, ConnectionResetError):  # it has seen enough
            if what == "to":
                self._answer(b"", 302, Location=rest)
            elif what == "page":
                self._answer(b"<html>", kind="text/html")
            elif what == "huge":
                self._answer(bytes(100_000))
            elif what == "slow":
                self.gate.wait(120)
                self._answer(factories.png(1))
            elif what == "text.png":
                self._answer(b"no picture at all")
            elif self.path in self.closed:
                self._answer(b"", 503)
            else:
                self._answer(factories.png(int(what.removesuffix(".png"))))

    def _answer(self, body: bytes, status: int = 200, kind: str = "image/png", **more: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **more}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[tuple[str, type[Shop]]]:
    own = {"asked": [], "closed": set(), "gate": threading.Event()}
    kind = type("OneShop", (Shop,), own)
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", kind
    finally:
        kind.gate.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def shop(settings) -> Iterator[str]:
    """A server on this machine that the guard was told to let through, at its very port."""
    with serving() as (address, _):
        settings.SHITU_FETCH_ALLOW = [address.removeprefix("http://")]
        yield address


@pytest.fixture
def send(editor, url):
    return lambda *images, **more: editor.post(url("images"), {"images": images}, "json", **more)


@pytest.fixture
def add(send, editor, run_tasks, stub_engine):
    """Send, let the worker do it, and get the job with its lines."""

    def add(*images):
        with run_tasks():
            response = send(*images)
        assert response.status_code == 202, response.content
        job = editor.get(response["Location"]).json()
        return job, editor.get(job["lines"], {"limit": 200}).json()["results"]

    return add


def _base64(seed: int) -> str:
    return base64.b64encode(factories.png(seed)).decode()


def test_the_answer_is_a_job_and_nothing_is_fetched_while_the_caller_waits(
    send, editor, settings, catalogue
):
    with serving() as (address, server):
        settings.SHITU_FETCH_ALLOW = ["127.0.0.1"]
        response = send(*({"label": "tea", "url": f"{address}/{n}.png"} for n in range(3)))
        assert server.asked == []
    job = response.json()
    assert response.status_code == 202
    assert (job["kind"], job["state"], job["total"]) == ("import", "pending", 3)
    assert job["source_name"] == f"{address}/0.png (+2)"
    assert response["Location"] == job["url"]
    assert editor.get(job["url"]).json() == job
    assert editor.get(job["lines"]).json()["results"] == []
    assert not catalogue.images.exists()


def test_a_worker_fetches_adds_and_embeds_them(add, shop, catalogue):
    job, lines = add(
        {"label": "tea", "url": f"{shop}/1.png", "external_id": "front", "box": [4, 4, 40, 40]},
        {"label": "绿茶", "url": f"{shop}/2.png", "name": "back.png"},
    )
    assert (job["state"], job["done"], job["failed"]) == ("done", 2, 0)
    assert [(line["number"], line["result"]) for line in lines] == [(1, "ok"), (2, "ok")]
    assert lines[0]["text"] == f"{shop}/1.png\ttea"
    assert [line["image_state"] for line in lines] == ["done", "done"]
    tea, green = catalogue.images.order_by("number")
    assert (tea.external_id, tea.box, tea.box_source) == ("front", [4, 4, 40, 40], "given")
    assert (tea.source_name, green.source_name) == (f"{shop}/1.png"[:255], "back.png")
    assert green.product.label == "绿茶"
    with default_storage.open(tea.file.name) as file:
        assert file.read() == factories.png(1)


def test_every_refusal_is_a_line_with_its_reason(add, shop, settings, catalogue):
    settings.SHITU_MAX_IMAGE_BYTES = 50_000
    reasons = {
        "http://127.0.0.2/a.png": "no address on the public internet",
        "http://10.0.0.1/a.png": "no address on the public internet",
        "http://[::1]/a.png": "no address on the public internet",
        f"{shop}/to?http://169.254.169.254/latest/meta-data/": "no address on the public internet",
        f"{shop}/to?file:///etc/passwd": "only http and https",
        f"{shop}/page": "'text/html', not a picture",
        f"{shop}/huge": "more than 50,000 bytes",
        f"{shop}/text.png": "not a picture",
        "ftp://example.com/a.png": "only http and https",
        "http://user:secret@example.com/a.png": "user name or password",
        "not a url": "only http and https",
    }
    urls = list(reasons)
    job, lines = add(*({"label": "tea", "url": one} for one in urls))
    assert (job["state"], job["done"], job["failed"]) == ("done", 0, len(urls))
    assert [line["number"] for line in lines] == list(range(1, len(urls) + 1))
    for line, address in zip(lines, urls, strict=True):
        assert line["result"] == "error"
        assert reasons[address] in line["reason"], (address, line["reason"])
    assert not GalleryImage.objects.exists()


def test_what_is_refused_does_not_stop_the_others(add, shop, catalogue):
    job, lines = add(
        {"label": "tea", "url": f"{shop}/1.png"},
        {"label": "tea", "url": f"{shop}/1.png"},
        {"label": "tea", "url": f"{shop}/page"},
        {"label": "tea", "url": f"{shop}/2.png", "box": [100, 100, 200, 200]},
        {"label": "coffee", "url": f"{shop}/1.png"},
        {"label": "a\nb", "url": f"{shop}/3.png"},
    )
    assert [line["result"] for line in lines] == [
        "ok", "duplicate", "error", "error", "ok", "error",
    ]  # fmt: skip
    [first, coffee] = catalogue.images.order_by("number")
    assert f"(id {first.number})" in lines[1]["reason"]
    assert f"another product has it too (id {first.number})" in lines[4]["reason"]
    assert lines[4]["image"] == coffee.number
    assert (job["done"], job["failed"]) == (3, 3)


def test_the_thread_that_fetches_speaks_the_language_of_whoever_asked(send, shop):
    response = send({"label": "tea", "url": f"{shop}/page"}, headers={"Accept-Language": "zh-hans"})
    job = Job.objects.get(key=response.json()["key"])
    with translation.override("en"):
        jobs.run(job.pk)
    [reason] = job.lines.values_list("reason", flat=True)
    assert reason == "未获取该 URL：主机应答的是 'text/html'，而不是图片。请改为直接发送图片。"


def test_base64_beside_a_url_takes_its_turn_in_the_job(add, shop, catalogue):
    job, lines = add(
        {"label": "tea", "image": _base64(1), "external_id": "front", "name": "a.png"},
        {"label": "tea", "url": f"{shop}/2.png", "external_id": "front"},
        {"label": "tea", "image": "data:image/png;base64," + _base64(3)},
        {"label": "tea", "image": "not base64!"},
    )
    assert [line["result"] for line in lines] == ["ok", "ok", "ok", "error"]
    assert [line["text"] for line in lines][::2] == ["a.png\ttea", "base64\ttea"]
    assert lines[1]["reason"] == "it replaces the picture that had its id"
    assert "not valid base64" in lines[3]["reason"]
    assert catalogue.images.get(external_id="front").checksum == factories.picture(2).checksum
    assert catalogue.images.count() == 2


def test_pictures_in_base64_alone_are_answered_at_once(send, catalogue):
    response = send({"label": "tea", "image": _base64(1)})
    assert (response.status_code, response.json()["added"]) == (201, 1)
    assert not Job.objects.exists()


def test_one_external_id_twice_the_last_one_stays(add, shop, catalogue):
    _, lines = add(
        *({"label": "tea", "url": f"{shop}/{n}.png", "external_id": "a"} for n in (1, 2, 3))
    )
    assert [line["result"] for line in lines] == ["ok"] * 3
    assert catalogue.images.get().checksum == factories.picture(3).checksum


def test_only_the_failed_ones_are_fetched_again(editor, settings, run_tasks, stub_engine, send):
    with serving() as (address, server):
        settings.SHITU_FETCH_ALLOW = [address.removeprefix("http://")]
        server.closed.add("/2.png")
        with run_tasks():
            started = send(*({"label": "tea", "url": f"{address}/{n}.png"} for n in (1, 2, 3)))
        job = editor.get(started["Location"]).json()
        assert (job["state"], job["done"], job["failed"]) == ("done", 2, 1)
        server.closed.clear()
        server.asked.clear()
        with run_tasks():
            assert editor.post(f"{job['url']}/retry").json() == {"retried": 1}
        assert server.asked == ["/2.png"]
        job = editor.get(job["url"]).json()
        assert (job["state"], job["done"], job["failed"]) == ("done", 3, 0)
        numbers = [line["number"] for line in editor.get(job["lines"]).json()["results"]]
        assert numbers == [1, 2, 3]
    assert not Job.objects.get().file, "nothing is left to retry, so what was sent is forgotten"


@pytest.mark.django_db(transaction=True)
def test_cancelled_while_a_host_is_slow_it_ends_and_what_was_added_stays(
    send, editor, settings, monkeypatch
):
    from recognition.services.imports import runner

    settings.SHITU_LEASE_SECONDS = 1
    monkeypatch.setattr(runner, "CHUNK_PICTURES", 1)
    with serving() as (address, server):
        settings.SHITU_FETCH_ALLOW = [address.removeprefix("http://")]
        paths = ["1.png", "slow", *(f"{n}.png" for n in range(2, 40))]
        job = send(*({"label": "tea", "url": f"{address}/{path}"} for path in paths)).json()
        row = Job.objects.get()

        def run() -> None:
            from django.db import connection

            try:
                jobs.run(row.pk)
            finally:
                connection.close()

        thread = threading.Thread(target=run)
        thread.start()
        deadline = time.monotonic() + 60
        while not JobLine.objects.filter(job=row).exists():
            assert time.monotonic() < deadline
            thread.join(0.05)
        assert editor.post(f"{job['url']}/cancel").status_code == 200
        server.gate.set()
        thread.join(timeout=60)
        assert not thread.is_alive()
    row.refresh_from_db()
    assert (row.state, row.done) == ("failed", 1)
    assert "cancelled" in row.error and GalleryImage.objects.count() == 1


def test_stopped_in_the_middle_another_worker_goes_on(send, shop, monkeypatch, catalogue):
    from recognition.services.imports import runner

    monkeypatch.setattr(runner, "CHUNK_PICTURES", 2)
    send(*({"label": "tea", "url": f"{shop}/{n}.png"} for n in range(6)))
    job = Job.objects.get()

    def stop_after_the_first_chunk(seen: Job) -> None:
        if seen.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        jobs.run_here(job, stop_after_the_first_chunk)
    assert catalogue.images.count() == 2
    jobs.run(job.pk)
    job.refresh_from_db()
    assert (job.state, job.done, job.failed, job.total) == ("done", 6, 0, 6)
    assert list(job.lines.values_list("number", flat=True)) == [1, 2, 3, 4, 5, 6]
    assert catalogue.images.count() == 6


def test_thousands_in_one_call_and_no_more_than_the_limit(send, settings):
    settings.SHITU_MAX_UPLOAD_URLS = 3000
    many = [{"label": "tea", "url": f"https://shop.example/{n}.jpg"} for n in range(3001)]
    refused = send(*many)
    assert refused.status_code == 400
    assert "at most 3,000 URLs" in refused.json()["error"]["message"]
    assert "SHITU_MAX_UPLOAD_URLS" in refused.json()["error"]["message"]
    assert send(*many[:3000]).json()["total"] == 3000


def test_pictures_in_base64_have_their_own_limit(send, settings):
    settings.SHITU_MAX_UPLOAD_FILES = 2
    url = {"label": "tea", "url": "https://shop.example/1.jpg"}
    picture = {"label": "tea", "image": _base64(1)}
    assert send(url, *[picture] * 3).status_code == 400
    assert send(url, *[picture] * 2).status_code == 202


def test_sent_twice_under_one_key_it_is_one_job(send, shop):
    item = {"label": "tea", "url": f"{shop}/1.png"}
    first, again = (send(item, headers={"Idempotency-Key": "one"}) for _ in range(2))
    assert first.status_code == again.status_code == 202
    assert again.json() == first.json() and again["Location"] == first["Location"]
    assert again["Idempotent-Replayed"] == "true"
    assert Job.objects.count() == 1


def test_too_many_jobs_are_refused_and_nothing_is_kept(send, catalogue, media):
    quotas.change(catalogue, concurrent_jobs=1)
    item = {"label": "tea", "url": "https://shop.example/1.jpg"}
    assert send(item).status_code == 202
    before = [path for path in media.rglob("*") if path.is_file()]
    refused = send(item)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "limit_reached")
    assert [path for path in media.rglob("*") if path.is_file()] == before


def test_a_catalogue_that_is_full_ends_the_job_with_that_reason(add, shop, catalogue):
    quotas.change(catalogue, images=2)
    job, lines = add(*({"label": "tea", "url": f"{shop}/{n}.png"} for n in range(4)))
    assert job["state"] == "failed" and "may hold 2 images" in job["error"]
    assert [line["result"] for line in lines] == ["ok", "ok"]
    assert catalogue.images.count() == 2


def test_the_audit_log_says_who_started_it_and_what_came_of_it(add, shop):
    add({"label": "tea", "url": f"{shop}/1.png"}, {"label": "tea", "url": f"{shop}/page"})
    actions = [Action.JOB_START, Action.IMAGE_ADD, Action.JOB_END]
    started, ended = AuditEntry.objects.filter(action__in=actions).order_by("pk")
    assert (started.action, ended.action) == ("job.start", "job.end")
    assert started.user is not None and started.user == Job.objects.get().started_by
    assert (ended.count, ended.details["failed"]) == (1, 1)


def test_the_report_as_a_table(add, shop, editor):
    job, _ = add({"label": "tea", "url": f"{shop}/1.png"}, {"label": "tea", "url": f"{shop}/page"})
    text = b"".join(editor.get(job["report"]).streaming_content).decode()
    rows = list(csv.reader(io.StringIO(text)))
    assert [row[:2] for row in rows[1:]] == [["1", "ok"], ["2", "error"]]


def test_many_are_fetched_at_once_and_reported_in_order(add, shop):
    _, lines = add(*({"label": f"tea {n}", "url": f"{shop}/{n}.png"} for n in range(60)))
    assert [line["number"] for line in lines] == list(range(1, 61))
    assert {line["result"] for line in lines} == {"ok"}


@pytest.mark.worker
@pytest.mark.django_db(transaction=True)
def test_a_real_worker_fetches_and_embeds(worker, starter_catalogue, api, shop, monkeypatch):
    monkeypatch.setenv("SHITU_FETCH_ALLOW", shop.removeprefix("http://"))
    worker()
    catalogue = starter_catalogue()
    editor = api(catalogue.owner)
    images = [{"label": "tea", "url": f"{shop}/{path}"} for path in ("1.png", "page", "2.png")]
    started = editor.post(
        f"/api/v1/catalogues/{catalogue.key}/images", {"images": images}, format="json"
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        job = editor.get(started["Location"]).json()
        lines = editor.get(job["lines"]).json()["results"]
        if [line["image_state"] for line in lines] == ["done", None, "done"]:
            break
        time.sleep(0.1)
    assert [line["result"] for line in lines] == ["ok", "error", "ok"]
    assert (job["state"], job["done"], job["failed"]) == ("done", 2, 1)
