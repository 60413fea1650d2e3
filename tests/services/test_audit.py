"""Every act is written down once, with who, what, when and from where, and stays written."""

from __future__ import annotations

import csv
import io
import json
from datetime import timedelta

import pytest
from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.db import InternalError, ProgrammingError, connection, transaction
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django.urls import resolve
from django.utils import timezone

from recognition.errors import Conflict
from recognition.middleware import ActorMiddleware
from recognition.models import (
    Action,
    ApiToken,
    AuditEntry,
    FeatureModel,
    GalleryImage,
    Job,
    Source,
    State,
)
from recognition.services import (
    audit,
    catalogues,
    exports,
    gallery,
    gallery_adding,
    gallery_embedding,
    imports,
    jobs,
    members,
    model_switch,
    product_merging,
    product_moving,
    products,
    queries,
    quotas,
    tokens,
    trash,
)
from tests import factories

pytestmark = pytest.mark.django_db


def newest() -> AuditEntry:
    return AuditEntry.objects.first()


# --- Every verb -----------------------------------------------------------------------------------


def _merge(c):
    product_merging.merge([c.products.get(label="coffee")], c.products.get(label="tea"))


def _split(c):
    tea = c.products.get(label="tea")
    product_merging.split(tea, tea.images.all(), "matcha")


def _restore(c):
    tea = c.products.get(label="tea")
    trash.put(c, [tea])
    trash.restore(tea)


def _purge(c):
    tea = c.products.get(label="tea")
    trash.put(c, [tea])
    trash.purge(c, [tea])


def _retry(c):
    c.images.update(state=State.FAILED)
    gallery_embedding.retry(c.images.all())


def _invite(c):
    return members.invite(c, "a@example.com", "viewer", by=c.owner, link=lambda text: text)


VERBS = {
    Action.CATALOGUE_CHANGE: lambda c: catalogues.change(c, top_k=3, metric="L2"),
    Action.CATALOGUE_REMOVE: catalogues.remove,
    Action.PRODUCT_CREATE: lambda c: products.create(c, "juice"),
    Action.PRODUCT_CHANGE: lambda c: products.change(c.products.first(), label="x"),
    Action.PRODUCT_UPSERT: lambda c: products.bulk_upsert(c, [{"external_id": "1", "label": "x"}]),
    Action.PRODUCT_MERGE: _merge,
    Action.PRODUCT_SPLIT: _split,
    Action.PRODUCT_MOVE_IN: lambda c: product_moving.move(
        [c.products.first()], factories.catalogue()
    ),
    Action.PRODUCT_TRASH: lambda c: trash.put(c, list(c.products.all())),
    Action.PRODUCT_RESTORE: _restore,
    Action.PRODUCT_PURGE: _purge,
    Action.IMAGE_ADD: lambda c: factories.add(c, "tea", 7),
    Action.IMAGE_CHANGE: lambda c: gallery.set_box(c.images.first(), [0, 0, 20, 20]),
    Action.IMAGE_MOVE: lambda c: gallery.move_images(c.images.all(), c.products.first()),
    Action.IMAGE_REMOVE: lambda c: gallery.remove_images(c, c.images.all()),
    Action.IMAGE_RETRY: _retry,
    Action.IMAGE_REEMBED: gallery_embedding.reembed,
    Action.RECOGNITION_REMOVE: lambda c: queries.remove(
        queries.submit(c, factories.picture(9), by=None)
    ),
    Action.MEMBER_ADD: lambda c: members.add(c, factories.user(), "viewer"),
    Action.MEMBER_CHANGE: lambda c: members.change(
        members.add(c, factories.user(), "viewer"), "editor"
    ),
    Action.MEMBER_REMOVE: lambda c: members.remove(members.add(c, factories.user(), "viewer")),
    Action.INVITATION_SEND: _invite,
    Action.INVITATION_WITHDRAW: lambda c: members.withdraw(_invite(c)[0]),
    Action.INVITATION_ACCEPT: lambda c: members.accept(_invite(c)[1], factories.user()),
    Action.QUOTA_CHANGE: lambda c: quotas.change(c, images=10),
}


@pytest.fixture
def stocked(catalogue):
    for label, seed in (("tea", 1), ("coffee", 2)):
        factories.add(catalogue, label, seed)
    return catalogue


@pytest.mark.parametrize("action", VERBS)
def test_every_verb_writes_one_entry(stocked, action):
    before = AuditEntry.objects.filter(action=action).count()
    VERBS[action](stocked)
    assert newest().action == action
    assert AuditEntry.objects.filter(action=action).count() == before + 1


def test_what_changed_is_there_before_and_after(catalogue):
    tea = products.create(catalogue, "tea", price="1.5", currency="EUR")
    products.change(tea, label="green tea", price="2", sku="")
    entry = newest()
    assert entry.changes == {"label": ["tea", "green tea"], "price": ["1.5000", "2"]}
    assert (entry.object_type, entry.object_id, entry.object_name) == (
        "product",
        str(tea.pk),
        "green tea",
    )


def test_what_became_of_a_product_is_found_by_its_id_to_the_end(catalogue):
    tea = products.create(catalogue, "tea")
    trash.put(catalogue, [tea])
    trash.purge(catalogue, [tea])
    entries = AuditEntry.objects.filter(object_type="product", object_id=str(tea.pk))
    assert list(entries.values_list("action", "details__labels")) == [
        (Action.PRODUCT_PURGE, ["tea"]),
        (Action.PRODUCT_TRASH, ["tea"]),
        (Action.PRODUCT_CREATE, None),
    ]


def test_an_act_upon_many_is_one_entry_with_its_count(catalogue):
    new = [gallery_adding.NewImage("tea", factories.picture(n)) for n in range(5)]
    gallery_adding.add_images(catalogue, new, by=catalogue.owner)
    entry = AuditEntry.objects.get(action=Action.IMAGE_ADD)
    assert (entry.count, len(entry.details["ids"]), entry.object_id) == (5, 5, "")


@pytest.mark.parametrize(
    "nothing",
    [
        lambda c: products.change(c.products.first(), label="coffee"),
        lambda c: catalogues.change(c, top_k=5),
        lambda c: gallery_adding.add_image(c, "tea", factories.picture(1), by=None),
        lambda c: gallery.remove_numbers(c, [99]),
        lambda c: trash.put(c, []),
        lambda c: gallery_embedding.retry(c.images.all()),
        lambda c: quotas.change(c, images=None),
    ],
)
def test_what_changes_nothing_writes_nothing(stocked, nothing):
    before = AuditEntry.objects.count()
    nothing(stocked)
    assert AuditEntry.objects.count() == before


def test_what_was_refused_or_rolled_back_is_not_there(stocked):
    before = AuditEntry.objects.count()
    with pytest.raises(Conflict):
        products.create(stocked, "tea")
    with pytest.raises(RuntimeError), transaction.atomic():
        products.create(stocked, "juice")
        raise RuntimeError
    assert AuditEntry.objects.count() == before


@pytest.mark.django_db(transaction=True)
def test_nothing_is_recorded_outside_of_the_transaction_that_does_it(catalogue):
    with pytest.raises(RuntimeError, match="outside"):
        audit.record(Action.IMAGE_ADD, catalogue=catalogue)


# --- Who, and from where --------------------------------------------------------------------------


def acted_in(request: HttpRequest, catalogue) -> AuditEntry:
    def view(request: HttpRequest) -> HttpResponse:
        products.create(catalogue, "by request")
        return HttpResponse()

    ActorMiddleware(view)(request)
    return newest()


@pytest.mark.parametrize(
    ("path", "source"),
    [("/api/v1/x", Source.API), ("/admin/login/", Source.ADMIN), ("/login/", Source.PAGE)],
)
def test_the_door_somebody_came_through(catalogue, user, path, source):
    request = RequestFactory().post(path)
    request.user = user
    request.resolver_match = resolve(path) if source == Source.ADMIN else None
    entry = acted_in(request, catalogue)
    assert (entry.source, entry.user_id, entry.user_name) == (source, user.pk, "ann")


def test_the_token_somebody_used_is_named_and_its_text_is_not(catalogue, user):
    user.token, text = tokens.create(user, "till 7")
    request = RequestFactory().post("/api/v1/x")
    request.user = user
    entry = acted_in(request, catalogue)
    assert entry.token.startswith("till 7") and text not in entry.token


def test_who_signs_in_during_the_request_is_who_acts(catalogue, user):
    request = RequestFactory().post("/api/v1/x")
    request.user = AnonymousUser()

    def view(request: HttpRequest) -> HttpResponse:
        request.user = user  # as an API view does with a token
        products.create(catalogue, "x")
        return HttpResponse()

    ActorMiddleware(view)(request)
    assert newest().user_id == user.pk


def test_after_a_request_nobody_acts(catalogue, user):
    request = RequestFactory().post("/api/v1/x")
    request.user = user
    acted_in(request, catalogue)
    products.create(catalogue, "by command")
    assert (newest().source, newest().user) == (Source.COMMAND, None)


def test_a_job_is_two_entries_and_its_report_has_the_rest(catalogue, user):
    job = Job.objects.create(catalogue=catalogue, kind="import", started_by=user)
    before = AuditEntry.objects.count()
    with audit.for_job(job):
        factories.add(catalogue, "tea")
        with transaction.atomic():
            audit.record(Action.JOB_END, job, catalogue=catalogue, count=1)
    assert AuditEntry.objects.count() == before + 1
    assert (newest().source, newest().user, newest().action) == ("worker", user, "job.end")


def _done(catalogue, tmp_path):
    jobs.run(exports.start(catalogue, by=catalogue.owner).pk)


def _given_up(catalogue, tmp_path):
    job = exports.start(catalogue, by=catalogue.owner)
    Job.objects.update(
        state=State.RUNNING,
        attempts=settings.SHITU_MAX_ATTEMPTS,
        lease_until=timezone.now() - timedelta(seconds=1),
    )
    jobs.run(job.pk)
    jobs.run(job.pk)  # a wake-up that comes late


def _changed_source(catalogue, tmp_path):
    labels = tmp_path / "gallery.txt"
    for text in ("a.png tea", "a.png coffee"):
        labels.write_text(text)
        imports.start_here(catalogue, tmp_path, by=catalogue.owner, labels=labels)


def _dropped(catalogue, tmp_path):
    other = FeatureModel.objects.create(name="other_rec", dimension=8)
    space = catalogue.spaces.create(feature_model=other)
    Job.objects.create(
        catalogue=catalogue,
        kind=Job.Kind.REEMBED,
        started_by=catalogue.owner,
        options={"space": space.pk},
    )
    model_switch.drop(catalogue, other.name, by=None)


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (_done, ""),
        (_given_up, "the worker stopped 3 times here"),
        (_changed_source, "interrupted, and its source has changed since"),
        (_dropped, "the search space was dropped"),
    ],
)
def test_however_a_job_ends_that_is_one_entry(catalogue, tmp_path, end, reason):
    end(catalogue, tmp_path)
    entry = AuditEntry.objects.get(action=Action.JOB_END)
    job = Job.objects.get(pk=entry.object_id)
    assert (entry.source, entry.user) == (Source.WORKER, catalogue.owner)
    assert (entry.details["state"], entry.details["reason"]) == (job.state, reason)
    assert job.is_finished and job.error == reason


# --- It stays -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE recognition_auditentry SET user_name = 'eve'",
        "DELETE FROM recognition_auditentry",
        "DELETE FROM recognition_auditentry WHERE false",
    ],
)
def test_the_database_refuses_to_change_or_delete_it(stocked, statement):
    before = list(AuditEntry.objects.values())
    with (
        pytest.raises((InternalError, ProgrammingError), match="append-only"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(statement)
    assert list(AuditEntry.objects.values()) == before


def test_it_outlives_what_it_speaks_about(stocked, user):
    editor = factories.member(stocked, "editor", "bob")
    gallery_adding.add_image(stocked, "tea", factories.picture(5), by=editor)
    catalogues.remove(stocked)
    editor.delete()
    entry = AuditEntry.objects.get(user_name="bob")
    assert entry.action == Action.IMAGE_ADD and entry.count == 1
    assert not GalleryImage.everything.exists()


# --- Who reads it ---------------------------------------------------------------------------------


def test_managers_of_the_catalogue_see_it_and_nobody_else(stocked, user):
    assert AuditEntry.objects.visible_to(user).count() == AuditEntry.objects.count()
    for outsider in (factories.member(stocked, "editor"), factories.user(), AnonymousUser()):
        assert not AuditEntry.objects.visible_to(outsider).exists()


def test_it_is_exported_as_a_table_that_starts_no_formula(stocked):
    products.create(stocked, '=HYPERLINK("http://evil")')
    rows = list(csv.DictReader(io.StringIO("".join(audit.as_csv(AuditEntry.objects.all()))[1:])))
    assert len(rows) == AuditEntry.objects.count()
    assert rows[0]["object_name"].startswith("'=")
    assert json.loads(rows[0]["changes"])["label"] == ["", '=HYPERLINK("http://evil")']


def test_images_that_change_hands_say_whose_they_were(catalogue):
    tea, coffee = factories.add(catalogue, "tea", 1), factories.add(catalogue, "coffee", 2)
    gallery.relabel(catalogue, [tea], "coffee")
    entry = newest()
    assert entry.action == Action.IMAGE_MOVE
    assert entry.changes == {"label": ["tea", "coffee"]}
    assert entry.details["came_from"] == {str(tea.number): tea.product_id}
    gallery.relabel(catalogue, [tea, coffee], "coffee")
    assert newest() == entry  # both had it already: nothing happened


def test_many_products_say_what_each_was_before(catalogue):
    a = products.create(catalogue, "a", external_id="A", category="old")
    b = products.create(catalogue, "b", category="new")
    products.change_many(catalogue, [a, b], category="new")
    assert newest().details["each"] == {str(a.pk): {"category": ["old", "new"]}}
    long = "x" * 20_000
    products.bulk_upsert(catalogue, [{"external_id": "A", "sku": "1", "description": long}])
    [(pk, each)] = newest().details["each"].items()
    assert (pk, each["sku"]) == (str(a.pk), ["", "1"])
    assert len(each["description"][1]) < 300


def test_only_what_is_tried_again_is_named(catalogue):
    failed, waiting = factories.add(catalogue, "tea", 1), factories.add(catalogue, "tea", 2)
    factories.ended(failed, State.FAILED, error="x")
    assert gallery_embedding.retry([failed, waiting]) == 1
    assert (newest().count, newest().details["ids"]) == (1, [failed.pk])


def test_a_token_is_revoked_once(user):
    token, _ = tokens.create(user, "till")
    same = ApiToken.objects.get(pk=token.pk)
    tokens.revoke(token)
    tokens.revoke(same)
    assert AuditEntry.objects.filter(action=Action.TOKEN_REVOKE).count() == 1
