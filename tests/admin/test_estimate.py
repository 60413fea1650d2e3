"""Page counts of huge lists cost nothing."""

from __future__ import annotations

from django.db import connection

from recognition.admin.work import EstimatingPaginator
from recognition.models import User
from tests import factories


def test_short_lists_are_counted_exactly(db):
    for _ in range(3):
        factories.user()
    assert EstimatingPaginator(User.objects.order_by("pk"), 50).count == 3


def test_long_lists_are_estimated_by_the_planner(db, monkeypatch, django_assert_num_queries):
    monkeypatch.setattr(EstimatingPaginator, "EXACT", 100)
    User.objects.bulk_create([User(username=f"u{n}", password="-") for n in range(1500)])
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE recognition_user")
    with django_assert_num_queries(2):
        assert EstimatingPaginator(User.objects.order_by("pk"), 50).count == 1500
    few = EstimatingPaginator(User.objects.filter(username__startswith="u10").order_by("pk"), 50)
    assert 100 < few.count < 1500
