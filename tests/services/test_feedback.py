"""What a region of an answer shows: confirmed, corrected, unknown, taken back."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from django.db import IntegrityError, connections, transaction

from recognition.errors import BadInput, Conflict, NotFound, RecognitionError
from recognition.models import Action, AuditEntry, Detection, Feedback, Match, Verdict
from recognition.services import feedback, product_merging, product_moving, products, queries, trash
from tests import factories

pytestmark = pytest.mark.django_db
CONFIRMED, CORRECTED, UNKNOWN = Verdict.CONFIRMED, Verdict.CORRECTED, Verdict.UNKNOWN


@pytest.fixture
def query(tea, ask):
    """Answered: its one region is tea."""
    return ask(1)


@pytest.fixture
def ben(catalogue):
    return factories.member(catalogue, "operator", "ben")


def newest() -> AuditEntry:
    return AuditEntry.objects.first()


def test_the_first_proposal_is_confirmed(query, tea, ben):
    given = feedback.give(query, 0, CONFIRMED, by=ben)
    kept = Feedback.objects.get()
    assert kept == given
    assert (kept.detection.query, kept.detection.position) == (query, 0)
    assert (kept.verdict, kept.product, kept.label, kept.given_by) == (CONFIRMED, tea, "tea", ben)


def test_another_product_is_named(query, coffee, ben):
    given = feedback.give(query, 0, CORRECTED, product=coffee.pk, by=ben)
    assert (given.verdict, given.product, given.label) == (CORRECTED, coffee, "coffee")


def test_naming_the_first_proposal_is_confirming_it(query, tea, ben):
    assert feedback.give(query, 0, CORRECTED, product=tea.pk, by=ben).verdict == CONFIRMED


def test_it_is_none_of_the_products(query, ben):
    given = feedback.give(query, 0, UNKNOWN, by=ben)
    assert (given.verdict, given.product, given.label) == (UNKNOWN, None, "")


def test_an_inactive_product_may_be_right(query, coffee, ben):
    products.change(coffee, is_active=False)
    assert feedback.give(query, 0, CORRECTED, product=coffee.pk, by=ben).product == coffee


def test_the_last_word_counts_and_the_log_has_both(query, tea, coffee, ben, user):
    feedback.give(query, 0, CONFIRMED, by=ben)
    feedback.give(query, 0, CORRECTED, product=coffee.pk, by=user)
    kept = Feedback.objects.get()
    assert (kept.verdict, kept.product, kept.given_by) == (CORRECTED, coffee, user)
    second, first = AuditEntry.objects.filter(action=Action.FEEDBACK_GIVE)
    assert first.changes["verdict"] == [None, "confirmed"]
    assert second.changes == {
        "verdict": ["confirmed", "corrected"],
        "product": [tea.pk, coffee.pk],
        "label": ["tea", "coffee"],
    }
    assert (first.user, second.user) == (ben, user)
    assert (second.object_type, second.object_id) == ("recognitionquery", str(query.pk))
    assert (second.catalogue, second.details) == (query.catalogue, {"detection": 0})


def test_saying_the_same_again_changes_nothing(query, ben, user):
    first = feedback.give(query, 0, CONFIRMED, by=ben)
    before = AuditEntry.objects.count()
    again = feedback.give(query, 0, CONFIRMED, by=user)
    assert (again.given_by, again.given_at) == (ben, first.given_at)
    assert AuditEntry.objects.count() == before


def test_it_is_taken_back(query, ben):
    feedback.give(query, 0, CONFIRMED, by=ben)
    feedback.withdraw(query, 0, by=ben)
    assert not Feedback.objects.exists()
    assert newest().action == Action.FEEDBACK_WITHDRAW
    assert newest().changes["label"] == ["tea", None]
    before = AuditEntry.objects.count()
    feedback.withdraw(query, 0, by=ben)  # there is nothing any more
    assert AuditEntry.objects.count() == before


def test_regions_have_feedback_of_their_own(ask, ben):
    query = ask(1, boxes=[[0, 0, 32, 48], [32, 0, 64, 48]], rec_threshold=-1)
    feedback.give(query, 1, UNKNOWN, by=ben)
    said = [hasattr(region, "feedback") for region in query.detections.all()]
    assert said == [False, True]


@pytest.mark.parametrize(
    ("verdict", "named"), [(CONFIRMED, True), (UNKNOWN, True), (CORRECTED, False)]
)
def test_a_product_goes_with_a_correction_and_with_nothing_else(query, coffee, ben, verdict, named):
    with pytest.raises(BadInput) as refused:
        feedback.give(query, 0, verdict, product=coffee.pk if named else None, by=ben)
    assert refused.value.field == "product"


@pytest.mark.parametrize("position", [1, 32767, 2**40])
def test_a_region_that_is_not_there(query, ben, position):
    for act in (feedback.give, feedback.withdraw):
        verdict = [UNKNOWN] if act is feedback.give else []
        with pytest.raises(NotFound, match="it has 1, counted from 0"):
            act(query, position, *verdict, by=ben)


def test_before_there_is_an_answer(catalogue, ben):
    query = queries.submit(catalogue, factories.picture(1), by=None)
    with pytest.raises(Conflict, match="pending"):
        feedback.give(query, 0, UNKNOWN, by=ben)


def test_nothing_that_was_proposed_cannot_be_confirmed(ask, ben):
    query = ask(8, rec_threshold=0.999)
    with pytest.raises(Conflict, match="nothing was proposed"):
        feedback.give(query, 0, CONFIRMED, by=ben)
    assert feedback.give(query, 0, UNKNOWN, by=ben).verdict == UNKNOWN


def test_a_removed_recognition(query, ben):
    queries.remove(query)
    with pytest.raises(NotFound, match="removed"):
        feedback.give(query, 0, UNKNOWN, by=ben)


# --- Which products -------------------------------------------------------------------------------


def test_a_product_of_another_team_is_as_unknown_as_one_that_is_nowhere(query, ben):
    theirs = products.create(factories.catalogue(), "secret")
    said = []
    for product_id in (theirs.pk, 2**40):
        with pytest.raises(BadInput) as refused:
            feedback.give(query, 0, CORRECTED, product=product_id, by=ben)
        assert refused.value.field == "product"
        said.append(refused.value.message.replace(str(product_id), "N"))
    assert said[0] == said[1] and "secret" not in said[0]
    assert not Feedback.objects.exists()


def test_a_product_of_another_catalogue_that_was_asked_too(catalogue, ask, ben):
    other = factories.catalogue(catalogue.owner)
    named = products.create(other, "juice")
    together = ask(1, also=[other])
    assert feedback.give(together, 0, CORRECTED, product=named.pk, by=ben).product == named
    alone = ask(1)
    with pytest.raises(BadInput):
        feedback.give(alone, 0, CORRECTED, product=named.pk, by=ben)


def test_the_id_of_a_merged_product_leads_to_the_one_that_stayed(query, tea, coffee, ben):
    mocha = products.create(query.catalogue, "mocha")
    product_merging.merge([coffee], mocha)
    given = feedback.give(query, 0, CORRECTED, product=coffee.pk, by=ben)
    assert (given.product, given.label) == (mocha, "mocha")
    product_merging.merge([tea], mocha)
    assert feedback.give(query, 0, CONFIRMED, by=ben).product == mocha
    assert feedback.give(query, 0, CORRECTED, product=tea.pk, by=ben).verdict == CONFIRMED


def test_what_is_in_the_trash_is_not_right(query, tea, coffee, ben):
    trash.put(query.catalogue, [tea, coffee])
    with pytest.raises(Conflict, match="“tea”, which was proposed, was removed"):
        feedback.give(query, 0, CONFIRMED, by=ben)
    with pytest.raises(BadInput):
        feedback.give(query, 0, CORRECTED, product=coffee.pk, by=ben)


def test_a_proposal_that_is_purged_or_gone_elsewhere_cannot_be_confirmed(query, tea, ben):
    Match.objects.update(product=None)
    with pytest.raises(Conflict, match="was removed"):
        feedback.give(query, 0, CONFIRMED, by=ben)


def test_a_purged_product_leaves_its_label(query, coffee, ben):
    feedback.give(query, 0, CORRECTED, product=coffee.pk, by=ben)
    trash.put(query.catalogue, [coffee])
    trash.purge(query.catalogue, [coffee])
    kept = Feedback.objects.get()
    assert (kept.verdict, kept.product, kept.label) == (CORRECTED, None, "coffee")


def test_a_product_that_moves_elsewhere_is_let_go_of(query, coffee, ben):
    feedback.give(query, 0, CORRECTED, product=coffee.pk, by=ben)
    product_moving.move([coffee], factories.catalogue(query.catalogue.owner))
    kept = Feedback.objects.get()
    assert (kept.product, kept.label) == (None, "coffee")


def test_it_goes_with_its_recognition(query, ben):
    feedback.give(query, 0, CONFIRMED, by=ben)
    queries.remove(query)
    assert not Feedback.objects.exists()


def test_it_stays_when_whoever_gave_it_goes(query, ben):
    feedback.give(query, 0, CONFIRMED, by=ben)
    ben.delete()
    assert Feedback.objects.get().given_by is None


@pytest.mark.parametrize(
    "wrong", [{"verdict": "unknown", "label": "tea"}, {"verdict": "confirmed", "label": ""}]
)
def test_the_database_refuses_what_contradicts_itself(query, wrong):
    region = Detection.objects.get()
    now = query.created_at
    with pytest.raises(IntegrityError), transaction.atomic():
        Feedback.objects.create(detection=region, given_at=now, **wrong)


def test_no_answer_changes_by_it(query, ask, coffee, ben):
    version = query.catalogue.version
    feedback.give(query, 0, CORRECTED, product=coffee.pk, by=ben)
    query.catalogue.refresh_from_db()
    assert query.catalogue.version == version
    assert [match.label for match in Match.objects.filter(detection__query=ask(1))] == ["tea"]


@pytest.mark.django_db(transaction=True)
def test_operators_removers_and_purgers_do_not_stumble_over_each_other(
    catalogue, stub_engine, run_tasks
):
    with run_tasks():
        asked = [queries.submit(catalogue, factories.picture(n), by=None) for n in range(6)]
    named = [products.create(catalogue, f"product {number}") for number in range(4)]
    people = [factories.member(catalogue, "operator") for _ in range(3)]
    failed: list[BaseException] = []

    def beside(act: Callable[[], object]) -> threading.Thread:
        def work() -> None:
            try:
                act()
            except RecognitionError:
                pass  # what is gone is gone
            except BaseException as error:  # noqa: BLE001
                failed.append(error)
            finally:
                connections.close_all()

        thread = threading.Thread(target=work)
        thread.start()
        return thread

    def speak(person) -> None:
        for _ in range(4):
            for query in asked:
                for product in named:
                    try:
                        feedback.give(query, 0, CORRECTED, product=product.pk, by=person)
                        feedback.withdraw(query, 0, by=person)
                    except RecognitionError:
                        continue

    threads = [beside(lambda person=person: speak(person)) for person in people]
    for product in named[:3]:
        threads.append(beside(lambda product=product: trash.put(catalogue, [product])))
        threads[-1].join()
        threads.append(beside(lambda product=product: trash.purge(catalogue, [product])))
    threads += [beside(lambda query=query: queries.remove(query)) for query in asked[:3]]
    for thread in threads:
        thread.join(60)
    assert failed == []
    assert set(Detection.objects.values_list("query", flat=True)) == {q.pk for q in asked[3:]}
