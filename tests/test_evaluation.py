"""Figures of an evaluation: recall, matching of boxes, mix-ups."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recognition.errors import BadInput
from recognition.evaluation import (
    Confusion,
    LabelledBox,
    SceneAnswer,
    SingleAnswer,
    evaluate,
    iou,
    match_boxes,
    match_labelled,
    recall_at,
)

LABELS = ["tea", "milk", "红岩 强化型", "cola"]
label = st.sampled_from(LABELS)
coordinate = st.floats(-1e4, 1e4, allow_nan=False)
box = st.tuples(coordinate, coordinate, st.floats(0, 500), st.floats(0, 500)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)
# Few and small, so that overlaps, ties and repetitions do happen.
near_box = st.tuples(*[st.integers(0, 4)] * 2, *[st.integers(1, 4)] * 2).map(
    lambda b: (float(b[0]), float(b[1]), float(b[0] + b[2]), float(b[1] + b[3]))
)
ranking = st.lists(label, unique=True, max_size=4)
queries = st.lists(st.tuples(ranking, label), min_size=1, max_size=20)
regions = st.lists(st.builds(LabelledBox, label, near_box), max_size=6)


@given(queries, st.integers(1, 5))
def test_recall_is_a_share_that_grows_with_k(asked, k):
    ranked, truth = [r for r, _ in asked], [t for _, t in asked]
    assert 0 <= recall_at(k, ranked, truth) <= recall_at(k + 1, ranked, truth) <= 1


@given(queries, st.randoms(use_true_random=False))
def test_recall_does_not_depend_on_the_order_of_queries(asked, shuffler):
    mixed = shuffler.sample(asked, len(asked))
    before = recall_at(1, [r for r, _ in asked], [t for _, t in asked])
    assert recall_at(1, [r for r, _ in mixed], [t for _, t in mixed]) == before


def test_recall_counts_the_first_k_only():
    ranked = [["tea", "milk"], ["tea", "cola"], [], ["cola"]]
    truth = ["tea", "cola", "milk", "milk"]
    assert recall_at(1, ranked, truth) == 0.25
    assert recall_at(2, ranked, truth) == 0.5


@pytest.mark.parametrize(
    ("k", "ranked", "truth"),
    [(0, [["tea"]], ["tea"]), (1, [["tea"]], ["tea", "milk"]), (1, [], [])],
)
def test_recall_refuses_what_has_no_value(k, ranked, truth):
    with pytest.raises(BadInput):
        recall_at(k, ranked, truth)


@given(box, box)
def test_iou_is_a_symmetric_share(a, b):
    assert iou(a, b) == iou(b, a)
    assert 0 <= iou(a, b) <= 1 + 1e-9


@given(near_box)
def test_iou_with_itself_is_one(a):
    assert iou(a, a) == 1


def test_iou_of_known_boxes():
    assert iou((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert iou((0, 0, 2, 2), (2, 0, 4, 2)) == 0  # they only touch
    assert iou((5, 5, 5, 5), (5, 5, 5, 5)) == 0  # no area


@given(st.lists(near_box, max_size=6), st.lists(near_box, max_size=6))
def test_matching_uses_each_box_once_and_only_good_overlaps(found, truth):
    pairs = match_boxes(found, truth)
    assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
    assert all(iou(found[i], truth[j]) >= 0.5 for i, j in pairs)


@given(st.lists(near_box, max_size=6), st.lists(near_box, max_size=6), st.randoms())
def test_matching_does_not_depend_on_the_order_of_boxes(found, truth, shuffler):
    mixed = shuffler.sample(found, len(found))
    before = sorted((found[i], truth[j]) for i, j in match_boxes(found, truth))
    assert sorted((mixed[i], truth[j]) for i, j in match_boxes(mixed, truth)) == before


def test_the_better_overlap_wins():
    truth = [(0.0, 0.0, 10.0, 10.0)]
    assert match_boxes([(0, 0, 10, 7), (0, 0, 10, 9)], truth) == [(1, 0)]


def test_only_the_right_label_claims_an_object():
    truth = [LabelledBox("tea", (0, 0, 10, 10))]
    found = [LabelledBox("milk", (0, 0, 10, 10)), LabelledBox("tea", (0, 0, 10, 8))]
    assert match_labelled(found, truth) == [(1, 0)]
    assert match_labelled(found[:1], truth) == []
    assert match_labelled([LabelledBox(None, (0, 0, 10, 10))], truth) == []


@given(queries, st.lists(st.builds(SceneAnswer, regions, regions), max_size=4), st.randoms())
def test_every_figure_is_a_share_and_ignores_order(asked, scenes, shuffler):
    singles = [SingleAnswer(truth, ranked) for ranked, truth in asked]
    report = evaluate(singles, scenes)
    for share in (
        report.recall_at_1,
        report.recall_at_5,
        report.detection_recall,
        report.detection_precision,
        report.scene_recall,
        report.scene_precision,
    ):
        assert share is None or 0 <= share <= 1
    if report.scene_recall is not None and report.detection_recall is not None:
        assert sum(p.right for p in report.products) <= sum(p.asked for p in report.products)
    mixed = [
        SceneAnswer(shuffler.sample(s.truth, len(s.truth)), shuffler.sample(s.found, len(s.found)))
        for s in shuffler.sample(scenes, len(scenes))
    ]
    again = evaluate(shuffler.sample(singles, len(singles)), mixed)
    assert replace(again, confusions=()) == replace(report, confusions=())


def _perfect() -> tuple[list[SingleAnswer], list[SceneAnswer]]:
    singles = [SingleAnswer(name, [name, *(x for x in LABELS if x != name)]) for name in LABELS]
    regions = [
        LabelledBox(name, (20.0 * k, 0.0, 20.0 * k + 10, 30.0)) for k, name in enumerate(LABELS)
    ]
    return singles, [SceneAnswer(regions, list(reversed(regions)))]


def test_perfect_answers_give_one_everywhere():
    report = evaluate(*_perfect())
    assert report.recall_at_1 == report.recall_at_5 == 1
    assert report.detection_recall == report.detection_precision == 1
    assert report.scene_recall == report.scene_precision == 1
    assert report.confusions == ()
    assert all(product.recall == 1 for product in report.products)


def test_a_deliberately_wrong_label_lowers_the_figures():
    """The test of the test: an evaluation that cannot get worse measures nothing."""
    singles, scenes = _perfect()
    singles[0] = SingleAnswer("tea", ["cola", "tea"])
    wrong = [replace(r, label="cola") if r.label == "tea" else r for r in scenes[0].found]
    report = evaluate(singles, [SceneAnswer(scenes[0].truth, wrong)])
    assert report.recall_at_1 == 0.75
    assert report.recall_at_5 == 1
    assert report.detection_recall == 1  # the box is right, only its name is not
    assert report.scene_recall == report.scene_precision == 0.75
    assert report.confusions == (Confusion("tea", "cola", 2),)
    [tea] = [p for p in report.products if p.label == "tea"]
    assert (tea.asked, tea.right, tea.recall) == (2, 0, 0)


def test_a_missing_box_and_an_extra_one_lower_recall_and_precision():
    _, [scene] = _perfect()
    extra = LabelledBox("tea", (500, 500, 600, 600))
    report = evaluate([], [SceneAnswer(scene.truth, [*scene.found[:3], extra])])
    assert report.detection_recall == report.scene_recall == 0.75
    assert report.detection_precision == report.scene_precision == 0.75
    assert report.recall_at_1 is None


def test_unknown_is_a_mix_up_but_not_a_wrong_name():
    _, [scene] = _perfect()
    found = [replace(scene.found[0], label=None), *scene.found[1:]]
    report = evaluate([], [SceneAnswer(scene.truth, found)])
    assert report.scene_precision == 1
    assert report.scene_recall == 0.75
    assert report.confusions == (Confusion(scene.found[0].label, None, 1),)


def test_a_true_region_needs_a_label():
    with pytest.raises(BadInput, match="no label"):
        evaluate([], [SceneAnswer([LabelledBox(None, (0, 0, 1, 1))], [])])


def test_the_report_prints_and_serialises():
    report = evaluate(*_perfect())
    assert ("Recall@1", "100.0%") in report.as_rows()
    again = json.loads(json.dumps(report.as_dict(), ensure_ascii=False))
    assert again["scene_recall"] == 1
    assert again["products"][-1]["label"] == "红岩 强化型"


def test_figures_not_asked_for_are_left_out_of_the_rows():
    rows = dict(evaluate([SingleAnswer("tea", ["tea"])]).as_rows())
    assert "Recall@1" in rows
    assert not any("recall (" in name.lower() for name in rows)


def test_random_answers_score_near_chance():
    guesses = np.random.default_rng(5).choice(LABELS, (2000, 2)).tolist()
    singles = [SingleAnswer(truth, [guess]) for truth, guess in guesses]
    assert evaluate(singles).recall_at_1 == pytest.approx(1 / len(LABELS), abs=0.04)
