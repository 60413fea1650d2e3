"""My catalogues."""

from __future__ import annotations

from django.urls import reverse

from recognition.models import GalleryImage, State
from tests import factories


def test_it_lists_mine_with_what_is_in_them(member, catalogue):
    factories.catalogue(name="of somebody else")
    factories.add(catalogue, "green tea", 1)
    failed = factories.add(catalogue, "green tea", 2)
    factories.add(catalogue, "oolong", 3)
    GalleryImage.objects.filter(pk=failed.pk).update(state=State.FAILED)
    response = member.get(reverse("home"))
    [shown] = response.context["catalogues"]
    assert shown == catalogue
    counts = (shown.product_count, shown.image_count, shown.waiting_count, shown.failed_count)
    assert counts == (2, 3, 2, 1)
    page = response.content.decode()
    assert reverse("recognise", args=[catalogue.key]) in page
    assert "of somebody else" not in page


def test_it_takes_few_queries_however_many_there_are(member, user, django_assert_max_num_queries):
    for number in range(5):
        factories.add(factories.catalogue(owner=user), "tea", number)
    with django_assert_max_num_queries(3):
        member.get(reverse("home"))


def test_without_any_it_says_what_to_do(browser, db):
    page = browser(factories.user()).get(reverse("home")).content.decode()
    assert "not a member of any catalogue" in page


def test_names_are_escaped(member, user):
    factories.catalogue(owner=user, name="<script>alert(1)</script>")
    assert "<script>alert" not in member.get(reverse("home")).content.decode()


def test_staff_find_the_admin_and_others_do_not(browser, member):
    link = f'href="{reverse("admin:index")}"'
    root = factories.user(is_staff=True)
    assert link in browser(root).get(reverse("home")).content.decode()
    assert link not in member.get(reverse("home")).content.decode()
