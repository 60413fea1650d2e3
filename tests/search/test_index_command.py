"""`manage.py index`, as somebody at a terminal uses it."""

from __future__ import annotations

import io
import json

import pytest
from django.core.management import CommandError, call_command

from recognition.models import Action, AuditEntry, IndexType, Metric

pytestmark = pytest.mark.django_db
builds = pytest.mark.django_db(transaction=True)


def index(*arguments: object) -> str:
    out = io.StringIO()
    call_command("index", *map(str, arguments), stdout=out)
    return out.getvalue()


def test_stats_for_people_and_for_programs(shelf):
    text = index("stats", shelf.space.catalogue.key)
    assert "vectors" in text
    assert "4,000" in text
    [space] = json.loads(index("stats", shelf.space.catalogue.key, "--json"))
    assert (space["vectors"], space["index_type"], space["state"]) == (4000, "HNSW32", "indexed")
    assert space["built_with"]["m"] == 16


@builds
def test_tend_all(filled, low_thresholds):
    made = filled(700)
    assert index("tend") == f"space {made.space.pk}: built\n"
    assert index("tend") == ""


@builds
def test_rebuild(indexed):
    made = indexed(700)
    assert index("rebuild", made.space.catalogue.name) == "index built\n"
    old = made.space.index_name
    made.space.refresh_from_db()
    assert made.space.index_name != old


@builds
def test_set(indexed):
    made = indexed(700)
    index("set", made.space.catalogue.key, "--type", "IVF", "--lists", 10, "--metric", "L2")
    made.space.refresh_from_db()
    assert (made.space.index_type, made.space.metric) == (IndexType.IVF, Metric.L2)
    assert made.space.built_with["lists"] == 10
    changed = AuditEntry.objects.get(action=Action.CATALOGUE_CHANGE)
    assert changed.changes["metric"] == ["IP", "L2"]


def test_recall(shelf, filled):
    assert "recall@10" in index("recall", shelf.space.catalogue.key)
    assert "exact" in index("recall", filled(20).space.catalogue.key)


def test_explain(shelf):
    key = shelf.space.catalogue.key
    assert shelf.space.index_name in index("explain", key)
    assert shelf.space.index_name not in index("explain", key, "--exact", "--image", 3)
    with pytest.raises(CommandError, match="no such image"):
        index("explain", key, "--image", 9999)


def test_what_cannot_be_done_is_said(filled):
    with pytest.raises(CommandError, match="no catalogue"):
        index("stats", "nothing")
    with pytest.raises(CommandError, match="ef_construction"):
        index("set", filled(5).space.catalogue.key, "--ef-construction", 8, "--m", 16)
