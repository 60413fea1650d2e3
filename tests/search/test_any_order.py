"""Adding, removing and renaming in any order: the search always says what is there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bench import spaces
from bench.vectors import random_unit
from recognition import search
from recognition.models import GalleryImage, Product

VECTORS = random_unit(40, 8, seed=3)
which = st.integers(0, 10**6)


class AnyOrder(RuleBasedStateMachine):
    """Beside the database a plain dictionary is kept: image -> (product, vector)."""

    def __init__(self) -> None:
        super().__init__()
        self.space = spaces.make_space(8)
        self.images: dict[int, tuple[int, int]] = {}
        self.products: dict[int, tuple[str, bool]] = {}
        self.version = self.space.catalogue.touch()

    def _image(self, number: int) -> int:
        return sorted(self.images)[number % len(self.images)]

    def _product(self, number: int) -> int:
        return sorted(self.products)[number % len(self.products)]

    @rule()
    def add_product(self) -> None:
        made = Product.objects.create(
            catalogue=self.space.catalogue, label=f"p{len(self.products)} {self.version}"
        )
        self.products[made.pk] = (made.label, True)
        self.version = self.space.catalogue.touch()

    @precondition(lambda self: self.products)
    @rule(number=which, vector=st.integers(0, len(VECTORS) - 1))
    def add_image(self, number: int, vector: int) -> None:
        product = self._product(number)
        [image] = spaces.add_images(self.space.catalogue, np.array([product])).tolist()
        search.store(self.space, [image], [0], VECTORS[vector : vector + 1])
        self.images[image] = (product, vector)
        self.version = self.space.catalogue.touch()

    @precondition(lambda self: self.images)
    @rule(number=which)
    def remove_image(self, number: int) -> None:
        image = self._image(number)
        GalleryImage.objects.filter(pk=image).delete()
        del self.images[image]
        self.version = self.space.catalogue.touch()

    @precondition(lambda self: self.images)
    @rule(number=which, other=which)
    def move_image(self, number: int, other: int) -> None:
        image, product = self._image(number), self._product(other)
        GalleryImage.objects.filter(pk=image).update(product_id=product)
        self.images[image] = (product, self.images[image][1])
        self.version = self.space.catalogue.touch()

    @precondition(lambda self: self.products)
    @rule(number=which)
    def remove_product(self, number: int) -> None:
        product = self._product(number)
        Product.objects.get(pk=product).delete()
        del self.products[product]
        self.images = {i: about for i, about in self.images.items() if about[0] != product}
        self.version = self.space.catalogue.touch()

    @precondition(lambda self: self.products)
    @rule(number=which, active=st.booleans())
    def switch(self, number: int, active: bool) -> None:
        product = self._product(number)
        Product.objects.filter(pk=product).update(is_active=active)
        self.products[product] = (self.products[product][0], active)
        self.version = self.space.catalogue.touch()

    @invariant()
    def the_search_agrees(self) -> None:
        question = VECTORS[7:8]
        best: dict[str, float] = {}
        for product, vector in self.images.values():
            label, active = self.products[product]
            if active:
                value = float(VECTORS[vector] @ question[0])
                best[label] = max(best.get(label, -2.0), value)
        found = search.nearest([self.space], question, limit=3)
        assert found.versions == {self.space.catalogue_id: self.version}
        values = [neighbour.similarity for neighbour in found.neighbours[0]]
        assert values == pytest.approx(sorted(best.values(), reverse=True)[:3], abs=2e-3)
        for neighbour in found.neighbours[0]:
            assert best[neighbour.label] == pytest.approx(neighbour.similarity, abs=2e-3)


@pytest.mark.django_db
def test_any_order() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        AnyOrder,
        settings=settings(
            max_examples=15,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
