"""Asking, with and without JavaScript, and what is said when it cannot be."""

from __future__ import annotations

import pytest
from django.urls import reverse

from recognition.models import RecognitionQuery
from tests import factories
from tests.web.conftest import HTMX, upload


@pytest.fixture
def page(catalogue) -> str:
    return reverse("recognise", args=[catalogue.key])


def test_a_plain_form_leads_to_the_page_of_the_answer(member, catalogue, page):
    response = member.post(page, {"catalogue": catalogue.key, "picture": upload()})
    query = RecognitionQuery.objects.get()
    assert response["Location"] == reverse("recognition", args=[query.key])
    assert (query.catalogue, query.asked_by, query.source_name) == (
        catalogue,
        catalogue.owner,
        "shelf.png",
    )


def test_htmx_gets_the_fragment_at_once(member, catalogue, page):
    response = member.post(page, {"catalogue": catalogue.key, "picture": upload()}, headers=HTMX)
    query = RecognitionQuery.objects.get()
    fragment = response.content.decode()
    assert "<html" not in fragment
    assert f'hx-get="{reverse("recognition", args=[query.key])}"' in fragment


def test_the_select_decides_which_catalogue(member, user, page):
    other = factories.catalogue(owner=user)
    member.post(page, {"catalogue": other.key, "picture": upload()})
    assert RecognitionQuery.objects.get().catalogue == other


def test_options_override_the_catalogue(member, catalogue, page):
    options = {"top_k": "2", "det_threshold": "0.25", "rec_threshold": "0.75"}
    member.post(page, {"catalogue": catalogue.key, "picture": upload()} | options)
    query = RecognitionQuery.objects.get()
    assert (query.top_k, query.det_threshold, query.rec_threshold) == (2, 0.25, 0.75)


def test_options_left_empty_are_the_catalogues(member, catalogue, page):
    member.post(page, {"catalogue": catalogue.key, "picture": upload(), "top_k": ""})
    query = RecognitionQuery.objects.get()
    assert (query.top_k, query.det_threshold, query.rec_threshold) == (None, None, None)


BAD = {
    "nothing": ({}, "Choose, drop or paste"),
    "empty": ({"picture": (b"", "a.png")}, "0 bytes"),
    "no picture": ({"picture": (b"<html></html>", "page.jpg")}, "page.jpg"),
    "torn": ({"picture": (factories.png(1)[:120], "torn.png")}, "torn.png"),
    "tiny": ({"picture": (factories.png(1, (4, 4)), "dot.png")}, "at least 8"),
    "option": ({"picture": (factories.png(1), "a.png"), "det_threshold": "7"}, "Detection"),
    "domain": ({"picture": (factories.png(1), "a.png"), "rec_threshold": "99"}, "rec_threshold"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("headers", [{}, HTMX], ids=["plain", "htmx"])
def test_a_bad_input_is_refused_in_words(member, catalogue, page, case, headers):
    form, words = BAD[case]
    sent = {name: upload(*v) if isinstance(v, tuple) else v for name, v in form.items()}
    response = member.post(page, {"catalogue": catalogue.key, "top_k": "3"} | sent, headers=headers)
    assert response.status_code == 422
    assert words in response.content.decode()
    assert not RecognitionQuery.objects.exists()


def test_with_htmx_only_the_reason_changes_so_the_form_loses_nothing(member, catalogue, page):
    response = member.post(page, {"catalogue": catalogue.key}, headers=HTMX)
    assert response["HX-Retarget"] == "#errors"
    assert "<form" not in response.content.decode()


def test_without_it_what_was_typed_is_still_there(member, catalogue, page):
    response = member.post(page, {"catalogue": catalogue.key, "top_k": "7"})
    assert 'value="7"' in response.content.decode()


def test_too_many_bytes_are_refused_with_the_limit(member, catalogue, page, settings):
    settings.SHITU_MAX_IMAGE_BYTES = 100
    response = member.post(page, {"catalogue": catalogue.key, "picture": upload()})
    assert response.status_code == 422
    assert not RecognitionQuery.objects.exists()


def test_a_post_needs_the_token_of_the_form(catalogue, user, page):
    from django.test import Client

    client = Client(enforce_csrf_checks=True)
    client.force_login(user)
    sent = {"catalogue": catalogue.key, "picture": upload()}
    assert client.post(page, sent).status_code == 403


def test_phones_may_take_a_picture(member, page):
    assert 'accept="image/*" capture="environment"' in member.get(page).content.decode()


def test_starter_models_are_said_to_be_that(member, catalogue, page):
    assert "models fetch" not in member.get(page).content.decode()
    catalogue.detector = "starter_det"
    catalogue.save()
    text = member.get(page).content.decode()
    assert "starter models" in text
    assert "manage.py models fetch PP-ShiTuV2_rec" in text


def test_the_page_takes_few_queries(member, user, page, django_assert_max_num_queries):
    for _ in range(5):
        factories.catalogue(owner=user)
    with django_assert_max_num_queries(5):
        member.get(page)
