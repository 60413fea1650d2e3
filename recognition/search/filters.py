# ruff: noqa: S608  (only our own whole numbers and conditions go into the text of a statement)
"""Conditions on products: what a question may be restricted to, and their SQL."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Literal

from django.core.cache import caches

from recognition.errors import BadInput
from recognition.search import wire

Scalar = str | int | float | bool | None
Operator = Literal["=", "!=", "<", "<=", ">", ">=", "in", "contains", "exists"]
_ORDERED = {"=": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_REMEMBER_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Comparison:
    """One condition on a product's attribute.

    Values are compared within their JSON type: numbers by size, text by code point, and a value of
    another type never passes. `in` takes a tuple, `contains` looks into a list, `exists` takes
    True or False. A product without the attribute passes only `exists` False.
    """

    name: str
    operator: Operator
    value: Scalar | tuple[Scalar, ...]

    def __post_init__(self) -> None:
        if self.operator not in (*_ORDERED, "in", "contains", "exists"):
            raise BadInput(
                f"unknown operator {self.operator!r} for the attribute {self.name!r}: use one of "
                f"{', '.join(_ORDERED)}, in, contains, exists",
                field="attributes",
            )
        if (self.operator == "in") != isinstance(self.value, tuple):
            raise BadInput(
                f"the attribute {self.name!r}: `in` takes a list of values, every other operator "
                "takes one value",
                field="attributes",
            )

    def sql(self) -> tuple[str, list[object]]:
        """A condition on `p.attributes`, and its parameters."""
        attribute = "(p.attributes -> %s::text)"
        if self.operator == "exists":
            return ("" if self.value else "NOT ") + "p.attributes ? %s::text", [self.name]
        if self.operator == "in":
            assert isinstance(self.value, tuple)  # noqa: S101  (checked when made)
            values = [json.dumps(value) for value in self.value]
            return f"{attribute} = ANY(%s::text[]::jsonb[])", [self.name, values]
        value = json.dumps(self.value)
        if self.operator == "contains":
            return (
                f"jsonb_typeof{attribute} = 'array' AND {attribute} @> %s::text::jsonb",
                [self.name, self.name, value],
            )
        return (
            f"jsonb_typeof{attribute} = jsonb_typeof(%s::text::jsonb)"
            f" AND {attribute} {_ORDERED[self.operator]} %s::text::jsonb",
            [self.name, value, self.name, value],
        )


@dataclass(frozen=True, slots=True)
class Filter:
    """Which products may be an answer; every condition that is given must hold.

    `categories` are paths: `drinks` also lets `drinks/tea` through. Inactive products never are an
    answer, with or without a filter.
    """

    categories: tuple[str, ...] = ()
    attributes: tuple[Comparison, ...] = ()
    product_ids: tuple[int, ...] | None = None

    def __bool__(self) -> bool:
        return bool(self.categories or self.attributes or self.product_ids is not None)

    def sql(self) -> tuple[str, list[object]]:
        """A condition on the product `p`, and its parameters."""
        conditions, params = ["p.is_active"], list[object]()
        if self.categories:
            paths = [path.strip("/") for path in self.categories]
            conditions.append(
                "(p.category = ANY(%s::text[])"
                " OR EXISTS (SELECT FROM unnest(%s::text[]) u WHERE p.category ^@ u))"
            )
            params += [paths, [f"{path}/" for path in paths]]
        if self.product_ids is not None:
            conditions.append("p.id = ANY(%s::bigint[])")
            params.append(list(self.product_ids))
        for comparison in self.attributes:
            condition, values = comparison.sql()
            conditions.append(f"({condition})")
            params += values
        return " AND ".join(conditions), params


def share(catalogue_id: int, among: Filter) -> float:
    """The share (0..1) of a catalogue's products that pass, at most a minute old.

    It only steers the choice of a plan: a share that is no longer true costs time, never results.
    """
    condition, params = among.sql()
    # A digest: a filter may name ten thousand products.
    asked = hashlib.sha256(repr((catalogue_id, condition, params)).encode()).hexdigest()
    cache = caches["process"]
    known = cache.get(asked)
    if known is None:
        known = _count(catalogue_id, condition, params)
        cache.set(asked, known, timeout=_REMEMBER_SECONDS)
    return float(known)


def _count(catalogue_id: int, condition: str, params: list[object]) -> float:
    with wire.cursor() as cur:
        cur.execute(
            f"SELECT count(*) FILTER (WHERE {condition})::float8 / greatest(count(*), 1)"
            " FROM recognition_product p WHERE p.catalogue_id = %s",
            [*params, catalogue_id],
        )
        [passing] = cur.fetchone() or (0.0,)
        return float(passing)
