"""predict and evaluate."""

from __future__ import annotations

import io
import json
import os

import pytest
from PIL import Image

from recognition.models import RecognitionQuery
from tests import factories
from tests.factories import png

pytestmark = pytest.mark.usefixtures("own_worker", "boss")


@pytest.fixture
def known(run, shop, catalogue):
    """A catalogue that holds the shop."""
    for number, label in ((1, "tea"), (2, "tea"), (3, "green coffee")):
        factories.add(catalogue, label, number)
    from recognition.services import indexing

    indexing.embed_waiting(catalogue.pk)
    return catalogue


@pytest.fixture
def predict(run, known):
    def command(*arguments: object) -> tuple[int, list[dict], str]:
        code, out, err = run("predict", *arguments, "--catalogue", known.key, "--json")
        return code, [json.loads(line) for line in out.splitlines()], err

    return command


class TestPredict:
    def test_a_file_gets_paddlexs_result(self, predict, shop):
        code, [result], _ = predict(shop / "3.png")
        assert code == 0
        assert result["res"]["input_path"] == str(shop / "3.png")
        [box] = result["res"]["boxes"]
        assert set(box) == {"labels", "rec_scores", "det_score", "coordinate"}
        assert box["labels"][0] == "green coffee"
        assert box["rec_scores"][0] == pytest.approx(1, abs=1e-3)
        assert (box["det_score"], box["coordinate"]) == (0, [0, 0, 64, 48])

    def test_a_directory_gives_its_pictures_in_order(self, predict, shop):
        (shop / "below").mkdir()
        (shop / "below" / "A.JPG").write_bytes(png(2))
        code, results, _ = predict(shop)
        assert code == 0
        names = [result["res"]["input_path"].removeprefix(f"{shop}/") for result in results]
        assert names == ["1.png", "2.png", "3.png", "below/A.JPG"]

    def test_one_bad_input_never_stops_the_others(self, predict, shop, tmp_path):
        (shop / "2.png").write_bytes(b"broken")
        (tmp_path / "empty").mkdir()
        private = "http://127.0.0.1/x.png"
        code, results, err = predict(private, shop, tmp_path / "none.png", tmp_path / "empty")
        assert code == 1
        assert len(results) == 2
        assert f"{private}: The URL is not fetched" in err
        assert f"{shop}/2.png: The picture is not a picture" in err
        assert "none.png: it cannot be read: No such file" in err
        assert "there is no picture in" in err
        assert "4 of 6 inputs could not be answered" in err

    def test_nothing_answered_is_exit_code_2(self, predict, tmp_path):
        assert predict(tmp_path / "none.png")[0] == 2

    def test_options_reach_the_query(self, predict, shop):
        predict(shop / "1.png", "--topk", 1, "--rec-threshold", 0.9, "--det-threshold", 0.3)
        query = RecognitionQuery.objects.get()
        assert (query.top_k, query.rec_threshold, query.det_threshold) == (1, 0.9, 0.3)
        code, _, err = predict(shop / "1.png", "--topk", 1000)
        assert code == 2 and "top_k" in err

    def test_results_are_saved_under_paddlexs_names(self, predict, shop, tmp_path):
        (shop / "below").mkdir()
        (shop / "below" / "1.png").write_bytes(png(3))
        out = tmp_path / "out"
        code, results, _ = predict(shop, "--save", out)
        assert code == 0
        assert sorted(path.name for path in out.iterdir()) == [
            "1-2.json",
            "1-2_res.png",
            "1.json",
            "1_res.png",
            "2.json",
            "2_res.png",
            "3.json",
            "3_res.png",
        ]
        assert json.loads((out / "1.json").read_text()) == results[0]["res"]
        assert Image.open(out / "1_res.png").format == "PNG"

    def test_every_reference_picture_is_named_as_in_paddlex(self, predict, shop):
        _, [result], _ = predict(shop / "1.png", "--rec-threshold", -1)
        assert sorted(result["res"]["boxes"][0]["labels"]) == ["green coffee", "tea", "tea"]

    def test_every_page_is_asked_about(self, predict, tmp_path):
        pages = [Image.open(io.BytesIO(png(number))) for number in (3, 1)]
        pages[0].save(tmp_path / "scan.tiff", save_all=True, append_images=pages[1:])
        code, results, _ = predict(tmp_path / "scan.tiff", "--save", tmp_path / "out")
        assert code == 0
        labels = [result["res"]["boxes"][0]["labels"][0] for result in results]
        assert labels == ["green coffee", "tea"]
        assert len(list((tmp_path / "out").iterdir())) == 4

    def test_names_that_are_not_utf8_are_printed_and_saved(self, predict, tmp_path):
        folder = tmp_path / "photos"
        folder.mkdir()
        (folder / os.fsdecode(b"caf\xe9.png")).write_bytes(png(1))
        code, [result], _ = predict(folder, "--save", tmp_path / "out")
        assert code == 0
        assert result["res"]["input_path"].endswith("caf\\udce9.png")
        assert len(list((tmp_path / "out").iterdir())) == 2


class TestEvaluate:
    @pytest.fixture
    def evaluate(self, run, known, shop, tmp_path):
        def command(queries: str, *more: object) -> tuple[int, str, str, dict]:
            (tmp_path / "queries.txt").write_text(queries)
            code, out, err = run(
                *("evaluate", "--catalogue", known.key, "--root", shop),
                *("--queries", tmp_path / "queries.txt", "--json", tmp_path / "figures.json"),
                *more,
            )
            figures = tmp_path / "figures.json"
            return code, out, err, json.loads(figures.read_text()) if figures.exists() else {}

        return command

    def test_recall_is_computed_from_the_answers(self, evaluate):
        code, out, _, figures = evaluate("1.png tea\n2.png tea\n3.png green coffee\n")
        assert code == 0
        assert figures["recall_at_1"] == 1.0
        assert "Recall@1                             100.0%" in out

    def test_a_wrong_label_changes_it_and_is_named(self, evaluate):
        code, out, _, figures = evaluate("1.png tea\n3.png tea\n")
        assert code == 0
        assert (figures["recall_at_1"], figures["recall_at_5"]) == (0.5, 1.0)
        assert "tea -> green coffee (1)" in out
        assert "1 of 2" in out

    def test_bad_lines_are_in_no_figure(self, evaluate):
        code, _, err, figures = evaluate("1.png tea\nmissing.png tea\nnolabel\n")
        assert code == 1
        assert (figures["queries"], figures["failed"]) == (1, 2)
        assert "line 2: missing.png: there is no such file" in err
        assert "line 3: no label" in err

    def test_whole_asks_without_detection(self, evaluate, known):
        known.detector = "stub_det"
        known.save(update_fields=["detector"])
        evaluate("1.png tea\n")
        assert RecognitionQuery.objects.latest("pk").boxes is None
        evaluate("1.png tea\n", "--whole")
        query = RecognitionQuery.objects.latest("pk")
        assert query.boxes == []
        [detection] = query.detections.all()
        assert (detection.det_score, detection.coordinate) == (0, [0, 0, 64, 48])

    def test_nothing_to_ask(self, evaluate):
        assert evaluate("\n")[0] == 2
