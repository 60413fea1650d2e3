"""PostgreSQL does what the planner meant, whoever binds the parameters, however often it asks."""

from __future__ import annotations

import numpy as np
import pytest
from django.db import connection

from bench import spaces
from bench.vectors import random_unit
from recognition import search
from recognition.models import IndexType, Product
from recognition.search import Comparison, Filter, Question, physical, wire
from recognition.search.nearest import _branches, explain_many, statement
from recognition.services import indexes

pytestmark = pytest.mark.django_db


def plan_of(question: Question, **options) -> str:
    return "\n".join(explain_many([question], **options))


@pytest.mark.parametrize("index_type", [IndexType.HNSW32, IndexType.IVF])
@pytest.mark.parametrize("per_product", [True, False])
def test_an_indexed_space_is_searched_by_its_index(shelf, ivf_shelf, index_type, per_product):
    made = shelf if index_type is IndexType.HNSW32 else ivf_shelf
    plan = plan_of(Question([made.space], made.questions[:3], 5, per_product=per_product))
    assert f"Index Scan using {made.space.index_name}" in plan
    assert "Seq Scan on recognition_embedding" not in plan


def test_a_filter_that_lets_much_pass_still_uses_the_index(shelf):
    among = Filter(attributes=(Comparison("even", "=", True),))
    plan = plan_of(Question([shelf.space], shelf.questions[:1], 5, among=among))
    assert f"Index Scan using {shelf.space.index_name}" in plan


def test_a_filter_that_lets_little_pass_does_not(shelf):
    among = Filter(attributes=(Comparison("number", "<", 10),))
    plan = plan_of(Question([shelf.space], shelf.questions[:1], 5, among=among))
    assert shelf.space.index_name not in plan


@pytest.mark.parametrize("limit", [5, 50, 100])
def test_exact_means_exact(shelf, limit):
    plan = plan_of(Question([shelf.space], shelf.questions[:1], limit), exact=True)
    assert shelf.space.index_name not in plan


def test_a_small_space_reads_its_own_partition_only(filled):
    made = filled(100)
    plan = plan_of(Question([made.space], made.questions[:1], 5))
    tables = {f"recognition_embedding_p{i:02}" for i in range(16)}
    assert len([table for table in tables if table in plan]) == 1


def test_however_many_images_are_left_out_they_are_looked_up_in_a_hash(filled):
    made = filled(12_000)
    Product.objects.filter(catalogue=made.space.catalogue).update(is_active=False)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE recognition_product; ANALYZE recognition_galleryimage")
        cursor.execute("SET LOCAL work_mem = '64kB'")  # as few as 250,000 are to the default
    plan = plan_of(Question([made.space], made.questions[:1], 5), exact=True)
    assert "hashed SubPlan" in plan


def test_a_prepared_statement_keeps_one_plan_and_it_is_the_right_one(shelf):
    with connection.cursor() as cursor:
        cursor.execute("SET plan_cache_mode = auto")
    for row in range(15):
        search.nearest([shelf.space], shelf.questions[row : row + 1], limit=5)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT name, generic_plans FROM pg_prepared_statements"
            " WHERE statement LIKE '%%place <= 5' AND statement LIKE %s AND generic_plans > 0",
            [f"%e.space_id = {shelf.space.pk} %"],
        )
        [(name, times)] = cursor.fetchall()
        assert times > 0
        vector = "[" + ",".join(f"{x:.4f}" for x in shelf.questions[0]) + "]"
        cursor.execute(f"EXPLAIN (VERBOSE) EXECUTE {name} ('{vector}')")
        plan = "\n".join(row[0] for row in cursor.fetchall())
        assert "$1" in plan  # it is the generic plan
        assert f"Index Scan using {shelf.space.index_name}" in plan
        cursor.execute("RESET plan_cache_mode")


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
def test_any_plan_cache_mode_will_do(shelf, mode):
    with connection.cursor() as cursor:
        cursor.execute(f"SET plan_cache_mode = {mode}")
    try:
        for row in range(8):
            found = search.nearest([shelf.space], shelf.questions[row : row + 1], limit=5)
            assert len(found.neighbours[0]) == 5
        plan = plan_of(Question([shelf.space], shelf.questions[:1], 5))
        assert f"Index Scan using {shelf.space.index_name}" in plan
    finally:
        with connection.cursor() as cursor:
            cursor.execute("RESET plan_cache_mode")


def test_djangos_own_binding_gets_the_same_plan_and_answer(shelf):
    question = Question([shelf.space], shelf.questions[:1], 5)
    sql, params = statement([question], _branches(question, 0, attempt=0, exact=False))
    text = "[" + ",".join(f"{x:.6f}" for x in shelf.questions[0]) + "]"
    values = [text if isinstance(value, wire.Binary) else value for value in params]
    django_sql = sql.replace("%b", "%s")
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {django_sql}", values)
        plan = "\n".join(row[0] for row in cursor.fetchall())
        assert f"Index Scan using {shelf.space.index_name}" in plan
        cursor.execute(django_sql, values)
        images = {row[2] for row in cursor.fetchall() if row[0] is not None}
    found = search.nearest([shelf.space], shelf.questions[:1], limit=5)
    assert images == {n.image_id for n in found.neighbours[0]}


def test_many_spaces_do_not_slow_the_planning_of_one(shelf):
    """Small catalogues have no index of their own, so there is nothing to plan around."""
    question = Question([shelf.space], shelf.questions[:1], 5)

    def scans() -> list[str]:
        """Where vectors are read, and how; how PostgreSQL reads the catalogue is its own affair."""
        lines = [line.partition("(actual")[0].strip() for line in plan_of(question).splitlines()]
        return [line for line in lines if "recognition_embedding" in line]

    before, there = scans(), physical.existing()
    assert len(before) == 2  # a first look, and all of the effort
    vectors = random_unit(4, 32)
    for _ in range(60):
        space = spaces.make_space(32)
        spaces.fill(space, vectors, np.arange(4))
    assert indexes.tend_all() == {}
    assert scans() == before
    assert physical.existing() == there


def test_inactive_products_are_looked_up_in_an_index_of_their_own(filled):
    made = filled(400)
    Product.objects.filter(label="product 3").update(is_active=False)
    with connection.cursor() as cursor:
        cursor.execute("SET enable_seqscan = off")
    try:
        assert "product_inactive" in plan_of(Question([made.space], made.questions[:1], 5))
    finally:
        with connection.cursor() as cursor:
            cursor.execute("RESET enable_seqscan")
