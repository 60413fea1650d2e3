"""The answer: it asks again while it waits, then shows everything it knows."""

from __future__ import annotations

import re

import pytest
from django.urls import reverse

from recognition.models import Detection, Match, RecognitionQuery, State
from recognition.services import products, queries, trash
from recognition.web import answers
from tests import factories
from tests.web.conftest import HTMX


def page(query: RecognitionQuery) -> str:
    return reverse("recognition", args=[query.key])


@pytest.mark.parametrize("state", [State.PENDING, State.RUNNING])
def test_the_fragment_asks_again_while_it_waits(member, waiting, state):
    RecognitionQuery.objects.update(state=state)
    text = member.get(page(waiting)).content.decode()
    assert f'hx-get="{page(waiting)}" hx-trigger="every' in text
    assert 'aria-busy="true"' in text


def test_nothing_new_means_no_content(member, waiting):
    response = member.get(page(waiting), headers=HTMX)
    assert (response.status_code, response.content) == (204, b"")


@pytest.mark.parametrize("state", [State.DONE, State.FAILED])
def test_it_stops_asking_when_the_work_has_ended(member, waiting, state):
    factories.ended(waiting, state)
    for headers in ({}, HTMX):
        response = member.get(page(waiting), headers=headers)
        assert response.status_code == 200
        assert "hx-trigger" not in response.content.decode()


def test_without_javascript_the_page_refreshes_itself_only_while_it_waits(member, waiting):
    refresh = '<noscript><meta http-equiv="refresh"'
    assert refresh in member.get(page(waiting)).content.decode()
    factories.ended(waiting, State.DONE)
    assert refresh not in member.get(page(waiting)).content.decode()


def test_htmx_gets_a_fragment_and_a_browser_a_page(member, answered):
    assert "<html" in member.get(page(answered)).content.decode()
    response = member.get(page(answered), headers=HTMX)
    assert "<html" not in response.content.decode()
    assert "HX-Request" in response["Vary"]


def test_a_failure_says_why(member, waiting):
    factories.ended(waiting, State.FAILED, error="its file is missing")
    assert "No answer: its file is missing" in member.get(page(waiting)).content.decode()


def test_it_names_what_was_found_with_score_and_reference(member, catalogue, answered):
    text = member.get(page(answered)).content.decode()
    image = catalogue.images.get()
    assert "1 object found" in text
    assert '<span class="chip is-match">' in text
    assert ">green tea</a>" in text
    assert '<span class="score">1.00</span>' in text
    assert reverse("gallery-thumbnail", args=[catalogue.key, image.number, 160]) in text


def test_what_was_found_in_another_catalogue_is_shown_from_there(
    member, catalogue, stub_engine, run_tasks
):
    other = factories.catalogue(catalogue.owner, "other")
    with run_tasks():
        factories.add(catalogue, "MINE", 5)
        theirs = factories.add(other, "THEIRS", 1)
    with run_tasks():
        options = queries.Options(also=[other])
        query = queries.submit(catalogue, factories.picture(1), by=catalogue.owner, options=options)
    member.force_login(catalogue.owner)
    text = member.get(page(query)).content.decode()
    assert reverse("gallery-thumbnail", args=[other.key, theirs.number, 160]) in text
    assert reverse("product", args=[other.key, theirs.product_id]) in text


def test_it_names_products_in_the_language_of_the_page(member, catalogue, answered):
    products.change(catalogue.products.get(), names={"zh-Hans": "绿茶"})
    text = member.get(page(answered), headers={"Accept-Language": "zh-hans"}).content.decode()
    assert re.search(r'>绿茶</a> <span class="label quiet">green tea</span>', text)
    assert "<span>绿茶</span></a>" in text
    text = member.get(page(answered), headers={"Accept-Language": "en"}).content.decode()
    assert "绿茶" not in text and ">green tea</a>" in text


def test_it_says_what_answered(member, catalogue, answered):
    answer = answers.read(RecognitionQuery.objects.get())
    text = member.get(page(answered)).content.decode()
    assert "stub_rec" in text
    assert f"version {answered.catalogue_version}" in text
    assert answer.milliseconds > 0
    assert [str(stage) for stage, _ in answer.timings][-1] == "ranking"


def test_a_product_removed_since_keeps_the_label_it_had(member, answered):
    Match.objects.update(product=None, image=None)
    text = member.get(page(answered)).content.decode()
    assert "green tea" in text


def test_a_product_in_the_trash_is_not_linked_to(member, catalogue, answered):
    trash.put(catalogue, list(catalogue.products.all()))
    text = member.get(page(answered)).content.decode()
    assert "green tea" in text
    assert f"{reverse('gallery', args=[catalogue.key])}" not in text
    assert "/images/" not in text


def region(query, **corners) -> answers.Region:
    Detection.objects.filter(query=query).delete()
    fields = {"position": 0, "det_score": 0.9, "status": "match"} | corners
    Detection.objects.create(query=query, **fields)
    [shown] = answers.read(query).regions
    return shown


def test_frames_are_in_percent_of_the_picture(waiting):
    factories.ended(waiting, State.DONE)  # 64 x 48 pixels
    shown = region(waiting, x1=16, y1=12, x2=48, y2=36)
    assert (shown.left, shown.top, shown.width, shown.height) == (
        "25.000%",
        "25.000%",
        "50.000%",
        "50.000%",
    )
    assert (shown.inside, shown.at_end) == (False, False)


def test_plates_stay_within_the_picture(waiting):
    factories.ended(waiting, State.DONE)
    shown = region(waiting, x1=50, y1=0, x2=64, y2=20)
    assert (shown.inside, shown.at_end, shown.right) == (True, True, "0.000%")


def test_plates_of_neighbours_do_not_cover_each_other(waiting):
    factories.ended(waiting, State.DONE)
    for position, left in enumerate((0, 16, 32)):
        Detection.objects.create(
            query=waiting,
            position=position,
            x1=left,
            y1=10 + 30 * (position == 2),  # the third is far below
            x2=left + 4,
            y2=48,
            det_score=0.9,
            status="match",
        )
    assert [shown.room for shown in answers.read(waiting).regions] == [
        "25.000%",
        "75.000%",
        "50.000%",
    ]


@pytest.mark.parametrize(
    ("metric", "score", "share"),
    [("IP", 0.9, 90), ("cosine", -0.2, 0), ("L2", 0.0, 100), ("L2", 1.0, 50), ("L2", 4.0, 0)],
)
def test_the_bar_is_the_cosine_in_every_metric(waiting, metric, score, share):
    waiting.answered_with = {"metric": metric}
    waiting.state = State.DONE
    waiting.save()
    detection = Detection.objects.create(
        query=waiting, position=0, x1=0, y1=0, x2=9, y2=9, det_score=0, status="match"
    )
    Match.objects.create(detection=detection, rank=0, label="tea", score=score)
    [shown] = answers.read(waiting).regions
    assert shown.best.share == share


def test_decimal_points_survive_every_language(member, answered, settings):
    settings.LANGUAGE_CODE = "de"
    settings.LANGUAGES = [("de", "Deutsch")]
    text = member.get(page(answered)).content.decode()
    assert re.search(r'<rect [^>]*x="0\.000%"', text)


def test_it_takes_few_queries_however_many_regions(member, answered, django_assert_max_num_queries):
    detection = answered.detections.get()
    match = detection.matches.get()
    for position in range(1, 12):
        detection.pk, detection.position = None, position
        detection.save()
        match.pk, match.detection = None, detection
        match.save()
    with django_assert_max_num_queries(5):
        member.get(page(answered))


def test_labels_are_escaped(member, answered):
    Match.objects.update(label="<img src=x onerror=alert(1)>")
    assert "<img src=x" not in member.get(page(answered)).content.decode()


def test_a_query_of_the_starter_models_says_how_to_change_them(member, answered):
    answered.answered_with["feature_model"]["name"] = "starter_rec"
    answered.save()
    assert "manage.py models fetch" in member.get(page(answered)).content.decode()


def test_unknown_regions_say_so(member, catalogue, waiting):
    factories.ended(waiting, State.DONE)
    region(waiting, x1=0, y1=0, x2=20, y2=20, status="unknown")
    text = member.get(page(waiting)).content.decode()
    assert "Nothing in the gallery is close enough." in text
    assert '<rect class="is-unknown"' in text
