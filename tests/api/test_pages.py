"""Lists come in pages, filtered, ordered, with chosen fields, in few queries."""

from __future__ import annotations

import base64
import json

import pytest
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recognition.models import (
    Detection,
    Feedback,
    GalleryImage,
    Job,
    JobLine,
    Match,
    Membership,
    Product,
    RecognitionQuery,
    Worker,
)
from recognition.services import members, tokens
from tests import factories


def _walk(client, address: str, way: str = "next") -> list[dict]:
    rows = []
    while address:
        answer = client.get(address)
        assert answer.status_code == 200, answer.content
        page = answer.json()
        rows += page["results"] if way == "next" else page["results"][::-1]
        address = page[way]
    return rows


@pytest.fixture
def many(catalogue) -> list[str]:
    labels = [f"product {number:03}" for number in range(23)]
    Product.objects.bulk_create(Product(catalogue=catalogue, label=label) for label in labels)
    return labels


def test_every_row_once_and_in_order(manager, url, many):
    rows = _walk(manager, url("products") + "?limit=5")
    assert [row["label"] for row in rows] == many


def test_and_downwards(manager, url, many):
    rows = _walk(manager, url("products") + "?limit=4&ordering=-label")
    assert [row["label"] for row in rows] == many[::-1]


def test_and_back_again(manager, url, many):
    first = manager.get(url("products") + "?limit=5").json()
    assert first["previous"] is None
    third = manager.get(manager.get(first["next"]).json()["next"]).json()
    back = _walk(manager, third["previous"], "previous")
    assert [row["label"] for row in back][::-1] == many[:10]


def test_rows_that_share_the_value_are_not_skipped(manager, url, catalogue, many):
    moment = Product.objects.filter(catalogue=catalogue).first().changed_at
    Product.objects.filter(catalogue=catalogue).update(changed_at=moment)
    for ordering in ("changed_at", "-changed_at"):
        rows = _walk(manager, url("products") + f"?limit=3&ordering={ordering}")
        assert sorted(row["label"] for row in rows) == many


def test_rows_added_and_removed_between_pages_disturb_nothing(manager, url, catalogue, many):
    page = manager.get(url("products") + "?limit=5").json()
    catalogue.products.filter(label=many[1]).delete()
    Product.objects.create(catalogue=catalogue, label="product 000a")
    rest = _walk(manager, page["next"])
    assert [row["label"] for row in rest] == many[5:]


def _forged(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "é",
        _forged([0, "a"]),
        _forged([0, None, 1]),
        _forged([0, "a\x00", 1]),
        _forged([0, "\ud800", 1]),
        _forged({"a": 1}),
        _forged([2, "a", 1]),
        _forged([0, [], 1]),
    ],
)
def test_a_forged_cursor_is_refused(manager, url, cursor):
    response = manager.get(url("products"), {"cursor": cursor})
    assert response.status_code == 400
    assert list(response.json()["error"]["fields"]) == ["cursor"]


@pytest.mark.parametrize("value", ["not a date", "2020-02-31", 7, "0001-01-01T00:00:00+23:59"])
def test_a_cursor_of_another_list_is_refused(manager, url, value):
    cursor = _forged([0, value, 1])
    response = manager.get(url("products"), {"cursor": cursor, "ordering": "changed_at"})
    assert response.status_code == 400


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_a_moment_that_no_database_knows_is_refused(manager, url, moment):
    response = manager.get(url("recognitions"), {"created_after": moment})
    assert response.status_code == 400
    assert list(response.json()["error"]["fields"]) == ["created_after"]


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cursor=st.text(max_size=40), limit=st.text(max_size=8), ordering=st.text(max_size=12))
def test_no_query_breaks_it(manager, url, cursor, limit, ordering):
    query = {"cursor": cursor, "limit": limit, "ordering": ordering}
    assert manager.get(url("products"), query).status_code in (200, 400)


@pytest.mark.parametrize("limit", ["0", "-1", "x", "1e3", "²"])
def test_a_limit_that_is_none(manager, url, limit):
    assert manager.get(url("products"), {"limit": limit}).status_code == 400


def test_a_limit_too_high_is_lowered(manager, url, many):
    assert len(manager.get(url("products"), {"limit": "100000"}).json()["results"]) == 23


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ordering", "colour"),
        ("ordering", "label,-changed_at"),
        ("is_active", "perhaps"),
        ("categroy", "drinks"),
    ],
)
def test_a_misspelt_filter_or_order_is_no_list_of_everything(manager, url, many, name, value):
    response = manager.get(url("products"), {name: value})
    assert response.status_code == 400
    assert list(response.json()["error"]["fields"]) == [name]


@pytest.mark.parametrize(("value", "rows"), [("true", 23), ("True", 23), ("false", 0), ("", 23)])
def test_yes_or_no(manager, url, many, value, rows):
    assert len(manager.get(url("products"), {"is_active": value}).json()["results"]) == rows


def test_only_the_fields_asked_for(manager, url, many):
    page = manager.get(url("products"), {"limit": 1, "fields": "label,id"}).json()
    assert list(page["results"][0]) == ["id", "label"]
    assert list(manager.get(url(), {"fields": "key"}).json()) == ["key"]


def test_a_field_that_is_not_there(manager, url, many):
    response = manager.get(url("products"), {"fields": "label,colour"})
    assert response.status_code == 400
    assert "colour" in response.json()["error"]["fields"]["fields"][0]


def _fill(catalogue, count: int) -> None:
    """`count` of everything that is listed."""
    for number in range(count):
        other = factories.catalogue(name=f"c{number}")
        Membership.objects.create(user=catalogue.owner, catalogue=other, role="viewer")
    products = Product.objects.bulk_create(
        Product(catalogue=catalogue, label=f"p{number}") for number in range(count)
    )
    Product.objects.bulk_create(
        Product(catalogue=catalogue, label=f"r{number}", is_active=False, removed_at=timezone.now())
        for number in range(count)
    )
    Worker.objects.bulk_create(
        Worker(name=f"w{number}", batch_size=1, started_at=timezone.now(), seen_at=timezone.now())
        for number in range(count)
    )
    for number in range(count):
        factories.member(catalogue, "viewer")
        members.invite(catalogue, f"{number}@example.com", "viewer", by=catalogue.owner, link=str)
        tokens.create(catalogue.owner, f"t{number}", catalogues=[catalogue])
    images = GalleryImage.objects.bulk_create(
        GalleryImage(
            catalogue=catalogue,
            product=product,
            number=number,
            checksum=str(number),
            width=9,
            height=9,
            byte_size=1,
            added_by=catalogue.owner,
        )
        for number, product in enumerate(products)
    )
    jobs = Job.objects.bulk_create(
        Job(catalogue=catalogue, kind=Job.Kind.IMPORT, started_by=catalogue.owner)
        for _ in range(count)
    )
    JobLine.objects.bulk_create(
        JobLine(job=jobs[0], number=number, text="x", result="ok", image=image)
        for number, image in enumerate(images)
    )
    queries = RecognitionQuery.objects.bulk_create(
        RecognitionQuery(
            catalogue=catalogue,
            asked_by=catalogue.owner,
            width=9,
            height=9,
            state="done",
            feature_model=catalogue.index.feature_model,
        )
        for _ in range(count)
    )
    detections = Detection.objects.bulk_create(
        Detection(query=query, position=at, x1=0, y1=0, x2=9, y2=9, det_score=0.5, status="match")
        for query in queries
        for at in range(2)
    )
    Feedback.objects.bulk_create(
        Feedback(
            detection=detection,
            verdict="confirmed",
            product=products[0],
            label="p0",
            given_by=catalogue.owner,
            given_at=timezone.now(),
        )
        for detection in detections
    )
    Match.objects.bulk_create(
        Match(
            detection=detection,
            rank=rank,
            product=products[0],
            image=images[0],
            label="p0",
            score=0.9,
        )
        for detection in detections
        for rank in range(2)
    )


@pytest.mark.parametrize("count", [2, 20])
def test_every_list_in_at_most_8_queries(
    catalogue, with_token, url, count, django_assert_max_num_queries
):
    _fill(catalogue, count)
    job = catalogue.jobs.order_by("pk").first()
    client = with_token(catalogue.owner)
    everything = ("products", "images", "recognitions", "jobs", "trash", "members", "invitations")
    lists = [url(part) for part in (*everything, "audit")]
    other = [
        "/api/v1/catalogues",
        "/api/v1/tokens",
        "/api/v1/workers",
        url("jobs", job.key, "lines"),
    ]
    catalogue.owner.is_staff = True
    catalogue.owner.save()
    for address in [*other, *lists]:
        with django_assert_max_num_queries(8):
            page = client.get(address, {"limit": 200}).json()
        assert len(page["results"]) >= count, address
