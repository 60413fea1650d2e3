"""Recognitions: removed with their files, and what staff say about them."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission
from django.core.files.storage import default_storage
from django.urls import reverse

from recognition.models import (
    Action,
    AuditEntry,
    Feedback,
    RecognitionQuery,
    Source,
    State,
    Verdict,
)
from recognition.services import feedback, products, queries
from tests import factories

PAGES = "admin:recognition_recognitionquery"


@pytest.fixture
def clerk(client, rows):
    """Somebody of the staff with the permissions named."""

    def sign_in(*codenames: str):
        user = factories.user(is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client.force_login(user)
        client.user = user
        return client

    return sign_in


def remove(client, *chosen, one: bool):
    if one:
        return client.post(reverse(f"{PAGES}_delete", args=[chosen[0].pk]), {"post": "yes"})
    return client.post(
        reverse(f"{PAGES}_changelist"),
        {
            "action": "delete_selected",
            "_selected_action": [query.pk for query in chosen],
            "post": "yes",
        },
    )


@pytest.mark.parametrize("one", [True, False], ids=["one", "several"])
def test_they_are_removed_with_their_files_and_it_is_written_down(
    staff, rows, one, django_capture_on_commit_callbacks
):
    query = rows.recognitionquery
    name = query.file.name
    assert default_storage.exists(name)
    with django_capture_on_commit_callbacks(execute=True):
        answer = remove(staff, query, one=one)
    assert (answer.status_code, answer["Location"]) == (302, reverse(f"{PAGES}_changelist"))
    assert not RecognitionQuery.objects.exists()
    assert not default_storage.exists(name)
    entry = AuditEntry.objects.get(action=Action.RECOGNITION_REMOVE)
    assert (entry.source, entry.user, entry.object_id) == (Source.ADMIN, staff.user, str(query.pk))
    assert entry.catalogue == rows.catalogue


def test_what_goes_is_counted_before(staff, rows):
    page = staff.get(reverse(f"{PAGES}_delete", args=[rows.recognitionquery.pk]))
    assert dict(page.context["model_count"]) == {"recognitions": 1, "detections": 1}


@pytest.mark.parametrize("one", [True, False], ids=["one", "several"])
def test_one_that_is_being_answered_stays_and_the_reason_is_shown(staff, rows, one):
    done = queries.submit(rows.catalogue, factories.picture(5), by=None)
    factories.ended(done, State.DONE)
    RecognitionQuery.objects.filter(pk=rows.recognitionquery.pk).update(state=State.RUNNING)
    chosen = [rows.recognitionquery] if one else [done, rows.recognitionquery]
    remove(staff, *chosen, one=one)
    page = staff.get(reverse(f"{PAGES}_changelist"))
    assert "being answered right now" in page.content.decode()
    assert RecognitionQuery.objects.count() == 2  # all or none
    assert not AuditEntry.objects.filter(action=Action.RECOGNITION_REMOVE).exists()


@pytest.mark.parametrize("one", [True, False], ids=["one", "several"])
def test_who_may_only_look_removes_nothing(clerk, rows, one):
    client = clerk("view_recognitionquery")
    response = remove(client, rows.recognitionquery, one=one)
    assert response.status_code == (403 if one else 200)  # the list does not know the action
    assert RecognitionQuery.objects.exists()


def test_who_may_remove_does(clerk, rows):
    client = clerk("view_recognitionquery", "delete_recognitionquery")
    remove(client, rows.recognitionquery, one=True)
    assert not RecognitionQuery.objects.exists()


# --- Feedback -------------------------------------------------------------------------------------


def dialog(query) -> str:
    return reverse("admin:recognition_recognitionquery_give_feedback", args=[query.pk])


def say(client, query, verdict: str, label: str = ""):
    form = {"position": "0", "verdict": verdict, "label": label, "_form_submitted": "on"}
    return client.post(dialog(query), form)


def test_the_dialog_lists_the_regions(staff, rows):
    page = staff.get(dialog(rows.recognitionquery)).content.decode()
    assert "1 · match · green tea" in page


def test_it_is_given_and_stands_on_the_page(staff, rows):
    query = rows.recognitionquery
    products.create(rows.catalogue, "oolong")
    answer = say(staff, query, "corrected", "oolong")
    assert answer["HX-Redirect"] == reverse(f"{PAGES}_change", args=[query.pk])
    kept = Feedback.objects.get()
    assert (kept.verdict, kept.label, kept.given_by) == (Verdict.CORRECTED, "oolong", staff.user)
    entry = AuditEntry.objects.get(action=Action.FEEDBACK_GIVE)
    assert (entry.source, entry.user) == (Source.ADMIN, staff.user)
    page = staff.get(reverse(f"{PAGES}_change", args=[query.pk])).content.decode()
    assert "it is another product: <strong>oolong</strong> · root" in page


def test_it_is_taken_back(staff, rows):
    say(staff, rows.recognitionquery, "confirmed")
    assert Feedback.objects.get().label == "green tea"
    say(staff, rows.recognitionquery, "withdraw")
    assert not Feedback.objects.exists()


def test_a_product_that_is_in_none_of_the_catalogues_is_refused_in_the_dialog(staff, rows):
    products.create(factories.catalogue(), "oolong")
    page = say(staff, rows.recognitionquery, "corrected", "oolong").content.decode()
    assert "None of the catalogues that were asked has it." in page
    assert not Feedback.objects.exists()


def test_a_refusal_of_the_service_is_shown_in_the_dialog(staff, rows):
    rows.recognitionquery.detections.get().matches.all().delete()
    page = say(staff, rows.recognitionquery, "confirmed").content.decode()
    assert "nothing was proposed" in page
    assert not Feedback.objects.exists()


def test_nobody_is_asked_before_there_is_an_answer(staff, rows):
    page = reverse(f"{PAGES}_change", args=[rows.recognitionquery.pk])
    assert dialog(rows.recognitionquery) in staff.get(page).content.decode()
    RecognitionQuery.objects.update(state=State.FAILED)
    assert dialog(rows.recognitionquery) not in staff.get(page).content.decode()


@pytest.mark.parametrize(("permission", "may"), [("change_feedback", True), ("add_job", False)])
def test_it_needs_the_permission(clerk, rows, permission, may):
    client = clerk("view_recognitionquery", permission)
    page = client.get(reverse(f"{PAGES}_change", args=[rows.recognitionquery.pk]))
    assert (dialog(rows.recognitionquery) in page.content.decode()) is may
    assert say(client, rows.recognitionquery, "confirmed").status_code == (200 if may else 403)
    assert Feedback.objects.exists() is may


def test_the_list_is_narrowed_to_a_verdict(staff, rows):
    feedback.give(rows.recognitionquery, 0, Verdict.CONFIRMED, by=staff.user)
    name = "detections__feedback__verdict__exact"
    for verdict, count in (("confirmed", 1), ("unknown", 0)):
        page = staff.get(reverse(f"{PAGES}_changelist"), {name: verdict})
        assert page.context["cl"].result_count == count
