"""Pictures are served to staff who may see their row."""

from __future__ import annotations

import io

import pytest
from django.urls import reverse
from PIL import Image

from tests import factories

KINDS = ["galleryimage", "recognitionquery"]


def address(rows, kind: str, *more: int) -> str:
    return reverse(f"admin:recognition_{kind}_picture", args=[getattr(rows, kind).pk, *more])


@pytest.mark.parametrize("kind", KINDS)
def test_the_stored_picture(staff, rows, kind):
    response = staff.get(address(rows, kind))
    data = b"".join(response.streaming_content)
    assert data == getattr(rows, kind).file.read()
    assert response["Content-Type"] == "image/png"
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["Cache-Control"].startswith("private")


@pytest.mark.parametrize("kind", KINDS)
def test_a_small_one(staff, rows, kind):
    response = staff.get(address(rows, kind, 96))
    with Image.open(io.BytesIO(response.content)) as small:
        assert small.format == "JPEG"
        assert max(small.size) <= 96


def test_only_in_the_sizes_that_the_screens_use(staff, rows):
    assert staff.get(address(rows, "galleryimage", 97)).status_code == 404


@pytest.mark.parametrize("kind", KINDS)
def test_not_to_staff_without_the_permission(client, rows, kind):
    client.force_login(factories.user(is_staff=True))
    assert client.get(address(rows, kind)).status_code == 403


@pytest.mark.parametrize("kind", KINDS)
def test_not_to_members(client, rows, kind):
    client.force_login(rows.user)
    assert client.get(address(rows, kind)).status_code == 302


def test_a_box_is_drawn_over_the_picture(staff, rows):
    rows.galleryimage.box = [10, 5, 40, 30]
    rows.galleryimage.save()
    page = staff.get(reverse("admin:recognition_galleryimage_change", args=[rows.galleryimage.pk]))
    assert '<rect x="10.0" y="5.0" width="30.0" height="25.0"' in page.content.decode()


def test_a_recognition_shows_its_boxes_and_answers(staff, rows):
    page = staff.get(
        reverse("admin:recognition_recognitionquery_change", args=[rows.recognitionquery.pk])
    ).content.decode()
    assert '<rect x="4.0" y="4.0" width="36.0" height="26.0"' in page
    assert "green tea" in page
    assert "0.910" in page
