"""Querysets that are compiled once say what they would say otherwise."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection
from django.db.models import Exists, OuterRef, QuerySet

from recognition.models import Catalogue, FeatureModel, Membership, Role
from recognition.models.prepared import prepared
from tests import factories


@pytest.fixture
def teas(db) -> list[Catalogue]:
    return [factories.catalogue(name=name) for name in ("black", "green", "white")]


def test_other_values_need_no_other_statement(teas):
    built = []

    @prepared
    def named(name: str) -> QuerySet[Catalogue]:
        built.append(name)
        return Catalogue.objects.filter(name=name)

    assert [named(tea.name) for tea in teas] == [[tea] for tea in teas]
    assert named("red") == []
    assert len(built) == 1


def test_keywords_make_other_statements(teas):
    @prepared
    def first(*, most: int) -> QuerySet[Catalogue]:
        return Catalogue.objects.all()[:most]

    assert [len(first(most=most)) for most in (1, 2, 1)] == [1, 2, 1]


def test_instances_come_with_what_was_selected_and_annotated(teas, django_assert_num_queries):
    @prepared
    def keyed(key: Any, role: str) -> QuerySet[Catalogue]:
        managed = Membership.objects.filter(catalogue=OuterRef("pk"), role=role)
        rows = Catalogue.objects.select_related("owner", "index__feature_model")
        return rows.annotate(is_managed=Exists(managed)).filter(key=key)

    for role, is_managed in ((Role.MANAGER, True), (Role.VIEWER, False)):
        with django_assert_num_queries(1):
            [tea] = keyed(teas[1].key, role)
            assert (tea.owner, tea.index) == (tea.owner, tea.index)
            assert tea.index.feature_model.digest
        assert tea == teas[1] and tea.is_managed is is_managed
        assert (tea.created_at, tea.version) == (teas[1].created_at, teas[1].version)
    assert not tea._state.adding and tea._state.db == "default"


def test_columns_are_read_as_their_fields_say(db):
    kept = FeatureModel.objects.create(name="a", digest="b", dimension=3, preprocessing={"size": 8})

    @prepared
    def columns(pk: int) -> QuerySet[FeatureModel, Any]:
        return FeatureModel.objects.filter(pk=pk).values_list("preprocessing", "created_at")

    for _ in range(2):
        assert columns(kept.pk) == [({"size": 8}, kept.created_at)]


def test_a_value_is_never_part_of_the_sql(teas):
    @prepared
    def named(name: str) -> QuerySet[Catalogue]:
        return Catalogue.objects.filter(name=name)

    named("x")
    assert named("' OR '' = '") == []
    assert named("100%s") == []


def test_nothing_equals_none(teas):
    @prepared
    def with_threshold(value: float | None) -> QuerySet[Catalogue]:
        return Catalogue.objects.filter(rec_threshold=value)

    assert all(tea.rec_threshold is None for tea in teas)
    assert with_threshold(None) == []


@pytest.mark.django_db(transaction=True)
def test_every_thread_asks_on_its_own_connection():
    tea = factories.catalogue(name="black")

    @prepared
    def named(name: str) -> QuerySet[Catalogue]:
        return Catalogue.objects.filter(name=name)

    def elsewhere() -> list[Catalogue]:
        try:
            return named("black")
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as other:
        assert other.submit(elsewhere).result() == [tea]
    assert named("black") == [tea]
