"""Two teams work side by side, and whatever they do, neither ever sees anything of the other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from django.db.models import Sum
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from recognition.errors import NotFound, RecognitionError, RoleTooLow
from recognition.models import (
    AuditEntry,
    Catalogue,
    GalleryImage,
    Invitation,
    Job,
    JobLine,
    LineResult,
    Match,
    Membership,
    Product,
    RecognitionQuery,
    Role,
    User,
)
from recognition.services import (
    answering,
    catalogues,
    gallery,
    gallery_adding,
    indexing,
    members,
    product_merging,
    product_moving,
    products,
    queries,
    trash,
)
from tests import factories

LABELS = ["tea", "coffee", "红牛"]
SEEDS = range(4)


@dataclass
class Team:
    """A manager, an editor and a viewer of two catalogues, and what else they came to own."""

    name: str
    manager: User
    catalogues: list[Catalogue]
    users: list[User] = field(default_factory=list)


def a_team(name: str) -> Team:
    manager = factories.user(f"manager of {name}")
    owned = [factories.catalogue(manager, f"{name} {n}") for n in range(2)]
    team = Team(name, manager, owned, [manager])
    for role in ("editor", "viewer"):
        member = factories.user(f"{role} of {name}")
        team.users.append(member)
        for catalogue in owned:
            members.add(catalogue, member, role)
    return team


# --- What they do ---------------------------------------------------------------------------------


@dataclass
class Act:
    """One operation; `n` chooses whatever there is to choose."""

    team: Team
    n: int

    @property
    def catalogue(self) -> Catalogue:
        return Catalogue.objects.get(pk=self.team.catalogues[self.n % 2].pk)

    @property
    def other(self) -> Catalogue:
        return Catalogue.objects.get(pk=self.team.catalogues[(self.n + 1) % 2].pk)

    def one(self, rows: Any) -> Any:
        found = list(rows.order_by("pk"))
        return found[self.n % len(found)] if found else None

    def product(self) -> Product | None:
        return self.one(self.catalogue.products)


def add(act: Act) -> None:
    external_id = f"id {act.n % 3}" if act.n % 2 else ""
    gallery_adding.add_image(
        act.catalogue,
        f"{act.team.name} {LABELS[act.n % 3]}",
        factories.picture(act.n % 4),
        by=act.team.manager,
        external_id=external_id,
    )


def upsert(act: Act) -> None:
    products.bulk_upsert(
        act.catalogue, [{"external_id": str(act.n % 3), "label": f"{act.team.name} {act.n % 5}"}]
    )


def rename(act: Act) -> None:
    if product := act.product():
        products.change(product, label=f"{act.team.name} {LABELS[act.n % 3]} {act.n}")


def merge(act: Act) -> None:
    rows = list(act.catalogue.products.order_by("pk")[:2])
    if len(rows) == 2:
        product_merging.merge(rows[:1], rows[1])


def split(act: Act) -> None:
    image = act.one(act.catalogue.images)
    if image:
        product_merging.split(image.product, [image], f"{act.team.name} split {act.n}")


def move(act: Act) -> None:
    if product := act.product():
        product_moving.move([product], act.other)


def put(act: Act) -> None:
    if product := act.product():
        trash.put(act.catalogue, [product])


def restore(act: Act) -> None:
    if product := act.one(Product.everything.in_trash().filter(catalogue=act.catalogue)):
        trash.restore(product)


def purge(act: Act) -> None:
    if product := act.one(Product.everything.in_trash().filter(catalogue=act.catalogue)):
        trash.purge(act.catalogue, [product])


def remove_image(act: Act) -> None:
    if image := act.one(act.catalogue.images):
        gallery.remove_images(act.catalogue, [image])


def embed(act: Act) -> None:
    indexing.embed_waiting(act.catalogue.pk)


def ask(act: Act) -> None:
    embed(act)
    queries.submit(act.catalogue, factories.picture(act.n % 4), by=act.team.manager)
    answering.answer_waiting()


def report(act: Act) -> None:
    job = Job.objects.create(catalogue=act.catalogue, kind="import", started_by=act.team.manager)
    image = act.one(act.catalogue.images)
    JobLine.objects.create(job=job, number=1, text=act.team.name, result=LineResult.OK, image=image)


def invite(act: Act) -> None:
    members.invite(
        act.catalogue,
        f"u{act.n}@example.com",
        "viewer",
        by=act.team.manager,
        link=lambda text: text,
    )


ACTS = [
    add, add, add, upsert, rename, merge, split, move, move, put, restore, purge, remove_image,
    embed, ask, ask, report, invite,
]  # fmt: skip


# --- What they see --------------------------------------------------------------------------------


def see_only_their_own(mine: Team, other: Team) -> None:
    own = {catalogue.pk for catalogue in mine.catalogues}
    for user in (mine.manager, mine.users[-1]):
        assert set(Catalogue.objects.visible_to(user).values_list("pk", flat=True)) == own
        for rows in (
            Product.objects,
            Product.everything,
            GalleryImage.objects,
            GalleryImage.everything,
            RecognitionQuery.objects,
            Job.objects,
            AuditEntry.objects,
            Invitation.objects,
            Membership.objects,
        ):
            seen = rows.visible_to(user)
            assert not seen.exclude(catalogue__in=own).exists()
        # From every row that is seen, whatever it leads to is of the same catalogue.
        for image in GalleryImage.everything.visible_to(user).select_related("product"):
            assert image.product.catalogue_id == image.catalogue_id
            assert image.product.label.startswith(mine.name)
        for product in Product.everything.visible_to(user).select_related("merged_into"):
            assert product.merged_into is None or (
                product.merged_into.catalogue_id == product.catalogue_id
            )
        for match in Match.objects.filter(
            detection__query__in=RecognitionQuery.objects.visible_to(user)
        ).select_related("detection__query", "product", "image"):
            asked_in = match.detection.query.catalogue_id
            assert match.label.startswith(mine.name)
            for row in (match.product, match.image):
                assert row is None or row.catalogue_id == asked_in
        for line in JobLine.objects.filter(job__in=Job.objects.visible_to(user)).select_related(
            "job", "image"
        ):
            assert line.image is None or line.image.catalogue_id == line.job.catalogue_id
        for entry in AuditEntry.objects.visible_to(user).values():
            assert other.name not in str(entry)
        for catalogue in other.catalogues:
            with pytest.raises(NotFound) as caught:
                catalogues.require_role(user, catalogue, Role.VIEWER)
            assert other.name not in caught.value.message


def counts_are_true(team: Team) -> None:
    for catalogue in Catalogue.objects.filter(pk__in=[one.pk for one in team.catalogues]):
        rows = GalleryImage.everything.filter(catalogue=catalogue)
        size = rows.aggregate(size=Sum("byte_size", default=0))["size"]
        assert (catalogue.stored_images, catalogue.stored_bytes) == (rows.count(), size)
        found = catalogues.statistics(catalogue)
        assert found["products"] == catalogue.products.count()
        assert sum(found["images"].values()) == catalogue.images.count()
        for product in Product.everything.filter(catalogue=catalogue):
            hidden = rows.filter(product=product, removed_at__isnull=False).count()
            assert hidden == (rows.filter(product=product).count() if product.removed_at else 0)


class TwoTeams(TestCase):
    """A transaction of its own for every sequence of operations."""

    def setUp(self) -> None:
        from unittest.mock import patch

        from recognition.engine.stub import stub_runtime

        runtime = stub_runtime()
        for module in (indexing, answering):
            patcher = patch.object(module, "get_runtime", lambda: runtime)
            patcher.start()
            self.addCleanup(patcher.stop)

    @settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(
        acts=st.lists(
            st.tuples(st.booleans(), st.sampled_from(ACTS), st.integers(0, 50)),
            min_size=5,
            max_size=30,
        )
    )
    def test_whatever_two_teams_do_neither_sees_anything_of_the_other(self, acts) -> None:
        red, blue = a_team("crimson"), a_team("azure")
        for of_red, act, n in acts:
            try:
                act(Act(red if of_red else blue, n))
            except RecognitionError as error:
                assert (blue if of_red else red).name not in error.message
        for mine, other in ((red, blue), (blue, red)):
            see_only_their_own(mine, other)
            counts_are_true(mine)

    def test_the_same_label_picture_and_ids_in_both_are_two_things(self) -> None:
        red, blue = a_team("crimson"), a_team("azure")
        for team in (red, blue):
            gallery_adding.add_image(
                team.catalogues[0], "tea", factories.picture(1), by=None, external_id="1"
            )
            products.bulk_upsert(team.catalogues[0], [{"external_id": "1", "label": "x"}])
        [mine] = GalleryImage.objects.visible_to(red.manager)
        added = gallery_adding.add_image(red.catalogues[0], "y", factories.picture(1), by=None)
        assert added.duplicate_of == mine

    def test_a_verb_never_takes_a_row_of_the_other_team(self) -> None:
        red, blue = a_team("crimson"), a_team("azure")
        theirs = gallery_adding.add_image(
            blue.catalogues[0], "azure", factories.picture(1), by=None
        ).image
        mine = products.create(red.catalogues[0], "red")
        for refused in (
            lambda: product_merging.merge([theirs.product], mine),
            lambda: product_merging.split(mine, [theirs], "x"),
            lambda: products.find(red.catalogues[0], theirs.product_id),
            lambda: products.change_many(red.catalogues[0], [theirs.product], sku="x"),
            lambda: gallery.move_images([theirs], mine),
            lambda: trash.put(red.catalogues[0], [theirs.product]),
        ):
            with pytest.raises(NotFound):
                refused()
        assert gallery.remove_images(red.catalogues[0], [theirs]) == 0
        assert trash.purge(red.catalogues[0], [theirs.product]) == 0
        theirs.refresh_from_db()
        assert theirs.product.label == "azure"

    def test_a_role_that_is_too_low_is_not_an_outsider(self) -> None:
        red = a_team("crimson")
        viewer = red.users[-1]
        with pytest.raises(RoleTooLow, match="manager"):
            catalogues.require_role(viewer, red.catalogues[0], Role.MANAGER)
