"""Questions: asked in every way, answered, waited for, found again, drawn."""

from __future__ import annotations

import base64
import io
import json
import threading
import time

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from PIL import Image

from recognition import fetch
from recognition.models import RecognitionQuery
from recognition.services import answering, bell, products, queries
from tests import factories


def _base64(seed: int) -> str:
    return base64.b64encode(factories.png(seed)).decode()


@pytest.fixture
def tea(catalogue, stub_engine, run_tasks):
    """The catalogue knows one product; its image."""
    with run_tasks():
        return factories.add(catalogue, "tea", 1)


@pytest.fixture
def ask(viewer, url, run_tasks):
    def post(query: str = "", **body):
        with run_tasks():
            return viewer.post(url("recognitions") + query, body, format="json")

    return post


def test_a_file_is_asked_about_and_its_address_polled(viewer, url, tea, run_tasks):
    file = SimpleUploadedFile("shelf.png", factories.png(1))
    with run_tasks():
        asked = viewer.post(url("recognitions"), {"image": file, "top_k": "3"}, format="multipart")
    assert asked.status_code == 202, asked.content
    assert (asked.json()["state"], asked.json()["detections"]) == ("pending", [])
    answer = viewer.get(asked["Location"]).json()
    assert (answer["state"], answer["source_name"], answer["top_k"]) == ("done", "shelf.png", 3)
    [detection] = answer["detections"]
    assert detection["status"] == "match"
    assert detection["box"] == [0, 0, 64, 48] and detection["det_score"] == 0
    [match] = detection["matches"]
    assert (match["label"], match["product"]) == ("tea", tea.product_id)
    assert match["image"] == tea.number
    assert match["score"] == pytest.approx(1, abs=1e-3)
    assert viewer.get(match["image_url"]).status_code == 200


def test_what_answered_is_said(ask, viewer, tea, catalogue):
    answer = viewer.get(ask(image=_base64(1))["Location"]).json()
    model = answer["answered_with"]["feature_model"]
    assert model["name"] == "stub_rec" and model["digest"]
    assert answer["answered_with"]["metric"] == "IP" and answer["answered_with"]["plan"]
    catalogue.refresh_from_db()
    assert answer["catalogue_version"] == catalogue.version
    assert {"decode", "embed", "search"} <= set(answer["timings"])


def test_a_stranger_is_unknown(ask, viewer, tea):
    answer = viewer.get(ask(image=_base64(8), rec_threshold=0.999)["Location"]).json()
    assert answer["detections"][0]["status"] == "unknown"
    assert answer["detections"][0]["matches"] == []


def test_with_boxes_of_ones_own(ask, viewer, url, tea, run_tasks):
    boxes = [[0, 0, 32, 48], [32, 0, 64, 48]]
    answer = viewer.get(ask(image=_base64(1), boxes=boxes)["Location"]).json()
    assert [detection["box"] for detection in answer["detections"]] == boxes
    form = {"image": SimpleUploadedFile("a.png", factories.png(1)), "boxes": json.dumps(boxes)}
    with run_tasks():
        asked = viewer.post(url("recognitions"), form, format="multipart")
    assert asked.json()["boxes"] == boxes


def test_every_image_instead_of_every_product(ask, viewer, catalogue, tea, run_tasks):
    with run_tasks():
        factories.add(catalogue, "tea", 2)
    options = {"image": _base64(1), "rec_threshold": -1}
    per_product = viewer.get(ask(**options)["Location"]).json()
    raw = viewer.get(ask(**options, per_product=False)["Location"]).json()
    assert len(per_product["detections"][0]["matches"]) == 1
    assert len(raw["detections"][0]["matches"]) == 2


def test_by_url(ask, monkeypatch, tea):
    monkeypatch.setattr(fetch, "fetch_picture", lambda url, **_: factories.png(1))
    assert ask(url="https://example.com/a.png").status_code == 202


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({}, 400),
        ({"image": "!"}, 400),
        ({"image": "", "url": ""}, 400),
        ({"image": _base64(1), "url": "https://example.com"}, 400),
        ({"url": "http://127.0.0.1/"}, 400),
        ({"url": "file:///etc/passwd"}, 400),
        ({"image": _base64(1), "top_k": 0}, 400),
        ({"image": _base64(1), "det_threshold": 2}, 400),
        ({"image": _base64(1), "rec_threshold": "Infinity"}, 400),
        ({"image": _base64(1), "boxes": [[0, 0, 1, 1]]}, 400),
        ({"image": _base64(1), "boxes": [[0, 0, 9]]}, 400),
        ({"image": _base64(1), "threshold": 0.5}, 400),
    ],
    ids=lambda part: str(part)[-40:],
)
def test_a_wrong_question(ask, wrong, status):
    assert ask(**wrong).status_code == status
    assert not RecognitionQuery.objects.exists()


@pytest.mark.parametrize("wait", ["-1", "nan", "inf", "soon"])
def test_a_wrong_wait(ask, wait):
    assert ask(f"?wait={wait}", image=_base64(1)).status_code == 400


def test_nobody_answers_in_time(ask, monkeypatch):
    assert ask("?wait=0.05", image=_base64(1)).status_code == 202


def test_waiting_is_bounded_by_the_site(ask, settings):
    settings.SHITU_ANSWER_TIMEOUT = 0.05
    started = time.monotonic()
    assert ask("?wait=600", image=_base64(1)).status_code == 202
    assert time.monotonic() - started < 60


def test_an_answer_that_fails_says_why(ask, viewer, catalogue, monkeypatch):
    monkeypatch.setattr(bell, "listen", lambda *_: RecognitionQuery.objects.update(
        state="failed", error="its file is damaged"
    ))  # fmt: skip
    asked = ask("?wait=5", image=_base64(1))
    assert asked.status_code == 201
    assert (asked.json()["state"], asked.json()["error"]) == ("failed", "its file is damaged")


@pytest.mark.django_db(transaction=True)
def test_the_answer_comes_with_the_question(
    api, catalogue, url, stub_engine, monkeypatch, settings
):
    from django.db import connection

    from recognition import tasks

    settings.SHITU_ANSWER_TIMEOUT = 60
    monkeypatch.setattr(bell, "_LOOK_EVERY", 60.0)
    patient = bell.redis.Redis.from_url(settings.REDIS_URL)
    monkeypatch.setattr(bell, "_redis", lambda: patient)

    def in_a_worker() -> None:
        try:
            answering.answer_waiting()
        finally:
            connection.close()

    monkeypatch.setattr(tasks, "wake", lambda task, *_: threading.Timer(0.1, in_a_worker).start())
    client = api(catalogue.owner)
    started = time.monotonic()
    response = client.post(url("recognitions") + "?wait=60", {"image": _base64(1)}, format="json")
    assert response.status_code == 201, response.content
    assert response.json()["state"] == "done"
    assert time.monotonic() - started < 50, "it was not woken, it looked again"


def test_they_are_listed_and_filtered(ask, viewer, url, tea):
    known, stranger = (
        ask(image=_base64(seed), rec_threshold=0.999).json()["key"] for seed in (1, 8)
    )

    def found(**query) -> list[str]:
        page = viewer.get(url("recognitions"), query).json()["results"]
        return [one["key"] for one in page]

    assert found() == [stranger, known]
    assert found(label="tea") == found(status="match") == [known]
    assert found(status=["match", "unknown"]) == [stranger, known]
    assert found(state="pending") == []
    assert viewer.get(url("recognitions"), {"status": "perhaps"}).status_code == 400


def test_a_removed_product_leaves_its_label_in_old_answers(ask, viewer, editor, url, tea):
    address = ask(image=_base64(1))["Location"]
    editor.delete(url("products", tea.product_id))
    [match] = viewer.get(address).json()["detections"][0]["matches"]
    assert match["label"] == "tea"
    assert match["product"] is match["image"] is match["image_url"] is None


SHELF = {
    "external_id": "4711",
    "sku": "T-1",
    "barcode": "4006381333931",
    "price": "1.9900",
    "currency": "EUR",
    "category": "drinks/tea",
    "attributes": {"ml": 500, "organic": True},
}


@pytest.fixture
def details(ask, viewer, url, tea):
    """What an answer says of the product of its first match, by each of the ways to it."""
    key = ask(image=_base64(1)).json()["key"]

    def shown() -> dict | None:
        one = viewer.get(f"/api/v1/recognitions/{key}?details=true").json()
        listed = viewer.get(url("recognitions"), {"details": "true", "fields": "detections"})
        assert listed.json()["results"] == [{"detections": one["detections"]}]
        [match] = one["detections"][0]["matches"]
        return match["details"]

    return shown


def test_on_request_a_match_brings_what_a_till_needs(ask, details, editor, viewer, url, tea):
    blank = details()
    assert (blank["external_id"], blank["price"], blank["attributes"]) == ("", None, {})
    editor.patch(url("products", tea.product_id), SHELF, format="json")
    assert details() == SHELF  # as it is now, whenever it was asked
    plain = viewer.get(url("recognitions")).json()["results"][0]
    assert "details" not in plain["detections"][0]["matches"][0]


def test_the_question_itself_may_ask_for_it(viewer, url, tea, monkeypatch):
    monkeypatch.setattr(bell, "listen", lambda *_: answering.answer_waiting())
    body = {"image": _base64(1)}
    asked = viewer.post(url("recognitions") + "?wait=5&details=true", body, format="json")
    assert asked.json()["detections"][0]["matches"][0]["details"]["price"] is None
    wrong = viewer.post(url("recognitions") + "?details=perhaps", body, format="json")
    assert (wrong.status_code, *wrong.json()["error"]["fields"]) == (400, "details")
    assert RecognitionQuery.objects.count() == 1


def test_they_are_those_of_what_a_product_has_become(details, editor, url, catalogue, tea):
    other = products.create(catalogue, "matcha", **SHELF)
    body = {"products": [tea.product_id]}
    assert editor.post(url("products", other.pk, "merge"), body, format="json").status_code == 200
    assert details() == SHELF
    editor.delete(url("products", other.pk))
    assert details() is None


def test_its_picture_plain_and_drawn(ask, viewer, tea):
    answer = viewer.get(ask(image=_base64(1))["Location"]).json()
    plain = viewer.get(answer["picture"])
    assert b"".join(plain.streaming_content) == factories.png(1)
    drawn = viewer.get(answer["annotated"])
    assert drawn["Content-Type"] == "image/jpeg"
    with Image.open(io.BytesIO(drawn.content)) as image:
        assert image.size == (64, 48)
    again = viewer.get(answer["annotated"], headers={"If-None-Match": drawn["ETag"]})
    assert again.status_code == 304


def test_there_is_nothing_to_draw_before_the_answer(viewer, catalogue):
    query = queries.submit(catalogue, factories.picture(1), by=None)
    response = viewer.get(f"/api/v1/recognitions/{query.key}/annotated")
    assert response.status_code == 409


def test_an_outsider_sees_none_of_it(ask, outsider, tea):
    answer = ask(image=_base64(1)).json()
    for address in (answer["url"], answer["picture"], answer["annotated"]):
        assert outsider.get(address).status_code == 404


@pytest.mark.parametrize("text", ["é", r"\ud800", "AAAA*", "AAA"], ids=ascii)
def test_what_is_not_base64_is_refused_in_words(api, catalogue, user, text):
    answer = api(user).post(
        f"/api/v1/catalogues/{catalogue.key}/recognitions",
        f'{{"image": "{text}"}}',
        content_type="application/json",
    )
    assert answer.status_code == 400
    assert "base64" in answer.json()["error"]["message"]
