"""The requests that were sent to PaddleX and are sent to us. No Django here: the recorder uses it.

A case with `key` builds an index; `Key("drinks")` stands for the key that came back, and
`{files}` in a text for the address of a little server that serves the pictures.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PICTURES = Path(__file__).parent / "pictures"
RECORDED = Path(__file__).parent / "recorded"

GALLERY = (
    ("milk-1.jpg", "Lumi Whole Milk 1 L"),
    ("milk-2.jpg", "Lumi Whole Milk 1 L"),
    ("milk-3.jpg", "Lumi Whole Milk 1 L"),
    ("noodles-1.jpg", "阿姨牛肉面"),
    ("noodles-2.jpg", "阿姨牛肉面"),
    ("cola-1.jpg", "Fizzo: Cola"),
    ("cola-2.jpg", "Fizzo: Cola"),
)


@dataclass(frozen=True)
class Key:
    """The key of the index that an earlier case built."""

    of: str


@dataclass(frozen=True)
class Case:
    """One request. `body` goes out as JSON unless `raw` is given."""

    name: str
    path: str
    body: Any = None
    raw: bytes | None = None
    method: str = "POST"
    content_type: str | None = "application/json"
    key: str = ""
    #: Why we answer otherwise on purpose; such a case has a test of its own.
    differs: str = field(default="", compare=False)


def read(name: str) -> bytes:
    return (PICTURES / name).read_bytes()


def encoded(name: str) -> str:
    return base64.b64encode(read(name)).decode()


def pair(name: str, label: str) -> dict[str, str]:
    return {"image": encoded(name), "label": label}


def pairs(count: int = len(GALLERY)) -> list[dict[str, str]]:
    return [pair(name, label) for name, label in GALLERY[:count]]


def huge_picture() -> str:
    """180 million pixels, more than PaddleX takes, in a few kilobytes."""
    from PIL import Image

    out = io.BytesIO()
    Image.new("1", (20_000, 9_000)).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def resolved(value: Any, keys: dict[str, str], files: str) -> Any:
    """`value` with every Key and every `{files}` replaced."""
    if isinstance(value, Key):
        return keys[value.of]
    if isinstance(value, str):
        return value.replace("{files}", files)
    if isinstance(value, dict):
        return {name: resolved(part, keys, files) for name, part in value.items()}
    if isinstance(value, list):
        return [resolved(part, keys, files) for part in value]
    return value


BUILD, ADD = "/shitu-index-build", "/shitu-index-add"
REMOVE, INFER = "/shitu-index-remove", "/shitu-infer"
DRINKS, EMPTY = Key("drinks"), Key("empty")
NOBODY = "11111111-1111-4111-8111-111111111111"


def good_cases() -> list[Case]:
    single, scene, turned = encoded("single.jpg"), encoded("scene.jpg"), encoded("turned.jpg")
    milk = encoded("milk-test.jpg")

    def infer(name: str, picture: str = single, **fields: Any) -> Case:
        return Case(name, INFER, {"image": picture, "indexKey": DRINKS, **fields})

    return [
        Case("health", "/health", method="GET"),
        Case("build", BUILD, {"imageLabelPairs": pairs(5)}, key="drinks"),
        Case("add", ADD, {"imageLabelPairs": pairs()[5:], "indexKey": DRINKS}),
        Case("remove_one", REMOVE, {"ids": [1], "indexKey": DRINKS}),
        Case("remove_absent", REMOVE, {"ids": [1, 4711], "indexKey": DRINKS}),
        Case("remove_negative", REMOVE, {"ids": [-3], "indexKey": DRINKS}),
        Case("remove_nothing", REMOVE, {"ids": [], "indexKey": DRINKS}),
        Case("ids_as_text", REMOVE, {"ids": ["815"], "indexKey": DRINKS}),
        infer("infer"),
        infer("infer_second", milk),
        infer("infer_scene", scene),
        infer("infer_turned_by_exif", turned),
        infer("infer_without_picture", visualize=False),
        infer("infer_with_picture", visualize=True),
        infer("infer_nulls", detThreshold=None, recThreshold=None, topk=None, visualize=None),
        infer("infer_all_known", scene, recThreshold=-1, visualize=False),
        infer("infer_all_unknown", scene, recThreshold=0.999, visualize=False),
        infer("infer_some_known", scene, recThreshold=0.7, visualize=False),
        infer("infer_low_detection", scene, detThreshold=0.2, visualize=False),
        infer("infer_nothing_detected", detThreshold=1.0, visualize=False),
        infer("infer_beyond_every_threshold", detThreshold=7, recThreshold=7, visualize=False),
        infer("infer_numbers_as_text", scene, detThreshold="0.4", recThreshold="0.6"),
        infer("infer_booleans_as_text", visualize="no"),
        infer("infer_foreign_fields", somethingElse=[1, 2], fileType=1, visualize=False),
        infer("infer_url", "{files}/single.jpg", visualize=False),
        infer(
            "infer_line_breaks", "\n".join(single[i : i + 76] for i in range(0, len(single), 76))
        ),
        Case(
            "infer_without_content_type",
            INFER,
            {"image": single, "indexKey": DRINKS, "visualize": False},
            content_type=None,
        ),
        Case(
            "infer_json_suffix",
            INFER,
            {"image": single, "indexKey": DRINKS, "visualize": False},
            content_type="application/vnd.api+json; charset=utf-8",
        ),
        Case(
            "build_by_url",
            BUILD,
            {"imageLabelPairs": [{"image": "{files}/cola-1.jpg", "label": "Fizzo: Cola"}]},
            key="empty",
        ),
        Case("remove_last", REMOVE, {"ids": [0], "indexKey": EMPTY}),
        Case("infer_in_empty", INFER, {"image": single, "indexKey": EMPTY, "visualize": False}),
        Case("add_to_empty", ADD, {"imageLabelPairs": pairs(2), "indexKey": EMPTY}),
    ]


def error_cases() -> list[Case]:
    single = encoded("single.jpg")
    one = [pair("milk-1.jpg", "Milk")]
    infer = {"image": single, "indexKey": DRINKS}

    def bad(name: str, path: str, body: Any, **options: Any) -> Case:
        return Case(name, path, body, **options)

    def raw(name: str, data: bytes, path: str = INFER, **options: Any) -> Case:
        return Case(name, path, raw=data, **options)

    return [
        # What pydantic and FastAPI find: equal to the letter.
        raw("malformed_json", b"{nonsense", BUILD),
        raw("truncated_json", b'{"image": "abc', INFER),
        raw("empty_body", b"", BUILD),
        raw("null_body", b"null"),
        raw("list_body", b"[]"),
        raw("text_body", b'"abc"'),
        raw("number_body", b"17", REMOVE),
        raw("not_utf8", b'{"image": "\xff\xfe\xfa"}'),
        raw("nested_too_deeply", b"[" * 100_000),
        raw("nothing_given", b"{}", BUILD),
        raw("nothing_given_to_add", b"{}", ADD),
        raw("nothing_given_to_remove", b"{}", REMOVE),
        raw("nothing_given_to_infer", b"{}", INFER),
        bad("null_pairs", BUILD, {"imageLabelPairs": None}),
        bad("pairs_are_an_object", BUILD, {"imageLabelPairs": {"image": "a", "label": "b"}}),
        bad("pair_is_a_text", BUILD, {"imageLabelPairs": ["a"]}),
        bad("pair_is_empty", ADD, {"imageLabelPairs": [{}], "indexKey": DRINKS}),
        bad("label_is_a_number", BUILD, {"imageLabelPairs": [{"image": "a", "label": 1}]}),
        bad("label_is_null", BUILD, {"imageLabelPairs": [one[0], {"image": "a", "label": None}]}),
        bad("key_is_null", ADD, {"imageLabelPairs": one, "indexKey": None}),
        bad("key_is_a_number", REMOVE, {"ids": [1], "indexKey": 7}),
        bad("key_missing_in_add", ADD, {"imageLabelPairs": one}),
        bad("key_missing_in_remove", REMOVE, {"ids": [1]}),
        bad("ids_are_a_number", REMOVE, {"ids": 1, "indexKey": DRINKS}),
        bad("ids_are_fractions", REMOVE, {"ids": [1.5, "x", None, True], "indexKey": DRINKS}),
        bad("image_is_a_number", INFER, infer | {"image": 5}),
        bad("image_is_null", INFER, infer | {"image": None}),
        bad("topk_is_a_word", INFER, infer | {"topk": "many"}),
        bad("topk_is_a_fraction", INFER, infer | {"topk": 2.5}),
        bad("threshold_is_a_word", INFER, infer | {"detThreshold": "high"}),
        bad("threshold_is_a_list", INFER, infer | {"recThreshold": [0.5]}),
        bad("radius_is_a_word", INFER, infer | {"hammingRadius": "wide"}),
        bad("visualize_is_a_word", INFER, infer | {"visualize": "perhaps"}),
        bad("several_at_once", INFER, {"topk": "x", "detThreshold": {}, "visualize": 9}),
        bad("with_log_id", INFER, {"logId": "4711-abc", "topk": "x"}),
        raw("text_plain", b"{}", BUILD, content_type="text/plain"),
        raw("form", b"image=a", content_type="application/x-www-form-urlencoded"),
        # Addresses and methods.
        Case("unknown_path", "/shitu-index-list", {"logId": "abc"}),
        Case("wrong_method", INFER, method="GET"),
        Case("wrong_method_delete", BUILD, {"logId": "abc"}, method="DELETE"),
        # PaddleX answers these with 500 and no reason.
        bad("unknown_key_in_add", ADD, {"imageLabelPairs": one, "indexKey": NOBODY}),
        bad("unknown_key_in_remove", REMOVE, {"ids": [1], "indexKey": NOBODY}),
        bad("unknown_key_in_infer", INFER, {"image": single, "indexKey": NOBODY}),
        bad("key_is_no_uuid", INFER, {"image": single, "indexKey": "../../etc/passwd"}),
        bad("infer_without_key", INFER, {"image": single}),
        bad("image_is_empty", INFER, infer | {"image": ""}),
        bad("image_is_no_base64", INFER, infer | {"image": "abcde"}),
        bad("image_is_no_picture", INFER, infer | {"image": "aGVsbG8gd29ybGQ="}),
        bad("image_is_huge", INFER, infer | {"image": huge_picture()}),
        bad("url_leads_nowhere", INFER, infer | {"image": "http://127.0.0.1:9/a.jpg"}),
        bad("url_is_not_found", INFER, infer | {"image": "{files}/missing.jpg"}),
        bad("url_is_no_picture", INFER, infer | {"image": "{files}/notes.txt"}),
        bad("url_without_host", INFER, infer | {"image": "http:///a.jpg"}),
        bad("no_pairs_in_build", BUILD, {"imageLabelPairs": []}),
        bad("no_pairs_in_add", ADD, {"imageLabelPairs": [], "indexKey": DRINKS}),
        bad("one_bad_picture_in_build", BUILD, {"imageLabelPairs": [*one, pair("notes.txt", "x")]}),
        bad(
            "one_bad_picture_in_add",
            ADD,
            {"imageLabelPairs": [*one, pair("notes.txt", "x")], "indexKey": DRINKS},
        ),
        # What we can do and PaddleX cannot.
        bad(
            "image_is_half",
            INFER,
            infer | {"image": single[: len(single) // 8 * 4]},
            differs="PaddleX makes the missing half grey and answers about that",
        ),
        bad(
            "data_uri",
            INFER,
            infer | {"image": f"data:image/jpeg;base64,{single}", "visualize": False},
            differs="a data: URI is understood",
        ),
        bad(
            "topk_honoured",
            INFER,
            infer | {"topk": 2, "recThreshold": -1, "visualize": False},
            differs="PaddleX ignores topk",
        ),
        bad(
            "radius",
            INFER,
            infer | {"hammingRadius": 100, "visualize": False},
            differs="PaddleX ignores hammingRadius unless the metric is hamming, which is dead",
        ),
    ]


def all_cases() -> list[Case]:
    return [*good_cases(), *error_cases()]
