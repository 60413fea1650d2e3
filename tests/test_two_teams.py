"""Two teams use one site through HTTP at once; neither is ever told anything of the other.

What they do is random, by a seed; `tests/hammer.py` looks through every answer. That it would
notice is shown with sites that leak on purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db.models import Sum
from django.shortcuts import get_object_or_404

from recognition import tasks
from recognition.models import AuditEntry, Catalogue, GalleryImage, Job, Product, State
from recognition.models.catalogue import CatalogueQuerySet
from recognition.models.prepared import prepared
from recognition.services import catalogues, jobs
from tests import factories
from tests.hammer import (
    ACTS,
    API,
    Desk,
    Leak,
    Team,
    find_images,
    hammer,
    import_pictures,
    look_who_did_what,
    more_like_this,
    pry,
    two_teams,
    upload,
    watch_jobs,
)

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def desk(transactional_db, stub_engine, monkeypatch, settings) -> Iterator[Desk]:
    """The site in this process, and one worker beside it."""
    settings.SHITU_FEATURE_MODEL = factories.feature_model().name
    settings.SHITU_DETECTOR = ""
    settings.SHITU_PADDLEX_TIMEOUT = settings.SHITU_ANSWER_TIMEOUT = 120.0
    monkeypatch.setattr(jobs, "run_in_background", jobs.run)
    with Desk() as running:
        monkeypatch.setattr(tasks, "wake", running.wake)
        yield running


@pytest.fixture
def teams(desk) -> tuple[Team, Team]:
    from django.core.wsgi import get_wsgi_application

    return two_teams(get_wsgi_application())


def counts_are_true(team: Team) -> None:
    """What a team is told of its catalogues is exactly what is in them."""
    for catalogue in team.catalogues:
        here = f"{API}/catalogues/{catalogue.key}"
        told = team.ask("GET", f"{here}/statistics")
        rows = GalleryImage.everything.filter(catalogue=catalogue)
        size = rows.aggregate(size=Sum("byte_size", default=0))["size"]
        assert told["products"] == catalogue.products.count()
        assert sum(told["images"].values()) == catalogue.images.count()
        assert told["images"]["done"] == catalogue.images.filter(state=State.DONE).count()
        used = {name: one["used"] for name, one in team.ask("GET", f"{here}/quotas").items()}
        assert (used["images"], used["stored_bytes"]) == (rows.count(), size)
    mine = {str(one.key) for one in team.catalogues}
    listed = team.ask("GET", f"{API}/catalogues", params={"limit": 200})["results"]
    assert {one["key"] for one in listed} == mine


@pytest.mark.parametrize("seed", [1, 2])
def test_neither_is_told_anything_of_the_other(teams, desk, seed):
    hammer(teams, seed=seed, acts=50, threads=2)
    desk.finish()
    for team in teams:
        counts_are_true(team)
        assert team.answers > 100
        keys = Catalogue.objects.filter(owner=team.other.boss).values_list("key", flat=True)
        assert not team.told & {str(key).encode() for key in keys}
    assert desk.failures == []


# --- The test of the test -------------------------------------------------------------------------


def _everybody_is_a_member(patch: Callable[..., None]) -> None:
    patch(CatalogueQuerySet, "granted", lambda rows, role, user, limited_to: rows)
    patch(catalogues, "_seen", prepared(catalogues._seen.__wrapped__))  # or it knows the old rule


def _jobs_of_all(patch: Callable[..., None]) -> None:
    from recognition.api.jobs import _Jobs

    patch(_Jobs, "jobs", lambda view: Job.objects.select_related("started_by"))


def _the_log_of_all(patch: Callable[..., None]) -> None:
    from recognition.api.audit import AuditListView

    patch(AuditListView, "get_queryset", lambda view: AuditEntry.objects.all())


def _a_picture_by_its_number_alone(patch: Callable[..., None]) -> None:
    from recognition.api.images import OfImages

    def image(view: Any) -> GalleryImage:
        found = GalleryImage.objects.filter(number=view.kwargs["number"])
        return get_object_or_404(found.order_by("?")[:1])

    patch(OfImages, "image", image)


def _similar_in_all(patch: Callable[..., None]) -> None:
    from recognition.api import similar

    patch(similar, "several", lambda *_, **__: list(Catalogue.objects.select_related("index")))


@pytest.mark.parametrize(
    ("leak", "among"),
    [
        (_everybody_is_a_member, ACTS),
        (_everybody_is_a_member, [pry]),
        (_jobs_of_all, [import_pictures, watch_jobs]),
        (_the_log_of_all, [upload, look_who_did_what]),
        (_a_picture_by_its_number_alone, [upload, find_images]),
        (_similar_in_all, [upload, more_like_this]),
    ],
    ids=["membership", "membership, tried out", "jobs", "audit log", "picture", "similar"],
)
def test_a_leak_would_be_noticed(teams, monkeypatch, leak, among):
    leak(monkeypatch.setattr)
    with pytest.raises(Leak):
        hammer(teams, seed=3, acts=100, threads=1, among=among)


def test_a_count_of_too_much_would_be_noticed(teams, monkeypatch):
    found = catalogues.statistics
    monkeypatch.setattr(
        catalogues,
        "statistics",
        lambda catalogue: found(catalogue) | {"products": Product.objects.count()},
    )
    hammer(teams, seed=3, acts=3, threads=1, among=[upload])
    with pytest.raises(AssertionError):
        for team in teams:
            counts_are_true(team)
