"""A result prints and saves itself as PaddleX's does."""

from __future__ import annotations

import ast
import json

import numpy as np
import pytest
from PIL import Image

from recognition.client.results import ShiTuResult
from tests import factories

BOXES = [
    {
        "labels": ["红牛-强化型", "tea"],
        "rec_scores": [0.72, 0.7],
        "det_score": 0.61,
        "coordinate": [4.0, 5.0, 40.0, 44.0],
    },
    {"labels": [None], "rec_scores": [None], "det_score": 0.5, "coordinate": [0.0, 0.0, 9.0, 9.0]},
]


def result(path: str | None = "photos/001.jpeg") -> ShiTuResult:
    return ShiTuResult(path, BOXES, lambda: factories.png(0))


def test_it_is_a_dict_with_paddlex_s_keys(library):
    one = result()
    assert [*one, "input_img"] == sorted(library["keys"], key=[*one, "input_img"].index)
    assert list(one["boxes"][0]) == list(library["results"][0]["res"]["boxes"][0])
    assert one["input_img"].shape == (48, 64, 3)
    assert one["input_img"] is one["input_img"]
    with pytest.raises(KeyError):
        one["nothing"]


def test_json_is_wrapped_and_its_file_is_not(tmp_path):
    one = result()
    assert one.json == one.str == {"res": {"input_path": "photos/001.jpeg", "boxes": BOXES}}
    one.save_to_json(tmp_path / "new")
    text = (tmp_path / "new" / "001.json").read_text(encoding="utf-8")
    assert json.loads(text) == one.json["res"]
    assert "红牛" in text and '    "input_path"' in text
    one.save_to_json(str(tmp_path / "a.json"), indent=1, ensure_ascii=True)
    assert "红牛" not in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_pictures_keep_the_kind_of_their_input(tmp_path):
    result().save_to_img(tmp_path)
    drawn = Image.open(tmp_path / "001_res.jpeg")
    assert (drawn.format, drawn.size) == ("JPEG", (64, 48))
    result("https://example.org/x/002.png").save_to_img(str(tmp_path / "own.png"))
    assert Image.open(tmp_path / "own.png").format == "PNG"
    result("scan.dat").save_all(tmp_path)
    assert {"scan_res.png", "scan.json"} <= {path.name for path in tmp_path.iterdir()}


def test_what_has_no_name_gets_one_of_its_own(tmp_path):
    first, second = result(None), result(None)
    for one in (first, second):
        one.save_all(tmp_path)
    assert len(list(tmp_path.glob("*_res.png"))) == len(list(tmp_path.glob("*.json"))) == 2
    assert {path.stem for path in tmp_path.glob("*.json")} == {
        path.stem.removesuffix("_res") for path in tmp_path.glob("*.png")
    }


def test_pages_of_one_file_do_not_overwrite_each_other(tmp_path):
    for page in (1, 2):
        ShiTuResult("scan.tiff", BOXES, lambda: factories.png(0), page=page).save_all(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "scan-1.json", "scan-1_res.tiff", "scan-2.json", "scan-2_res.tiff",
    }  # fmt: skip


def test_it_is_drawn_upon(library):
    one = result()
    drawn = one.img
    assert list(drawn) == library["image_keys"]
    assert np.asarray(drawn["res"]).shape == (48, 64, 3)
    assert (np.asarray(drawn["res"]) != one["input_img"][:, :, ::-1]).any()


def test_it_prints(capsys):
    result().print()
    assert ast.literal_eval(capsys.readouterr().out) == result().json
    result().print(json_format=True, indent=2, ensure_ascii=True)
    text = capsys.readouterr().out
    assert json.loads(text) == result().json
    assert "\\u7ea2" in text
    result().print(format_json=True, indent=2, ensure_ascii=True)  # PaddleX's documents have both
    assert capsys.readouterr().out == text
