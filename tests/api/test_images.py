"""Gallery images: added in every way, listed, looked at, retried, removed."""

from __future__ import annotations

import base64
import io
import json

import pytest
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from PIL import Image

from recognition.errors import TryAgain
from recognition.models import GalleryImage, Quota
from recognition.services import files, queries
from tests import factories


def _file(seed: int, name: str = "shelf.png", data: bytes | None = None) -> SimpleUploadedFile:
    return SimpleUploadedFile(name, factories.png(seed) if data is None else data)


def _base64(seed: int) -> str:
    return base64.b64encode(factories.png(seed)).decode()


@pytest.fixture
def send(editor, url):
    return lambda **form: editor.post(url("images"), form, format="multipart")


@pytest.fixture
def send_json(editor, url):
    return lambda *images: editor.post(url("images"), {"images": images}, format="json")


def test_many_files_at_once_each_with_its_result(send, catalogue):
    response = send(
        label="绿茶", images=[_file(1), _file(2, "b.png"), _file(1), _file(0, "c.jpg", b"<html>")]
    )
    assert response.status_code == 201, response.content
    body = response.json()
    assert (body["added"], body["duplicates"], body["failed"]) == (2, 1, 1)
    kinds = [result["result"] for result in body["results"]]
    assert kinds == ["added", "added", "duplicate", "failed"]
    first = body["results"][0]["image"]
    assert (first["label"], first["state"], first["source_name"]) == (
        "绿茶",
        "pending",
        "shelf.png",
    )
    assert body["results"][3]["error"]["code"] == "bad_image"
    assert "c.jpg" in body["results"][3]["error"]["message"]
    assert catalogue.images.count() == 2


def test_the_same_file_again_is_reported_and_not_stored(send, catalogue):
    number = send(label="tea", images=[_file(1)]).json()["results"][0]["image"]["number"]
    again = send(label="tea", images=[_file(1)])
    assert again.status_code == 200
    assert again.json()["results"][0]["image"]["number"] == number
    assert catalogue.images.count() == 1


def test_a_box_for_a_file_that_is_there_is_taken_over_and_told(send_json, catalogue):
    send_json({"label": "tea", "image": _base64(1)})
    item = {"label": "tea", "image": _base64(1), "external_id": "a", "box": [4, 4, 40, 40]}
    for changed in (["external_id", "box"], []):
        response = send_json(item)
        [result] = response.json()["results"]
        assert (response.status_code, result["result"], result["changed"]) == (
            200,
            "duplicate",
            changed,
        )
        image = result["image"]
        assert (image["box"], image["external_id"]) == ([4, 4, 40, 40], "a")
    assert catalogue.images.count() == 1


def test_the_same_bytes_elsewhere_are_pointed_out(send, catalogue):
    first = send(label="tea", images=[_file(1)]).json()["results"][0]["image"]["number"]
    [result] = send(label="coffee", images=[_file(1)]).json()["results"]
    assert (result["result"], result["duplicate_of"]) == ("added", first)


def test_ones_own_id_replaces(send_json, catalogue):
    item = {"label": "tea", "external_id": "front"}
    send_json(item | {"image": _base64(1)})
    [result] = send_json(item | {"image": _base64(2)}).json()["results"]
    assert (result["result"], result["replaced"]) == ("added", True)
    assert result["image"]["external_id"] == "front"
    assert catalogue.images.count() == 1


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [(b"", 400, "bad_image"), (b"<svg/>", 400, "bad_image"), (b"x" * 5000, 413, "too_large")],
)
def test_one_picture_refused_is_an_error(send, settings, data, status, code, catalogue):
    settings.SHITU_MAX_IMAGE_BYTES = 4000
    response = send(label="tea", images=[_file(0, data=data)])
    assert response.status_code == status
    assert response.json()["error"]["code"] == code
    assert not catalogue.products.exists()


def test_all_of_many_refused_is_an_error_naming_each(send):
    response = send(label="tea", images=[_file(0, data=b""), _file(0, data=b"text")])
    assert response.status_code == 400
    assert list(response.json()["error"]["fields"]) == ["images.0", "images.1"]


def test_what_all_of_many_meet_is_the_error_it_is_for_one(send, catalogue, monkeypatch):
    factories.add(catalogue, "tea", 9)
    Quota.objects.create(catalogue=catalogue, images=1)
    full = send(label="tea", images=[_file(1), _file(2)])
    assert (full.status_code, full.json()["error"]["code"]) == (413, "storage_full")
    Quota.objects.all().delete()

    def away(*_: object, **__: object) -> None:
        raise TryAgain("the storage does not answer")

    monkeypatch.setattr(files, "keep", away)
    later = send(label="tea", images=[_file(1), _file(2)])
    assert (later.status_code, later.json()["error"]["code"]) == (503, "try_again")
    assert int(later["Retry-After"]) > 0


def test_base64_with_labels_and_boxes_of_their_own(send_json, catalogue):
    response = send_json(
        {"label": "tea", "image": _base64(1), "box": [4, 4, 40, 40], "name": "a.png"},
        {"label": "coffee", "image": "data:image/png;base64," + _base64(2)},
        {"label": "milk", "image": _base64(3), "box": [60, 40, 61, 41]},
        {"label": "juice", "image": "not base64!"},
    )
    assert response.status_code == 201, response.content
    first, second, third, fourth = response.json()["results"]
    assert (first["image"]["box"], first["image"]["box_source"]) == ([4, 4, 40, 40], "given")
    assert second["image"]["label"] == "coffee"
    assert third["error"]["field"] == "box"
    assert fourth["error"]["code"] == "bad_image"
    assert catalogue.images.count() == 2


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"images": []},
        {"images": [{"label": "x"}]},
        {"images": [{"label": "x", "image": "a", "url": "b"}]},
        {"images": [{"image": "a"}]},
        {"images": [{"label": "x", "image": "a", "box": [1, 2, 3]}]},
        {"images": "x"},
    ],
    ids=lambda body: json.dumps(body)[:50],
)
def test_a_wrong_body(editor, url, body):
    assert editor.post(url("images"), body, format="json").status_code == 400


def test_a_form_with_a_box(send):
    response = send(label="tea", images=[_file(1)], box="[4, 4, 40, 40]")
    assert response.json()["results"][0]["image"]["box"] == [4, 4, 40, 40]
    assert send(label="tea", images=[_file(2)], box="four").status_code == 400


def test_more_files_than_allowed(send, settings):
    settings.DATA_UPLOAD_MAX_NUMBER_FILES = 2
    response = send(label="tea", images=[_file(1), _file(2), _file(3)])
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "too_large"


def test_more_than_fit_into_memory_are_stored_in_parts(send, monkeypatch, catalogue):
    from recognition.services import gallery_adding

    monkeypatch.setattr(gallery_adding, "_CHUNK_IMAGES", 2)
    files = [_file(seed, f"{seed}.png") for seed in range(5)]
    files.insert(2, _file(0, "bad.png", b"no"))
    body = send(label="tea", images=files).json()
    assert [result["result"] for result in body["results"]] == [
        "added", "added", "failed", "added", "added", "added",
    ]  # fmt: skip
    names = [result["image"]["source_name"] for result in body["results"] if result["image"]]
    assert names == [f"{seed}.png" for seed in range(5)]


def test_they_are_listed_by_state_product_and_time(editor, url, catalogue):
    tea, coffee = factories.add(catalogue, "tea", 1), factories.add(catalogue, "coffee", 2)
    factories.ended(coffee, "failed", error="its file is damaged")

    def found(**query) -> list[int]:
        return [one["number"] for one in editor.get(url("images"), query).json()["results"]]

    assert found() == [coffee.number, tea.number]
    assert found(state="failed") == [coffee.number]
    assert found(state=["failed", "pending"]) == [coffee.number, tea.number]
    assert found(label="tea") == found(product=tea.product_id) == [tea.number]
    assert found(checksum=tea.checksum) == [tea.number]
    assert found(number=f"{coffee.number},{2**63 - 1}") == [coffee.number]
    assert found(number=f"{coffee.number},{tea.number}") == [coffee.number, tea.number]
    assert found(created_before="2020-01-01T00:00:00Z") == []
    for wrong in ({"state": "sleeping"}, {"number": "1,x"}, {"number": "1.5"}, {"number": 2**63}):
        assert editor.get(url("images"), wrong).status_code == 400
    shown = editor.get(url("images", coffee.number)).json()
    assert shown["error"] == "its file is damaged"


def test_failed_ones_are_tried_again(editor, url, catalogue):
    first, second, third = (factories.add(catalogue, "tea", seed) for seed in (1, 2, 3))
    for image in (first, second):
        factories.ended(image, "failed", error="no")
    some = editor.post(url("images", "retry"), {"numbers": [first.number]}, format="json")
    assert some.json() == {"retried": 1}
    assert editor.post(url("images", "retry"), {}, format="json").json() == {"retried": 1}
    assert set(catalogue.images.values_list("state", flat=True)) == {"pending"}


def test_it_is_removed_with_its_file(editor, url, catalogue, django_capture_on_commit_callbacks):
    image = factories.add(catalogue, "tea", 1)
    with django_capture_on_commit_callbacks(execute=True):
        assert editor.delete(url("images", image.number)).status_code == 204
    assert editor.get(url("images", image.number)).status_code == 404
    assert not default_storage.exists(image.file.name)


def test_many_are_removed(editor, url, catalogue):
    numbers = [factories.add(catalogue, "tea", seed).number for seed in (1, 2)]
    response = editor.post(url("images", "remove"), {"numbers": [*numbers, 99]}, format="json")
    assert response.json() == {"removed": 2, "unknown": [99]}
    assert not GalleryImage.objects.exists()


def test_the_picture_comes_back_as_it_was_sent(viewer, url, catalogue):
    image = factories.add(catalogue, "tea", 1)
    response = viewer.get(url("images", image.number, "picture"))
    assert response["Content-Type"] == "image/png"
    assert "private" in response["Cache-Control"]
    assert b"".join(response.streaming_content) == factories.png(1)
    unchanged = viewer.get(
        url("images", image.number, "picture"), headers={"If-None-Match": response["ETag"]}
    )
    assert unchanged.status_code == 304


def test_the_web_server_sends_it_when_told_so(viewer, url, catalogue, settings):
    settings.SHITU_ACCEL_REDIRECT = "/protected"
    image = factories.add(catalogue, "tea", 1)
    response = viewer.get(url("images", image.number, "picture"))
    assert response["X-Accel-Redirect"] == f"/protected/{image.file.name}"
    assert response.content == b""


def test_a_thumbnail(viewer, url, catalogue):
    image = factories.add(catalogue, "tea", 1)
    response = viewer.get(url("images", image.number, "thumbnail"), {"side": 96})
    with Image.open(io.BytesIO(response.content)) as small:
        assert (small.format, small.size) == ("JPEG", (64, 48))
    assert viewer.get(url("images", image.number, "thumbnail"), {"side": 7}).status_code == 400


def test_a_missing_file_is_said_to_be_missing(viewer, url, catalogue):
    image = factories.add(catalogue, "tea", 1)
    default_storage.delete(image.file.name)
    for part in ("picture", "thumbnail"):
        response = viewer.get(url("images", image.number, part))
        assert response.status_code == 404
        assert "file of this picture is missing" in response.json()["error"]["message"]


@pytest.fixture
def patch(editor, url):
    return lambda number, **body: editor.patch(url("images", number), body, format="json")


def test_relabelled_in_the_very_next_answer(patch, editor, catalogue, stub_engine, run_tasks):
    with run_tasks():
        image = factories.add(catalogue, "tea", 1)
    body = patch(image.number, label="coffee").json()
    assert (body["label"], body["state"], body["number"]) == ("coffee", "done", image.number)
    with run_tasks():
        query = queries.submit(catalogue, factories.picture(1), by=None)
    [detection] = editor.get(f"/api/v1/recognitions/{query.key}").json()["detections"]
    assert detection["matches"][0]["label"] == "coffee"


def test_given_to_a_product_by_its_id(patch, catalogue):
    image, other = factories.add(catalogue, "tea", 1), factories.add(catalogue, "coffee", 2)
    assert patch(image.number, product=other.product_id).json()["label"] == "coffee"
    assert patch(image.number, product=2**40).status_code == 404
    assert patch(image.number, product=other.product_id, label="x").status_code == 400


def test_another_box_embeds_it_anew(patch, catalogue, stub_engine, run_tasks):
    with run_tasks():
        image = factories.add(catalogue, "tea", 1)
    body = patch(image.number, box=[1, 2, 30, 40]).json()
    assert (body["box"], body["box_source"], body["state"]) == ([1, 2, 30, 40], "given", "pending")
    assert patch(image.number, box=None).json()["box"] is None
    assert patch(image.number, box=[100, 100, 200, 200]).status_code == 400


def test_another_id(patch, catalogue):
    image, other = factories.add(catalogue, "tea", 1), factories.add(catalogue, "tea", 2)
    assert patch(image.number, external_id=" a ").json()["external_id"] == "a"
    assert patch(other.number, external_id="a").status_code == 409
    assert patch(image.number, external_id="").json()["external_id"] == ""
    assert patch(other.number, external_id="a").status_code == 200
    assert patch(other.number, external_id="a\nb").status_code == 400


def test_a_change_is_made_whole_or_not_at_all(patch, catalogue):
    image = factories.add(catalogue, "tea", 1)
    factories.add(catalogue, "tea", 2, external_id="taken")
    assert patch(image.number, label="new", external_id="taken").status_code == 409
    assert patch(image.number, label="new", box=[100, 100, 200, 200]).status_code == 400
    image.refresh_from_db()
    assert (image.product.label, image.box) == ("tea", None)
    assert not catalogue.products.filter(label="new").exists()


def test_a_product_that_has_the_picture_does_not_get_it_twice(patch, catalogue):
    image = factories.add(catalogue, "tea", 1)
    factories.add(catalogue, "coffee", 1)
    assert patch(image.number, label="coffee").status_code == 409
    assert catalogue.images.count() == 2


def test_many_are_given_to_another_product(editor, url, catalogue):
    numbers = [factories.add(catalogue, "tea", seed).number for seed in (1, 2)]
    body = {"numbers": [*numbers, 99], "label": "matcha"}
    answer = editor.post(url("images", "move"), body, format="json")
    assert answer.json() == {"moved": 2, "unknown": [99]}
    product = catalogue.products.get(label="tea")
    body = {"numbers": numbers[:1], "product": product.pk}
    assert editor.post(url("images", "move"), body, format="json").json()["moved"] == 1
    assert product.images.get().number == numbers[0]
    nowhere = editor.post(url("images", "move"), {"numbers": numbers}, format="json")
    assert nowhere.status_code == 400


def test_a_file_with_an_id_replaces_the_one_before(editor, url, catalogue):
    def send(seed: int, **fields):
        file = SimpleUploadedFile("a.png", factories.png(seed))
        body = {"label": "tea", "images": file, "external_id": "front", **fields}
        return editor.post(url("images"), body, format="multipart")

    first = send(1).json()["results"][0]["image"]["number"]
    [result] = send(2).json()["results"]
    assert result["replaced"] and result["image"]["number"] != first
    assert catalogue.images.get().external_id == "front"
    several = [SimpleUploadedFile("b.png", factories.png(seed)) for seed in (3, 4)]
    assert send(3, images=several).status_code == 400
