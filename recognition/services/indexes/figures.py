"""What there is to know of a search space, for whoever looks after it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from recognition.models import Catalogue, VectorIndex
from recognition.search import physical
from recognition.search.physical import Progress


@dataclass(frozen=True, slots=True)
class SpaceStatistics:
    """What there is to know of one search space. Sizes in bytes, recall None until measured."""

    space_id: int
    feature_model: str
    dimension: int
    current: bool
    vectors: int
    images: int
    products: int
    vector_bytes: int
    index_bytes: int
    metric: str
    index_type: str
    state: str
    parameters: dict[str, int]
    built_with: dict[str, object]
    build_error: str
    progress: Progress | None
    recall_target: float
    recall: float | None
    recall_measured_at: datetime | None
    indexed_ms: float | None
    exact_ms: float | None
    version: int


def statistics(catalogue: Catalogue) -> list[SpaceStatistics]:
    """The search spaces of a catalogue, the one that answers first. Counted now."""
    version = Catalogue.objects.values_list("version", flat=True).get(pk=catalogue.pk)
    found = [
        _statistics(space, version, current=space.pk == catalogue.index_id)
        for space in catalogue.spaces.select_related("feature_model").order_by("pk")
    ]
    return sorted(found, key=lambda one: not one.current)


def statistics_of(space: VectorIndex) -> SpaceStatistics:
    """One search space of a catalogue. Counted now."""
    version, current = Catalogue.objects.values_list("version", "index_id").get(
        pk=space.catalogue_id
    )
    return _statistics(space, version, current=space.pk == current)


def _statistics(space: VectorIndex, version: int, *, current: bool) -> SpaceStatistics:
    vectors, images, products = physical.count(space.pk)
    last = space.samples.first()
    measured = None
    if last:
        measured = last.recall if last.recall_after is None else last.recall_after
    return SpaceStatistics(
        space_id=space.pk,
        feature_model=space.feature_model.name,
        dimension=space.feature_model.dimension,
        current=current,
        vectors=vectors,
        images=images,
        products=products,
        # Row header, keys and the vector, and an entry in each of the two key indexes.
        vector_bytes=vectors * (2 * space.feature_model.dimension + 108),
        index_bytes=physical.size(space.index_name) if space.index_name else 0,
        metric=space.metric,
        index_type=space.index_type,
        state=space.state,
        parameters={
            "m": space.m,
            "ef_construction": space.ef_construction,
            "ef_search": space.ef_search,
            "probes": space.probes,
        },
        built_with=space.built_with,
        build_error=space.build_error,
        progress=physical.progress(space.pk),
        recall_target=space.recall_target,
        recall=measured,
        recall_measured_at=last.measured_at if last else None,
        indexed_ms=last.indexed_ms if last else None,
        exact_ms=last.exact_ms if last else None,
        version=version,
    )
