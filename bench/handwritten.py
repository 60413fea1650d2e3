"""The best SQL we know to write by hand for the same rows; where a bare scan takes its time."""

from __future__ import annotations

from typing import Any

import numpy as np
from django.db import connection

from bench.turns import Ask
from bench.vectors import Vectors
from recognition.models import VectorIndex
from recognition.search import wire

RAW = """
SELECT c.image_id, g.number, p.id, p.label, c.d, c.view, p.catalogue_id, k.version
FROM (SELECT e.image_id, e.view, {distance} AS d FROM recognition_embedding e
      WHERE e.space_id = {space} ORDER BY {distance} LIMIT {k}) c
JOIN recognition_galleryimage g ON g.id = c.image_id
JOIN recognition_product p ON p.id = g.product_id AND p.is_active
JOIN recognition_catalogue k ON k.id = p.catalogue_id
ORDER BY c.d"""
RAW_PRODUCTS = """
SELECT * FROM (
    SELECT DISTINCT ON (p.id) c.image_id, g.number, p.id, p.label, c.d, c.view, p.catalogue_id,
           k.version
    FROM (SELECT e.image_id, e.view, {distance} AS d FROM recognition_embedding e
          WHERE e.space_id = {space} ORDER BY {distance} LIMIT 64) c
    JOIN recognition_galleryimage g ON g.id = c.image_id
    JOIN recognition_product p ON p.id = g.product_id AND p.is_active
    JOIN recognition_catalogue k ON k.id = p.catalogue_id
    ORDER BY p.id, c.d) t
ORDER BY d LIMIT {k}"""
NOTHING = "SELECT 1 FROM (SELECT %(v)b::halfvec) v"
BARE = """
SELECT e.image_id, {distance} AS d FROM recognition_embedding e
WHERE e.space_id = {space} ORDER BY {distance} LIMIT {k}"""


def raw(space: VectorIndex, template: str, k: int) -> Ask:
    """Questions for the `k` nearest in hand-written SQL; a cursor of its own, kept open."""
    statement, cursor = prepared(space, template, k)

    def ask(vector: Vectors) -> list[int]:
        cursor.execute(statement, {"v": wire.halves(vector)[0]}, binary=True)
        return [row[0] for row in cursor.fetchall()]

    return ask


def prepared(space: VectorIndex, template: str, k: int) -> tuple[str, Any]:
    """A statement for this space, and a cursor that searches as deep as the space is set to."""
    dimension = f"({space.feature_model.dimension})" if space.index_name else ""
    cast = f"::halfvec{dimension}" if space.index_name else ""
    distance = f"e.emb{cast} <#> %(v)b::halfvec{dimension}"
    with wire.cursor() as cur:  # prepares the connection
        cur.execute("SELECT 1")
    cursor = type(cur)(connection.connection)
    cursor.execute(f"SET hnsw.ef_search = {space.ef_search}")
    return template.format(distance=distance, space=space.pk, k=k), cursor


def profile(space: VectorIndex, questions: Vectors, k: int) -> dict[str, float]:
    """Where the time of a bare index scan goes, by PostgreSQL's own account (medians).

    `server_ms` is execution without planning and the way there and back; `pages` of 8 KB were
    touched, each a look into the buffer table and a read of another place in memory.
    """
    statement, cursor = prepared(space, BARE, k)
    found = []
    for row in range(50):
        cursor.execute(
            "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) " + statement,
            {"v": wire.halves(questions[row : row + 1])[0]},
        )
        [[[plan]]] = cursor.fetchall()
        pages = plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]
        found.append((plan["Execution Time"], plan["Planning Time"], pages))
    server, planning, pages = map(float, np.median(np.array(found), axis=0))
    return {
        "server_ms": server,
        "planning_ms": planning,
        "pages": pages,
        "ns_per_page": 1e6 * server / pages,
    }
