"""Catalogues are made, changed and removed by the services behind the screen."""

from __future__ import annotations

import pytest
from django.core.files.storage import default_storage
from django.urls import reverse

from recognition.models import (
    Action,
    AuditEntry,
    Catalogue,
    GalleryImage,
    Membership,
    Role,
    VectorIndex,
)
from tests import factories


@pytest.fixture
def form(catalogue) -> dict[str, object]:
    """What the form of `catalogue` posts when nothing is touched."""
    return {
        "name": catalogue.name,
        "description": "",
        "owner": catalogue.owner_id,
        "detector": "",
        "crop_policy": "whole",
        "det_threshold": 0.5,
        "rec_threshold": "",
        "margin": 0.02,
        "top_k": 5,
        "max_detections": 50,
        "shown_label": "label",
        "metric": "IP",
        "index_type": "HNSW32",
        "memberships-TOTAL_FORMS": 0,
        "memberships-INITIAL_FORMS": 0,
    }


def test_a_new_one_gets_its_search_space_and_its_manager(staff, form, catalogue):
    model = catalogue.require_index().feature_model
    response = staff.post(
        reverse("admin:recognition_catalogue_add"),
        form | {"name": "till 4", "feature_model": model.pk, "metric": "L2", "top_k": 3},
    )
    assert response.status_code == 302
    made = Catalogue.objects.get(name="till 4")
    assert made.top_k == 3
    assert made.require_index().metric == "L2"
    assert Membership.objects.get(catalogue=made).role == Role.MANAGER


def test_a_refusal_is_shown_at_the_field_and_nothing_typed_is_lost(staff, form, catalogue):
    model = catalogue.require_index().feature_model
    response = staff.post(
        reverse("admin:recognition_catalogue_add"),
        form
        | {"name": "till 4", "feature_model": model.pk, "detector": "nobody", "description": "x y"},
    )
    assert response.status_code == 200
    page = response.content.decode()
    assert "nobody" in str(response.context["errors"])
    assert "x y" in page
    assert not Catalogue.objects.filter(name="till 4").exists()


def test_a_taken_name_is_refused(staff, form, catalogue):
    response = staff.post(reverse("admin:recognition_catalogue_add"), form)
    assert response.status_code == 200
    assert response.context["errors"]
    assert Catalogue.objects.count() == 1


def test_a_change_moves_the_version(staff, form, catalogue):
    before = catalogue.version
    changed = {name: value for name, value in form.items() if name != "index_type"}  # not shown
    response = staff.post(
        reverse("admin:recognition_catalogue_change", args=[catalogue.pk]),
        changed | {"top_k": 9, "metric": "L2"},
    )
    assert response.status_code == 302
    catalogue.refresh_from_db()
    assert (catalogue.top_k, catalogue.version) == (9, before + 1)
    assert VectorIndex.objects.get(catalogue=catalogue).metric == "L2"


def test_removing_one_removes_its_files(staff, rows, django_capture_on_commit_callbacks):
    names = list(GalleryImage.objects.values_list("file", flat=True))
    address = reverse("admin:recognition_catalogue_delete", args=[rows.catalogue.pk])
    assert "2" in staff.get(address).content.decode()
    with django_capture_on_commit_callbacks(execute=True):
        assert staff.post(address, {"post": "yes"}).status_code == 302
    assert not Catalogue.objects.exists()
    assert not any(map(default_storage.exists, names))


def test_a_member_is_added_beside_the_settings(staff, form, catalogue):
    ben = factories.user("ben")
    row = {
        "memberships-TOTAL_FORMS": 1,
        "memberships-0-user": ben.pk,
        "memberships-0-role": "editor",
    }
    row["memberships-0-catalogue"] = catalogue.pk
    staff.post(reverse("admin:recognition_catalogue_change", args=[catalogue.pk]), form | row)
    assert ben.memberships.get().role == Role.EDITOR


def test_the_role_of_a_member_changes_and_never_who_it_is(staff, form, catalogue):
    ben, carl = factories.member(catalogue, "viewer", "ben"), factories.user("carl")
    row = {
        "memberships-TOTAL_FORMS": 1,
        "memberships-INITIAL_FORMS": 1,
        "memberships-0-id": ben.memberships.get().pk,
        "memberships-0-catalogue": catalogue.pk,
        "memberships-0-user": carl.pk,
        "memberships-0-role": "operator",
    }
    staff.post(reverse("admin:recognition_catalogue_change", args=[catalogue.pk]), form | row)
    assert ben.memberships.get().role == Role.OPERATOR
    assert not carl.memberships.exists()
    assert AuditEntry.objects.get(action=Action.MEMBER_CHANGE).object_name.startswith("ben")


def test_all_pictures_can_be_embedded_again(staff, rows):
    GalleryImage.objects.update(state="done")
    staff.post(
        reverse("admin:recognition_catalogue_changelist"),
        {"action": "embed_again", "_selected_action": [rows.catalogue.pk]},
    )
    assert set(GalleryImage.objects.values_list("state", flat=True)) == {"pending"}
