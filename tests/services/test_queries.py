"""A picture is asked about, and answered from what the catalogue holds at that moment."""

from __future__ import annotations

import time

import pytest
from django.core.files.storage import default_storage

from recognition import tasks
from recognition.errors import AnswerTimeout, BadInput
from recognition.models import Detection, Match, Metric, RecognitionQuery, State
from recognition.search import ranking
from recognition.services import bell, catalogues, gallery, products, queries
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def stocked(catalogue, stub_engine, run_tasks):
    """Two products of two pictures each."""
    with run_tasks():
        for label, seeds in (("tea", (1, 2)), ("coffee", (3, 4))):
            for seed in seeds:
                factories.add(catalogue, label, seed)
    return catalogue


def first(query: RecognitionQuery) -> Detection:
    return query.detections.get(position=0)


def test_it_names_the_product_and_the_best_picture(stocked, ask):
    query = ask(3)
    assert query.state == State.DONE
    best = first(query).matches.get(rank=0)
    assert (best.label, best.image.number) == ("coffee", 2)
    assert best.score == pytest.approx(1.0, abs=1e-3)
    assert first(query).status == "match"


@pytest.mark.parametrize("metric", ["IP", "L2"])
def test_the_label_of_a_picture_is_that_of_the_region_recognised_best(stocked, ask, metric):
    catalogues.change(stocked, metric=metric)
    query = ask(1)
    Detection.objects.filter(query=query).delete()
    for position, (label, similarity) in enumerate([("background", 0.3), ("right", 0.95)]):
        found = Detection.objects.create(
            query=query, position=position, det_score=0.9, x1=0, y1=0, x2=9, y2=9, status="match"
        )
        score = ranking.score(similarity, Metric(metric))
        Match.objects.create(detection=found, rank=0, label=label, score=score)
    query.refresh_from_db()
    assert queries.best_labels(query) == ["right"]


def test_there_is_one_entry_per_product_unless_asked_otherwise(stocked, ask):
    options = {"rec_threshold": -1.0, "top_k": 10}
    assert first(ask(1, **options)).matches.count() == 2
    assert first(ask(1, per_product=False, **options)).matches.count() == 4


def test_nothing_close_enough_is_unknown_and_paddlex_writes_none(stocked, ask):
    query = ask(99, rec_threshold=0.999)
    assert first(query).status == "unknown"
    [box] = queries.paddlex_result(query)["res"]["boxes"]
    assert (box["labels"], box["rec_scores"]) == ([None], [None])


def test_paddlex_is_told_the_name_that_the_catalogue_chooses(
    stocked, ask, django_assert_num_queries
):
    products.change(stocked.products.get(label="tea"), sku="T-1")
    catalogues.change(stocked, shown_label="sku")
    query = ask(1, rec_threshold=-1.0)
    query = RecognitionQuery.objects.select_related("catalogue").get(pk=query.pk)
    with django_assert_num_queries(1):
        [box] = queries.paddlex_result(query)["res"]["boxes"]
    assert box["labels"] == ["T-1", "coffee"]  # which has none
    [region] = queries.answer_of(query, "label")
    assert [label for label, _ in region.matches] == ["tea", "coffee"]


def test_an_empty_catalogue_knows_nothing(catalogue, ask):
    assert first(ask(1)).status == "unknown"


def test_a_picture_that_was_added_is_in_the_next_answer(stocked, ask, run_tasks):
    with run_tasks():
        factories.add(stocked, "juice", 7)
    assert first(ask(7)).matches.get(rank=0).label == "juice"


def test_a_picture_that_was_removed_is_in_no_answer(stocked, ask):
    gallery.remove_numbers(stocked, [2])
    labels = [
        match.image.number for match in first(ask(3, rec_threshold=-1, top_k=9)).matches.all()
    ]
    assert 2 not in labels


def test_a_new_label_is_in_the_next_answer_without_embedding(stocked, ask):
    products.change(stocked.products.get(label="coffee"), label="espresso")
    assert first(ask(3)).matches.get(rank=0).label == "espresso"


def test_an_inactive_product_is_never_an_answer(stocked, ask):
    products.change(stocked.products.get(label="coffee"), is_active=False)
    assert "coffee" not in first(ask(3, rec_threshold=-1)).matches.values_list("label", flat=True)


def test_the_answer_says_what_it_was_computed_from(stocked, ask):
    query = ask(1)
    stocked.refresh_from_db()
    assert query.catalogue_version == stocked.version
    assert query.answered_with["feature_model"]["digest"] == query.feature_model.digest
    assert {"decode", "embed", "search"} <= set(query.timings)


def test_l2_scores_are_squared_distances_and_the_threshold_goes_the_right_way(stocked, ask):
    catalogues.change(stocked, metric="L2")
    match = first(ask(3)).matches.get(rank=0)
    assert match.score == pytest.approx(0.0, abs=2e-3)
    assert first(ask(99, rec_threshold=0.001)).status == "unknown"


def test_boxes_of_the_caller_replace_detection(stocked, ask):
    query = ask(1, boxes=[[0, 0, 20, 20], [10, 10, 60, 40]])
    assert [d.coordinate for d in query.detections.all()] == [[0, 0, 20, 20], [10, 10, 60, 40]]


def test_nothing_detected_means_the_whole_picture_with_score_0(user, ask):
    catalogue = factories.catalogue(owner=user, detector="stub_det")
    detection = first(ask(1, of=catalogue, det_threshold=1.0))
    assert (detection.coordinate, detection.det_score) == ([0, 0, 64, 48], 0)


@pytest.mark.parametrize(
    ("option", "value"),
    [("det_threshold", 1.5), ("rec_threshold", 5), ("top_k", 0), ("top_k", 101)],
)
def test_an_option_out_of_range_is_refused_before_anything_is_stored(catalogue, option, value):
    with pytest.raises(BadInput) as caught:
        queries.submit(
            catalogue, factories.picture(), by=None, options=queries.Options(**{option: value})
        )
    assert caught.value.field == option
    assert not RecognitionQuery.objects.exists()


def test_a_question_whose_picture_is_gone_fails_alone(stocked, stub_engine, run_tasks):
    asked = [queries.submit(stocked, factories.picture(n), by=None) for n in (1, 3)]
    default_storage.delete(asked[0].file.name)
    with run_tasks():
        queries.submit(stocked, factories.picture(4), by=None)
    states = [RecognitionQuery.objects.get(pk=query.pk).state for query in asked]
    assert states == [State.FAILED, State.DONE]


def test_a_wake_up_that_comes_twice_leaves_one_answer(stocked, ask):
    query = ask(1)
    before = list(query.detections.values_list("pk", flat=True))
    tasks.answer_queries()
    assert list(query.detections.values_list("pk", flat=True)) == before != []


def test_a_batch_of_questions_costs_as_many_statements_as_one(
    stocked, stub_engine, django_assert_max_num_queries
):
    from recognition.services import answering

    for seed in range(8):
        queries.submit(stocked, factories.picture(seed), by=None)
    with django_assert_max_num_queries(20):
        answering.answer_waiting()


def test_waiting_gives_up_at_its_time_and_says_where_to_look(catalogue):
    query = queries.submit(catalogue, factories.picture(), by=None)
    with pytest.raises(AnswerTimeout, match=str(query.key)):
        queries.require_answer(query, 0.05)


def test_a_bell_that_rang_before_anybody_listened_is_heard(catalogue):
    query = queries.submit(catalogue, factories.picture(), by=None)
    bell.ring([query.key])
    started = time.monotonic()
    bell.listen(query.key, started + 60)
    assert time.monotonic() - started < bell._LOOK_EVERY, "it was not heard"


def test_many_pictures_are_answered_in_order_and_a_bad_one_stops_nobody(
    stocked, stub_engine, monkeypatch
):
    from recognition.services import answering

    monkeypatch.setattr(bell, "listen", lambda key, deadline: answering.answer_waiting())

    def broken():
        raise BadInput("not a picture")

    inputs = [
        ("a", lambda: factories.picture(1)),
        ("b", broken),
        ("c", lambda: factories.picture(3)),
    ]
    answers = list(queries.ask_all(stocked, inputs, by=None, in_flight=2))
    assert [answer.name for answer in answers] == ["a", "b", "c"]
    assert [answer.error is None for answer in answers] == [True, False, True]
