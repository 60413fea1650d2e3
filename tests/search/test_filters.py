"""Which products may be an answer."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recognition import search
from recognition.errors import BadInput
from recognition.models import Product
from recognition.search import Comparison, Filter

pytestmark = pytest.mark.django_db


def passing(space, among: Filter) -> set[str]:
    from bench.vectors import random_unit

    [neighbours] = search.nearest([space], random_unit(1, 32), limit=500, among=among).neighbours
    return {n.label for n in neighbours}


@pytest.fixture
def shop(filled):
    """Six products with a picture each."""
    made = filled(6, views=1)
    about = [
        ("drinks/tea", {"size": 330, "brand": "A", "tags": ["cold", "sweet"]}),
        ("drinks/tea/green", {"size": 500.0, "brand": "B", "tags": []}),
        ("drinks", {"size": "330", "brand": "A", "bio": True}),
        ("drinksmith", {"size": 1000, "brand": None, "bio": False}),
        ("", {}),
        ("snacks", {"size": 45, "brand": "ä%_'\"\\", "tags": "cold"}),
    ]
    for n, (category, attributes) in enumerate(about):
        Product.objects.filter(label=f"product {n}").update(
            category=category, attributes=attributes
        )
    return made.space


def numbers(*wanted: int) -> set[str]:
    return {f"product {n}" for n in wanted}


@pytest.mark.parametrize(
    ("among", "wanted"),
    [
        (Filter(), numbers(0, 1, 2, 3, 4, 5)),
        (Filter(categories=("drinks",)), numbers(0, 1, 2)),
        (Filter(categories=("drinks/",)), numbers(0, 1, 2)),
        (Filter(categories=("drinks/tea",)), numbers(0, 1)),
        (Filter(categories=("drinks/te",)), set()),
        (Filter(categories=("snacks", "drinks/tea/green")), numbers(1, 5)),
        (Filter(categories=("%",)), set()),
        (Filter(product_ids=()), set()),
    ],
)
def test_categories_are_paths(shop, among, wanted):
    assert passing(shop, among) == wanted


def test_a_subset_of_products(shop):
    some = Product.objects.filter(label__in=numbers(1, 4)).values_list("pk", flat=True)
    assert passing(shop, Filter(product_ids=tuple(some))) == numbers(1, 4)


def test_all_conditions_must_hold(shop):
    among = Filter(categories=("drinks",), attributes=(Comparison("brand", "=", "A"),))
    assert passing(shop, among) == numbers(0, 2)


@pytest.mark.parametrize(
    ("comparison", "wanted"),
    [
        (Comparison("size", "=", 330), numbers(0)),
        (Comparison("size", "=", 330.0), numbers(0)),
        (Comparison("size", "=", "330"), numbers(2)),
        (Comparison("size", "!=", 330), numbers(1, 3, 5)),
        (Comparison("size", "<", 500), numbers(0, 5)),
        (Comparison("size", "<=", 500), numbers(0, 1, 5)),
        (Comparison("size", ">", 99), numbers(0, 1, 3)),
        (Comparison("size", ">=", 1000), numbers(3)),
        (Comparison("size", "in", (45, "330")), numbers(2, 5)),
        (Comparison("brand", "=", None), numbers(3)),
        (Comparison("brand", ">", "A"), numbers(1, 5)),
        (Comparison("brand", "=", "ä%_'\"\\"), numbers(5)),
        (Comparison("bio", "=", True), numbers(2)),
        (Comparison("bio", "exists", True), numbers(2, 3)),
        (Comparison("bio", "exists", False), numbers(0, 1, 4, 5)),
        (Comparison("tags", "contains", "cold"), numbers(0)),
        (Comparison("%s'; --", "exists", False), numbers(0, 1, 2, 3, 4, 5)),
    ],
)
def test_attributes_are_compared_by_type(shop, comparison, wanted):
    assert passing(shop, Filter(attributes=(comparison,))) == wanted


def test_inactive_products_never_pass(shop):
    Product.objects.filter(label="product 0").update(is_active=False)
    assert passing(shop, Filter(categories=("drinks",))) == numbers(1, 2)


@pytest.mark.parametrize(
    "wrong", [("size", "like", 3), ("size", "in", 3), ("size", "=", (1, 2)), ("size", "", 1)]
)
def test_what_cannot_be_asked_is_refused(wrong):
    with pytest.raises(BadInput) as refused:
        Comparison(*wrong)
    assert refused.value.field == "attributes"


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**6), 10**6),
    st.floats(-1e6, 1e6),
    st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=5),
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(scalars, min_size=6, max_size=6),
    st.sampled_from(["=", "!=", "<", "<=", ">", ">="]),
    scalars,
)
def test_comparing_is_what_python_says(shop, values, operator, value):
    for n, stored in enumerate(values):
        Product.objects.filter(label=f"product {n}").update(attributes={"a": stored})
    assert passing(shop, Filter(attributes=(Comparison("a", operator, value),))) == {
        f"product {n}" for n, stored in enumerate(values) if _holds(stored, operator, value)
    }


def _holds(stored, operator: str, value) -> bool:
    kinds = [
        "n" if isinstance(x, int | float) and not isinstance(x, bool) else type(x).__name__
        for x in (stored, value)
    ]
    if kinds[0] != kinds[1]:
        return False
    if operator in ("=", "!="):
        return (stored == value) == (operator == "=")
    if stored is None:
        return operator in ("<=", ">=")
    if isinstance(stored, str):  # by code point, as the database's C collation does
        stored, value = stored.encode(), value.encode()
    return {
        "<": stored < value,
        "<=": stored <= value,
        ">": stored > value,
        ">=": stored >= value,
    }[operator]
