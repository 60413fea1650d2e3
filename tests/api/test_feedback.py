"""Feedback on an answer: given, shown, found again, taken back; by operators only."""

from __future__ import annotations

import pytest

from recognition.models import AuditEntry, Feedback, Role
from recognition.services import feedback, product_merging, products, queries, trash
from tests import factories


@pytest.fixture
def query(tea, ask):
    """Answered: its one region is tea."""
    return ask(1)


@pytest.fixture
def operator(api, catalogue):
    return api(factories.member(catalogue, Role.OPERATOR, "ben"))


def address(query, position: int = 0) -> str:
    return f"/api/v1/recognitions/{query.key}/detections/{position}/feedback"


def say(client, query, verdict: str, position: int = 0, **more):
    return client.put(address(query, position), {"verdict": verdict, **more}, format="json")


def shown(client, query) -> dict | None:
    [detection] = client.get(f"/api/v1/recognitions/{query.key}").json()["detections"]
    return detection["feedback"]


def test_confirmed_and_shown_to_everybody_who_sees_the_answer(operator, viewer, query, tea):
    assert shown(viewer, query) is None
    answer = say(operator, query, "confirmed")
    assert answer.status_code == 200, answer.content
    assert answer.json() == {
        "verdict": "confirmed",
        "product": tea.pk,
        "label": "tea",
        "given_by": "ben",
        "given_at": Feedback.objects.get().given_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }
    assert shown(viewer, query) == answer.json()
    assert AuditEntry.objects.filter(action="feedback.give", user_name="ben").count() == 1


def test_corrected(operator, viewer, query, coffee):
    say(operator, query, "confirmed")
    assert say(operator, query, "corrected", product=coffee.pk).json()["label"] == "coffee"
    assert shown(viewer, query)["product"] == coffee.pk
    assert Feedback.objects.count() == 1


def test_unknown(operator, viewer, query):
    assert say(operator, query, "unknown").json()["product"] is None
    assert shown(viewer, query)["label"] == ""


def test_taken_back_as_often_as_one_likes(operator, viewer, query):
    say(operator, query, "unknown")
    for _ in range(2):
        assert operator.delete(address(query)).status_code == 204
    assert shown(viewer, query) is None


def test_a_viewer_is_told_which_role_it_needs(viewer, query):
    for answer in (say(viewer, query, "confirmed"), viewer.delete(address(query))):
        assert answer.status_code == 403
        error = answer.json()["error"]
        assert error["code"] == "role_too_low" and "role operator" in error["message"]
    assert not Feedback.objects.exists()


def test_an_outsider_learns_nothing(outsider, query):
    assert say(outsider, query, "confirmed").status_code == 404
    assert outsider.delete(address(query)).status_code == 404


def test_who_does_not_see_all_catalogues_that_were_asked_sees_no_answer(
    operator, catalogue, tea, run_tasks
):
    options = queries.Options(also=[factories.catalogue(catalogue.owner)])
    with run_tasks():
        query = queries.submit(catalogue, factories.picture(1), by=None, options=options)
    assert say(operator, query, "confirmed").status_code == 404


def test_another_teams_product_is_refused_in_words(operator, query):
    theirs = products.create(factories.catalogue(), "secret")
    answer = say(operator, query, "corrected", product=theirs.pk)
    assert answer.status_code == 400
    assert list(answer.json()["error"]["fields"]) == ["product"]
    assert "in the catalogues that were asked" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"verdict": "perhaps"},
        {"verdict": "corrected"},
        {"verdict": "corrected", "product": None},
        {"verdict": "corrected", "product": "tea"},
        {"verdict": "corrected", "product": 2**70},
        {"verdict": "confirmed", "product": 1},
        {"verdict": "unknown", "comment": "?"},
    ],
    ids=str,
)
def test_what_cannot_be_read(operator, query, wrong):
    assert operator.put(address(query), wrong, format="json").status_code == 400
    assert not Feedback.objects.exists()


@pytest.mark.parametrize("position", [1, 2**70])
def test_a_region_that_is_not_there(operator, query, position):
    assert say(operator, query, "unknown", position).status_code == 404
    assert operator.delete(address(query, position)).status_code == 404


def test_before_there_is_an_answer(operator, catalogue):
    query = queries.submit(catalogue, factories.picture(2), by=None)
    assert say(operator, query, "unknown").status_code == 409


def test_recognitions_are_found_by_what_was_said(operator, viewer, url, catalogue, tea, run_tasks):
    with run_tasks():
        first, second, third = (
            queries.submit(catalogue, factories.picture(seed), by=None) for seed in (1, 2, 3)
        )
    say(operator, first, "confirmed")
    say(operator, second, "unknown")

    def found(*verdicts: str) -> list[str]:
        page = viewer.get(url("recognitions"), {"verdict": verdicts}).json()
        return [one["key"] for one in page["results"]]

    assert found("confirmed") == [str(first.key)]
    assert found("confirmed", "unknown") == [str(second.key), str(first.key)]
    assert found("corrected") == []
    assert found() == [str(one.key) for one in (third, second, first)]
    assert viewer.get(url("recognitions"), {"verdict": "perhaps"}).status_code == 400


def test_what_became_of_the_product_is_shown(operator, viewer, query, coffee, catalogue):
    say(operator, query, "corrected", product=coffee.pk)
    mocha = products.create(catalogue, "mocha")
    product_merging.merge([coffee], mocha)
    assert shown(viewer, query)["product"] == mocha.pk
    feedback.give(query, 0, "corrected", product=mocha.pk, by=catalogue.owner)
    trash.put(catalogue, [mocha])
    said = shown(viewer, query)
    assert (said["product"], said["label"]) == (None, "mocha")
