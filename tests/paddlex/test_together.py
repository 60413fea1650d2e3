"""Many clients at once, on a real socket."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor

from recognition.models import Catalogue, Embedding
from tests import factories
from tests.paddlex.cases import RECORDED


def test_sixteen_clients_add_to_one_index_and_nothing_is_lost(serve):
    """PaddleX reads, changes and writes the whole index without a lock, and says Success."""
    theirs = json.loads((RECORDED / "together.json").read_text(encoding="utf-8"))["answers"]
    assert theirs["succeeded"] + 1 > theirs["images_left"]
    site = serve()

    def pair(number: int) -> dict[str, str]:
        return {
            "image": base64.b64encode(factories.png(number)).decode(),
            "label": f"product {number % 5}",
        }

    built = site.post("/shitu-index-build", json={"imageLabelPairs": [pair(0)]}).json()
    key = built["result"]["indexKey"]

    def add(number: int) -> dict:
        body = {"imageLabelPairs": [pair(number)], "indexKey": key}
        return site.post("/shitu-index-add", json=body).json()

    with ThreadPoolExecutor(16) as clients:
        answers = list(clients.map(add, range(1, 17)))

    assert [answer["errorMsg"] for answer in answers] == ["Success"] * 16
    ids = [answer["result"]["ids"][0] for answer in answers]
    assert sorted(ids) == list(range(1, 17))
    for number, answer in zip(ids, answers, strict=True):
        assert str(number) in answer["result"]["idMap"]  # its own is in there, whoever else adds
        assert answer["result"]["imageCount"] == len(answer["result"]["idMap"])
    last = site.post("/shitu-index-remove", json={"ids": [], "indexKey": key}).json()["result"]
    assert last["imageCount"] == theirs["images_sent"] == 17
    catalogue = Catalogue.objects.get(key=key)
    assert Embedding.objects.filter(space=catalogue.index).count() == 17
