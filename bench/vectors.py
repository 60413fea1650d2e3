"""Generated vectors that lie together as features of product pictures do.

A category has a centre, a product lies around it, a view lies around its product; every direction
carries less than the one before (a power-law spectrum), as in real embeddings. With the defaults
the nearest neighbour of a fresh view has cosine ~0.78 and the twentieth ~0.62.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Clustered:
    """`vectors` (n, D) and `questions` (q, D), float32 of unit length; `products` (n,) int64."""

    vectors: Vectors
    products: NDArray[np.int64]
    questions: Vectors


def unit(vectors: NDArray[np.floating]) -> Vectors:
    """Rows scaled to length 1, float32."""
    rows = np.asarray(vectors, dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def random_unit(count: int, dimension: int, *, seed: int = 0) -> Vectors:
    """`count` directions with no structure at all: the hardest case for an index."""
    return unit(np.random.default_rng(seed).standard_normal((count, dimension), dtype=np.float32))


def clustered(
    count: int, questions: int = 0, *, dimension: int = 512, views: int = 20, seed: int = 0
) -> Clustered:
    """`count` views of `count / views` products, and `questions` views that are not among them."""
    rng = np.random.default_rng(seed)
    products = -(-count // views)
    categories = max(4, products // 50)
    spectrum = (np.arange(1, dimension + 1, dtype=np.float32) ** -0.35).astype(np.float32)
    spectrum /= np.linalg.norm(spectrum)

    def noise(rows: int) -> Vectors:
        return rng.standard_normal((rows, dimension), dtype=np.float32) * spectrum

    centres = noise(categories)
    product = unit(centres[rng.integers(categories, size=products)] + 1.0 * noise(products))

    def view(of: NDArray[np.int64]) -> Vectors:
        strength = rng.uniform(0.45, 0.95, size=(len(of), 1)).astype(np.float32)
        return unit(product[of] + strength * noise(len(of)))

    of = np.repeat(np.arange(products, dtype=np.int64), views)[:count]
    asked = rng.integers(products, size=questions)
    return Clustered(view(of), of, view(asked))
