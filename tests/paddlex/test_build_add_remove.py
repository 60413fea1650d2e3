"""What goes into an index and out of it; the stub networks embed."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import Any

import pytest

from recognition.models import Catalogue, GalleryImage, Membership, Role, State
from recognition.services import catalogues, paddlex, products, tokens
from tests import factories


def pair(seed: int, label: str = "tea") -> dict[str, str]:
    return {"image": base64.b64encode(factories.png(seed)).decode(), "label": label}


def build(client, *pairs: dict[str, str], **fields: Any) -> Any:
    body = {"imageLabelPairs": list(pairs), **fields}
    return client.post("/shitu-index-build", json=body)


def add(client, key: str | None, *pairs: dict[str, str], **fields: Any) -> Any:
    body = {"imageLabelPairs": list(pairs), "indexKey": key, **fields}
    if key is None:
        del body["indexKey"]
    return client.post("/shitu-index-add", json=body)


def remove(client, key: str, ids: list[int]) -> Any:
    return client.post("/shitu-index-remove", json={"ids": ids, "indexKey": key})


def test_an_index_is_a_catalogue_of_the_user(local, someone):
    answer = build(local, pair(0), pair(1), pair(2, "cola")).json()
    assert list(answer) == ["logId", "result", "errorCode", "errorMsg"]
    result = answer["result"]
    assert result["idMap"] == {"0": "tea", "1": "tea", "2": "cola"}
    assert (result["imageCount"], result["ids"]) == (3, [0, 1, 2])
    catalogue = Catalogue.objects.get(key=result["indexKey"])
    assert catalogue.owner == someone
    assert (catalogue.index.index_type, catalogue.index.metric) == ("Flat", "IP")
    assert catalogue.max_detections == 300
    assert not GalleryImage.objects.exclude(state=State.DONE).exists()


def test_type_metric_and_name_may_be_chosen(local):
    answer = build(local, pair(0), indexType="HNSW32", metricType="L2", catalogue="drinks").json()
    catalogue = Catalogue.objects.get(key=answer["result"]["indexKey"])
    assert catalogue.name == "drinks"
    assert (catalogue.index.index_type, catalogue.index.metric) == ("HNSW32", "L2")


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"metricType": "hamming"}, 400, "binary"),
        ({"metricType": "jaccard"}, 400, "jaccard"),
        ({"indexType": "LSH"}, 400, "LSH"),
        ({"catalogue": "x" * 121}, 422, "body.catalogue"),
    ],
)
def test_what_cannot_be_built_is_named(local, fields, status, words):
    response = build(local, pair(0), **fields)
    assert response.status_code == status
    assert words in response.json()["errorMsg"]
    assert not Catalogue.objects.exists()


def test_a_name_is_taken_once(local):
    assert build(local, pair(0), catalogue="drinks").status_code == 200
    again = build(local, pair(1), catalogue="drinks")
    assert (again.status_code, again.json()["errorCode"]) == (409, 409)


def test_a_bad_pair_is_named_and_nothing_is_built(local):
    for bad, where in (
        ({"image": "aGVsbG8=", "label": "x"}, "imageLabelPairs[2].image"),
        (pair(5, " "), "imageLabelPairs[2].label"),
        (pair(5, "x" * 256), "imageLabelPairs[2].label"),
    ):
        response = build(local, pair(0), pair(1), bad)
        assert response.status_code == 400
        assert response.json()["errorMsg"].startswith(where)
    assert not Catalogue.objects.exists()
    assert not GalleryImage.objects.exists()


def test_a_bad_pair_adds_nothing(local):
    key = build(local, pair(0)).json()["result"]["indexKey"]
    assert add(local, key, pair(1), {"image": "x", "label": "y"}).status_code == 400
    assert remove(local, key, []).json()["result"]["imageCount"] == 1


def test_ids_are_stable_and_never_come_back(local):
    key = build(local, pair(0), pair(1), pair(2)).json()["result"]["indexKey"]
    assert remove(local, key, [2]).json()["result"] == {
        "imageCount": 2,
        "idMap": {"0": "tea", "1": "tea"},
        "unknownIds": [],
    }
    added = add(local, key, pair(3, "cola")).json()["result"]
    assert added["ids"] == [3]  # PaddleX would give out 2 again
    assert added["idMap"] == {"0": "tea", "1": "tea", "3": "cola"}


def test_unknown_ids_are_no_error_but_said(local):
    key = build(local, pair(0)).json()["result"]["indexKey"]
    answer = remove(local, key, [7, -1, 0, 7, 2**70]).json()
    assert answer["errorCode"] == 0
    assert answer["result"] == {"imageCount": 0, "idMap": {}, "unknownIds": [7, -1, 2**70]}


def test_many_unknown_ids_take_no_longer_each_than_few(local):
    """In the square of their number 30,000 took 3 s, and 100,000 half a minute."""
    key = build(local, pair(0)).json()["result"]["indexKey"]
    ids = list(range(1, 100_001))
    started = time.monotonic()
    assert remove(local, key, ids).json()["result"]["unknownIds"] == ids
    assert time.monotonic() - started < 15


def test_the_same_picture_twice_counts_once(local):
    answer = build(local, pair(0), pair(0), pair(0, "cola"), pair(1)).json()["result"]
    assert answer["imageCount"] == len(answer["idMap"]) == 3
    assert answer["ids"][0] == answer["ids"][1]
    assert len(set(answer["ids"])) == 3
    assert [answer["idMap"][str(number)] for number in answer["ids"]] == [
        "tea", "tea", "cola", "tea",
    ]  # fmt: skip
    again = add(local, answer["indexKey"], pair(1)).json()["result"]
    assert (again["imageCount"], again["ids"]) == (3, answer["ids"][3:])


def test_which_ids_are_new_is_said(local):
    built = build(local, pair(0), pair(0), pair(1)).json()["result"]
    assert (built["ids"], built["newIds"]) == ([0, 0, 1], [0, 1])
    added = add(local, built["indexKey"], pair(1), pair(2), pair(2)).json()["result"]
    assert (added["ids"], added["newIds"]) == ([1, 2, 2], [2])


def test_what_could_not_be_embedded_is_tried_again_when_it_is_sent_again(local):
    key = build(local, pair(0)).json()["result"]["indexKey"]
    factories.ended(GalleryImage.objects.get(), State.FAILED, error="the network was on fire")
    answer = add(local, key, pair(0), pair(1)).json()
    assert answer["errorCode"] == 0, answer
    assert answer["result"]["idMap"] == {"0": "tea", "1": "tea"}
    assert set(GalleryImage.objects.values_list("state", "error")) == {("done", "")}


def test_one_that_fails_again_takes_nothing_else_with_it(local):
    key = build(local, pair(0)).json()["result"]["indexKey"]
    image = GalleryImage.objects.get()
    factories.ended(image, State.FAILED, error="the network was on fire")
    Path(image.file.path).write_bytes(b"no picture any more")
    response = add(local, key, pair(1), pair(0))
    assert response.status_code == 500
    message = response.json()["errorMsg"]
    assert message.startswith("imageLabelPairs[1].image is in the index from before")
    assert "nothing was added" not in message
    states = GalleryImage.objects.order_by("number").values_list("number", "state")
    assert list(states) == [(0, "failed"), (1, "done")]


@pytest.mark.parametrize("url", ["http://[", "https://[::1", "http://a]b/x.png"])
def test_half_a_url_is_the_client_s_mistake(local, url):
    key = build(local, pair(0)).json()["result"]["indexKey"]
    asked = local.post("/shitu-infer", json={"image": url, "indexKey": key})
    added = add(local, key, pair(1), {"image": url, "label": "tea"})
    assert (asked.status_code, added.status_code) == (400, 400)
    assert added.json()["errorMsg"].startswith("imageLabelPairs[1].image: ")


def test_clients_are_told_the_name_that_the_catalogue_chooses(local, monkeypatch):
    from recognition import drawing

    result = build(local, pair(0), pair(1, "cola")).json()["result"]
    catalogue = Catalogue.objects.get(key=result["indexKey"])
    drawn: list[str] = []
    annotate = drawing.annotate

    def watched(pixels: Any, boxes: Any) -> Any:
        drawn.extend(box.text for box in boxes)
        return annotate(pixels, boxes)

    monkeypatch.setattr(drawing, "annotate", watched)
    products.change(catalogue.products.get(label="tea"), sku="T-1", external_id="X-1")

    def told(seed: int) -> tuple[str, str]:
        body = {"image": pair(seed)["image"], "indexKey": result["indexKey"], "topk": 1}
        answer = local.post("/shitu-infer", json=body).json()["result"]
        [detected] = answer["detectedObjects"]
        return detected["recResults"][0]["label"], drawn.pop()

    for shown, name in (("label", "tea"), ("sku", "T-1"), ("external_id", "X-1")):
        catalogues.change(catalogue, shown_label=shown)
        assert told(0) == (name, f"{name} 1.00")
        assert told(1) == ("cola", "cola 1.00")  # it has none
        id_map = remove(local, result["indexKey"], []).json()["result"]["idMap"]
        assert id_map == {"0": name, "1": "cola"}


def test_beyond_the_limit_only_what_was_added_is_listed(local, settings):
    settings.SHITU_PADDLEX_ID_MAP_LIMIT = 3
    built = build(local, *[pair(seed) for seed in range(3)]).json()["result"]
    assert len(built["idMap"]) == 3
    added = add(local, built["indexKey"], pair(10, "cola"), pair(11, "cola")).json()["result"]
    assert (added["imageCount"], added["idMap"]) == (5, {"3": "cola", "4": "cola"})
    removed = remove(local, built["indexKey"], [0]).json()["result"]
    assert removed["imageCount"] == 4
    assert "idMap" not in removed


def test_count_and_list_agree_whoever_adds_between_two_looks(local):
    from django.db import connection

    key = build(local, pair(0)).json()["result"]["indexKey"]
    catalogue = Catalogue.objects.get(key=key)
    looks = 0

    def add_behind_the_first(execute, sql, params, many, context) -> Any:
        nonlocal looks
        found = execute(sql, params, many, context)
        looks += 1
        if looks == 1:
            factories.add(catalogue, "cola", seed=1)
        return found

    with connection.execute_wrapper(add_behind_the_first):
        contents = paddlex.contents(catalogue)
    assert contents.labels is not None
    assert contents.count == len(contents.labels)
    assert paddlex.contents(catalogue).count == 2  # it was added


def test_without_a_key_the_default_index_is_meant(local, settings, someone):
    assert add(local, None, pair(0)).status_code == 422
    catalogue = catalogues.create("drinks", owner=someone)
    for name in ("drinks", str(catalogue.key)):
        settings.SHITU_PADDLEX_DEFAULT_CATALOGUE = name
        added = add(local, None, pair(len(name)))
        assert added.status_code == 200, added.json()
    body = {"ids": [0]}
    assert local.post("/shitu-index-remove", json=body).json()["result"]["imageCount"] == 1
    body = {"image": pair(4)["image"], "recThreshold": -1, "visualize": False}
    asked = local.post("/shitu-infer", json=body)
    [detected] = asked.json()["result"]["detectedObjects"]
    assert [match["label"] for match in detected["recResults"]] == ["tea"]
    settings.SHITU_PADDLEX_DEFAULT_CATALOGUE = "gone"
    assert add(local, None, pair(0)).status_code == 404


def test_nobody_gets_between_a_name_and_the_default_index(settings, someone):
    """Whoever names a catalogue alike can make others its viewers, and they cannot help it."""
    settings.SHITU_PADDLEX_DEFAULT_CATALOGUE = "drinks"
    shared, theirs = (factories.catalogue(name="drinks") for _ in range(2))
    for catalogue in (theirs, shared):
        Membership.objects.create(user=someone, catalogue=catalogue, role=Role.VIEWER)
    assert paddlex.default(someone) == shared
    own = factories.catalogue(owner=someone, name="drinks")
    assert paddlex.default(someone) == own
    settings.SHITU_PADDLEX_DEFAULT_CATALOGUE = str(theirs.key)
    assert paddlex.default(someone) == theirs


def test_foreign_indexes_do_not_exist_and_viewers_cannot_add(local, someone):
    theirs = factories.catalogue(owner=factories.user("somebody else"))
    assert add(local, str(theirs.key), pair(0)).status_code == 404
    catalogue = catalogues.create("mine", owner=someone)
    _, text = tokens.create(someone, "reading", role="viewer")
    local.headers["Authorization"] = f"Bearer {text}"
    refused = add(local, str(catalogue.key), pair(0))
    assert refused.status_code == 403
    assert "editor" in refused.json()["errorMsg"]
    assert build(local, pair(0)).status_code == 403


def test_what_the_workers_cannot_embed_is_said_and_taken_back(local, monkeypatch):
    from recognition.errors import EngineFailed
    from recognition.services import indexing

    key = build(local, pair(0)).json()["result"]["indexKey"]

    class Broken:
        def embed(self, *args: Any, **options: Any) -> None:
            raise EngineFailed("the network is on fire")

    monkeypatch.setattr(indexing, "get_runtime", Broken)
    response = add(local, key, pair(1), pair(2))
    assert response.status_code == 500
    message = response.json()["errorMsg"]
    assert message.startswith("imageLabelPairs[0].image") and "on fire" in message
    assert build(local, pair(3), catalogue="not to be").status_code == 500
    assert not Catalogue.objects.filter(name="not to be").exists()
    monkeypatch.undo()
    assert GalleryImage.objects.count() == 1


def test_over_the_time_the_work_goes_on(local, settings, monkeypatch):
    from recognition import tasks

    settings.SHITU_PADDLEX_TIMEOUT = 0.3
    monkeypatch.setattr(tasks, "wake", lambda task, *args: None)
    started = time.monotonic()
    response = build(local, pair(0), pair(1))
    assert 0.3 <= time.monotonic() - started < 30
    answer = response.json()
    assert (response.status_code, answer["errorCode"]) == (504, 504)
    catalogue = Catalogue.objects.get(key=answer["result"]["indexKey"])
    assert answer["result"]["ids"] == [0, 1]
    assert str(catalogue.key) in answer["errorMsg"]
    assert "0 of 2" in answer["errorMsg"] and "no worker is running" in answer["errorMsg"]
    assert GalleryImage.objects.filter(state=State.PENDING).count() == 2


def test_a_caller_may_choose_not_to_wait(local, monkeypatch):
    from recognition import tasks

    monkeypatch.setattr(tasks, "wake", lambda task, *args: None)
    key = build(local, pair(0), wait=False).json()["result"]["indexKey"]
    assert add(local, key, pair(1), wait=False).json()["result"]["ids"] == [1]
    assert GalleryImage.objects.filter(state=State.PENDING).count() == 2


def test_the_wait_ends_with_the_work_and_not_with_the_next_look(local, monkeypatch, settings):
    """A worker elsewhere rings; nobody looks every few milliseconds."""
    import threading

    from django.db import connection

    from recognition import tasks
    from recognition.services import bell, indexing

    monkeypatch.setattr(bell, "_LOOK_EVERY", 60.0)

    def elsewhere(task: Any, *args: Any) -> None:
        def work() -> None:
            time.sleep(0.3)
            indexing.embed_waiting(*args)
            connection.close()

        from django.db import transaction

        transaction.on_commit(lambda: threading.Thread(target=work).start())

    monkeypatch.setattr(tasks, "wake", elsewhere)
    started = time.monotonic()
    assert build(local, pair(0)).status_code == 200
    assert time.monotonic() - started < 50  # the next look would come after 60 s


def by_url(number: int) -> dict[str, str]:
    return {"image": f"https://pictures.example/{number}.png", "label": "tea"}


def test_one_request_has_only_so_many_pictures(local, settings, monkeypatch):
    from recognition import fetch, images

    key = build(local, pair(0)).json()["result"]["indexKey"]
    settings.SHITU_MAX_UPLOAD_FILES, settings.SHITU_MAX_UPLOAD_URLS = 2, 3
    monkeypatch.setattr(fetch, "fetch_picture", lambda url, **how: factories.png(int(url[25:-4])))
    few = [pair(1), pair(2), *map(by_url, range(3, 6))]
    assert add(local, key, *few).json()["result"]["imageCount"] == 6
    monkeypatch.setattr(images, "check", None)  # none is looked at
    for more, what in (
        ([pair(7)], "3 pictures in base64, and one request may have 2 (SHITU_MAX_UPLOAD_FILES)"),
        ([by_url(7)], "4 URLs, and one request may have 3 (SHITU_MAX_UPLOAD_URLS)"),
    ):
        for refused in (build(local, *few, *more), add(local, key, *few, *more)):
            assert (refused.status_code, refused.json()["errorCode"]) == (413, 413)
            assert what in refused.json()["errorMsg"]
    assert Catalogue.objects.count() == 1


def test_one_request_has_only_so_many_bytes(local, monkeypatch):
    from recognition import images
    from recognition.services import paddlex

    checked: list[int] = []
    check = images.check

    def counted(data: bytes, **how: Any) -> images.Picture:
        picture = check(data, **how)
        checked.append(len(picture.data))
        return picture

    monkeypatch.setattr(images, "check", counted)
    monkeypatch.setattr(paddlex, "_LOADERS", 1)
    monkeypatch.setattr(paddlex, "_MOST_LOADED", 3 * len(factories.png(0)))
    refused = build(local, *[pair(seed) for seed in range(30)])
    assert refused.status_code == 413
    number = len(checked) - 1
    assert refused.json()["errorMsg"].startswith(f"imageLabelPairs[{number}].image: with this")
    assert sum(checked[:-1]) <= paddlex._MOST_LOADED < sum(checked)
    assert not Catalogue.objects.exists()


def test_pictures_are_fetched_until_the_time_is_over(local, settings, monkeypatch):
    from types import SimpleNamespace

    from recognition import fetch
    from recognition.services import paddlex

    now, asked = 100.0, []

    def fetched(url: str, *, timeout: float) -> bytes:
        nonlocal now
        asked.append(timeout)
        now += 1
        return factories.png(len(asked))

    settings.SHITU_PADDLEX_TIMEOUT, settings.SHITU_FETCH_TIMEOUT = 3.0, 2.5
    monkeypatch.setattr(paddlex, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(paddlex, "_LOADERS", 1)
    monkeypatch.setattr(fetch, "fetch_picture", fetched)
    late = build(local, *map(by_url, range(9)))
    assert asked == [2.5, 2.0, 1.0]
    assert (late.status_code, late.json()["errorCode"]) == (504, 504)
    assert late.json()["errorMsg"].startswith("imageLabelPairs[3].image: its turn did not come")
    assert not Catalogue.objects.exists()


def test_what_was_fetched_leaves_less_time_to_wait(local, settings, monkeypatch):
    from types import SimpleNamespace

    from recognition import fetch, tasks
    from recognition.services import paddlex

    now = 100.0

    def fetched(url: str, *, timeout: float) -> bytes:
        nonlocal now
        now += timeout
        return factories.png(1)

    settings.SHITU_PADDLEX_TIMEOUT = settings.SHITU_FETCH_TIMEOUT = 50.0
    monkeypatch.setattr(paddlex, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(fetch, "fetch_picture", fetched)
    monkeypatch.setattr(tasks, "wake", lambda task, *args: None)
    late = build(local, by_url(1))
    assert late.status_code == 504
    assert "0 of 1 pictures are in index" in late.json()["errorMsg"]
