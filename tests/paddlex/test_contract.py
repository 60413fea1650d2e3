"""Our answers beside those that PaddleX 3.7.2 gave to the same requests (`record.py`)."""

from __future__ import annotations

import hashlib
from typing import Any

from recognition.engine.store import ModelStore
from tests.paddlex import record
from tests.paddlex.cases import PICTURES, all_cases

CASES = {case.name: case for case in all_cases()}
SCORE, PIXELS = 5e-4, 0.05
OURS = {"idMap", "ids", "newIds", "unknownIds"}
"""Fields that PaddleX 3.7.2 does not have."""

DIFFERENT = {case.name for case in CASES.values() if case.differs}
# PaddleX says 500 "Internal server error"; we say what was wrong.
REASONS = {
    "unknown_key_in_add": (404, "no catalogue"),
    "unknown_key_in_remove": (404, "no catalogue"),
    "unknown_key_in_infer": (404, "no catalogue"),
    "key_is_no_uuid": (404, "no index"),
    "infer_without_key": (400, "indexKey"),
    "image_is_empty": (400, "0 bytes"),
    "image_is_no_base64": (400, "not valid base64"),
    "image_is_no_picture": (400, "picture"),
    "image_is_huge": (413, "pixels"),
    "url_leads_nowhere": (400, "not fetched"),
    "url_is_not_found": (400, "404"),
    "url_is_no_picture": (400, "text/plain"),
    "url_without_host": (400, "not valid base64"),
    "no_pairs_in_build": (400, "imageLabelPairs is empty"),
    "no_pairs_in_add": (400, "imageLabelPairs is empty"),
    "one_bad_picture_in_build": (400, "imageLabelPairs[1].image"),
    "one_bad_picture_in_add": (400, "imageLabelPairs[1].image"),
}


def test_the_recording_is_of_these_pictures_and_models(recorded, starter_models: ModelStore):
    assert recorded["packages"]["paddlex"] == "3.7.2"
    for name, digest in recorded["models"].items():
        assert starter_models.get(name).digest == digest, f"{name}: record again (record.py)"
    for name, digest in recorded["pictures"].items():
        assert hashlib.sha256((PICTURES / name).read_bytes()).hexdigest() == digest
    assert set(recorded["answers"]) == set(CASES)


def test_same_requests_same_answers(serve, files_url, recorded):
    site = serve(SHITU_FETCH_ALLOW=files_url.removeprefix("http://"))
    keys: dict[str, str] = {}
    differences, compared = [], 0
    for case in CASES.values():
        response = record.ask(site, case, keys, files_url)
        if case.differs or case.name in REASONS:
            continue
        theirs = recorded["answers"][case.name]
        found = list(_differences(theirs["body"], record.summary(response.json())))
        if response.status_code != theirs["status"]:
            found.append(f"status {response.status_code} where PaddleX has {theirs['status']}")
        if response.headers["content-type"] != theirs["content_type"]:
            found.append(f"content type {response.headers['content-type']}")
        differences += [f"{case.name}: {what}" for what in found]
        compared += 1
    assert differences == []
    assert compared == len(CASES) - len(REASONS) - len(DIFFERENT)

    # And where PaddleX does less than was asked for.
    def answer(name: str) -> Any:
        return record.ask(site, CASES[name], keys, files_url)

    assert recorded["answers"]["data_uri"]["status"] == 500
    plain = answer("infer_without_picture").json()["result"]
    assert answer("data_uri").json()["result"] == plain

    theirs = recorded["answers"]["topk_honoured"]["body"]["result"]["detectedObjects"]
    ours = answer("topk_honoured").json()["result"]["detectedObjects"]
    assert len(ours) == len(theirs)
    for one, other in zip(theirs, ours, strict=True):
        assert list(_differences(one["recResults"][:2], other["recResults"])) == []
    assert any(len(detected["recResults"]) > 2 for detected in theirs)

    assert recorded["answers"]["image_is_half"]["status"] == 200
    assert "damaged or incomplete" in answer("image_is_half").json()["errorMsg"]

    assert recorded["answers"]["radius"]["status"] == 200
    assert "hamming" in answer("radius").json()["errorMsg"]


def _differences(theirs: Any, ours: Any, at: str = "", digits: float = 0.0):
    """Where two answers are not the same: keys and their order, types, values, numbers nearly."""
    if at == ".logId" or at == ".result.indexKey":
        if not isinstance(ours, str) or not ours:
            yield f"{at} is {ours!r}"
    elif isinstance(theirs, dict) and isinstance(ours, dict):
        known = [key for key in ours if key not in OURS]
        if at == "" and "workers" in ours:  # our /health says more
            known = [key for key in known if key in theirs]
        if list(theirs) != known:
            yield f"{at} has the keys {known} where PaddleX has {list(theirs)}"
        for key in theirs.keys() & ours.keys():
            near = {"bbox": PIXELS, "score": SCORE}.get(key, digits)
            yield from _differences(theirs[key], ours[key], f"{at}.{key}", near)
    elif isinstance(theirs, list) and isinstance(ours, list):
        if len(theirs) != len(ours):
            yield f"{at} has {len(ours)} items where PaddleX has {len(theirs)}"
        for position, (one, other) in enumerate(zip(theirs, ours, strict=False)):
            yield from _differences(one, other, f"{at}[{position}]", digits)
    elif digits and type(theirs) in (int, float) and type(ours) in (int, float):
        if abs(theirs - ours) > digits:
            yield f"{at} is {ours} where PaddleX has {theirs}"
    elif type(theirs) is not type(ours) or theirs != ours:
        yield f"{at} is {ours!r} where PaddleX has {theirs!r}"


def test_a_mistake_is_named_where_paddlex_says_internal_server_error(
    local, files_url, recorded, settings
):
    settings.SHITU_FETCH_ALLOW = [files_url.removeprefix("http://"), "127.0.0.1:9"]
    keys: dict[str, str] = {}
    record.ask(local, CASES["build"], keys, files_url)
    for name, (status, words) in REASONS.items():
        assert recorded["answers"][name]["status"] == 500
        response = record.ask(local, CASES[name], keys, files_url)
        body = response.json()
        assert list(body) == ["logId", "errorCode", "errorMsg"], name
        assert (response.status_code, body["errorCode"]) == (status, status), (name, body)
        assert words in body["errorMsg"], (name, body)

    settings.SHITU_PADDLEX_STRICT_ERRORS = True
    for name, (status, _) in REASONS.items():
        if status != 413:
            response = record.ask(local, CASES[name], keys, files_url)
            theirs = recorded["answers"][name]["body"]
            assert list(_differences(theirs, response.json())) == [], name
            assert response.status_code == 500
