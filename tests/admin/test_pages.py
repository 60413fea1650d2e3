"""Every screen opens for staff who may, in few queries, and for nobody else."""

from __future__ import annotations

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission
from django.templatetags.static import static
from django.urls import reverse

from recognition.models import Catalogue
from tests import factories
from tests.admin.browser import posted

MODELS = sorted(
    model._meta.model_name
    for model in admin.site._registry
    if model._meta.app_label == "recognition"
)
MOST_QUERIES = 12


def test_there_is_a_screen_for_every_concept():
    assert MODELS == [
        "apitoken",
        "auditentry",
        "catalogue",
        "featuremodel",
        "galleryimage",
        "invitation",
        "job",
        "membership",
        "product",
        "quota",
        "recognitionquery",
        "user",
        "vectorindex",
        "worker",
    ]


@pytest.mark.parametrize("model", MODELS)
def test_a_list_takes_few_queries(staff, rows, model, django_assert_max_num_queries):
    for number in range(12):  # more rows, so that a query for each would show
        factories.add(rows.catalogue, f"product {number}", 100 + number)
    with django_assert_max_num_queries(MOST_QUERIES):
        response = staff.get(reverse(f"admin:recognition_{model}_changelist"))
    assert response.status_code == 200
    assert response.context["cl"].result_count >= 1


@pytest.mark.parametrize("model", MODELS)
def test_a_row_opens(staff, rows, model):
    address = reverse(f"admin:recognition_{model}_change", args=[getattr(rows, model).pk])
    assert staff.get(address).status_code == 200


CHANGEABLE = ["catalogue", "galleryimage", "membership", "product", "quota", "user"]


@pytest.mark.parametrize("model", MODELS)
def test_what_a_browser_posts_of_an_untouched_row_is_taken(staff, rows, model):
    address = reverse(f"admin:recognition_{model}_change", args=[getattr(rows, model).pk])
    page = staff.get(address)
    assert page.context["has_change_permission"] is (model in CHANGEABLE)
    if model in CHANGEABLE:
        form = posted(page.content.decode(), f"{model}_form")
        response = staff.post(address, form | {"_save": "Save"})
        errors = getattr(response, "context", None) and response.context.get("errors")
        assert response.status_code == 302, errors


@pytest.mark.parametrize("model", MODELS)
def test_the_form_for_a_new_row_opens_where_one_can_be_added(staff, rows, model):
    status = staff.get(reverse(f"admin:recognition_{model}_add")).status_code
    addable = model in ("catalogue", "galleryimage", "membership", "product", "quota", "user")
    assert status == (200 if addable else 403)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("term", ["tea", "root", "7f3c"])
def test_a_search_works_whatever_is_typed(staff, rows, model, term):
    address = reverse(f"admin:recognition_{model}_changelist")
    assert staff.get(address, {"q": term}).status_code == 200


def test_every_screen_has_the_icon_of_the_site(staff):
    link = f'rel="icon" href="{static("recognition/icon.svg")}"'
    for page in (staff.get(reverse("admin:index")), staff.get(reverse("home"))):
        assert link in page.content.decode()


def test_what_cannot_be_changed_breaks_where_it_must(staff, rows):
    address = reverse("admin:recognition_galleryimage_change", args=[rows.galleryimage.pk])
    assert static("recognition/admin.css") in staff.get(address).content.decode()


@pytest.mark.parametrize("name", ["add", "change"])
def test_the_box_says_what_it_is(staff, rows, name):
    args = [rows.galleryimage.pk] if name == "change" else []
    text = staff.get(reverse(f"admin:recognition_galleryimage_{name}", args=args)).content.decode()
    assert "[x1, y1, x2, y2]" in text


def test_it_speaks_chinese_with_what_it_borrows(staff, rows):
    def text(name, *args):
        address = reverse(f"admin:{name}", args=args)
        return staff.get(address, headers={"Accept-Language": "zh-hans"}).content.decode()

    index, products = text("index"), text("recognition_product_changelist")
    member = text("recognition_membership_change", rows.membership.pk)
    clerk = text("recognition_user_change", rows.user.pk)
    for page, english in (
        (index, "Product recognition"),
        (index, "Axes"),
        (index, "ccess attempt"),
        (products, "Type to search"),
        (products, "Select action to run"),
        (products, "Select all rows"),
        (products, "Select record"),
        (member, "· manager"),
        (clerk, "Can add"),
        (clerk, "may add"),
    ):
        assert english not in page


@pytest.mark.parametrize("model", MODELS)
def test_members_who_are_not_staff_are_sent_away(client, rows, model):
    client.force_login(rows.user)
    for name, args in (("changelist", []), ("change", [getattr(rows, model).pk])):
        address = reverse(f"admin:recognition_{model}_{name}", args=args)
        response = client.get(address)
        assert response.status_code == 302
        assert response["Location"].startswith(reverse("admin:login"))


@pytest.mark.parametrize("model", MODELS)
def test_staff_without_the_permission_are_refused(client, rows, model):
    client.force_login(factories.user(is_staff=True))
    assert client.get(reverse(f"admin:recognition_{model}_changelist")).status_code == 403


def test_staff_may_do_what_their_permissions_say(client, rows):
    clerk = factories.user(is_staff=True)
    clerk.user_permissions.add(Permission.objects.get(codename="view_catalogue"))
    client.force_login(clerk)
    address = reverse("admin:recognition_catalogue_change", args=[rows.catalogue.pk])
    assert client.get(address).status_code == 200
    assert client.post(address, {"name": "mine now"}).status_code == 403
    assert Catalogue.objects.get().name != "mine now"
