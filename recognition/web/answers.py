"""Answers as the pages show them: regions in percent of the picture, scores, models, times."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Prefetch
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from recognition.models import (
    Detection,
    GalleryImage,
    Match,
    Metric,
    Product,
    RecognitionQuery,
    State,
    Status,
)
from recognition.services import feature_models

STAGES: Mapping[str, str | Promise] = {
    "queue": _("waiting for a worker"),
    "decode": _("reading the picture"),
    "detect": _("finding objects"),
    "embed": _("computing features"),
    "search": _("searching the gallery"),
    "rank": _("ranking"),
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """One product that a region may show. `share` is the cosine in percent, for the bar.

    `product` and `image` are None when they were removed since; the label is what it was then.
    `name` is the product's in the language of the page.
    """

    label: str
    name: str
    product: Product | None
    image: GalleryImage | None
    score: str
    share: int


@dataclass(frozen=True, slots=True)
class Region:
    """One region and what it is. Corners and sizes are CSS percentages of the picture.

    `at_end` and `inside` say where its plate has room: at the right edge of the region instead of
    the left, within the region instead of above it; `room` is how wide it may be.
    """

    number: int
    detection: Detection
    left: str
    top: str
    right: str
    width: str
    height: str
    at_end: bool
    inside: bool
    room: str
    candidates: Sequence[Candidate]

    @property
    def best(self) -> Candidate | None:
        return self.candidates[0] if self.candidates else None


@dataclass(frozen=True, slots=True)
class Network:
    """A network that took part in an answer."""

    role: str | Promise
    name: str
    engine: str
    device: str
    digest: str

    @property
    def is_starter(self) -> bool:
        return feature_models.is_starter(self.name)


@dataclass(frozen=True, slots=True)
class Answer:
    """A recognition as far as it has come."""

    query: RecognitionQuery
    regions: Sequence[Region]
    networks: Sequence[Network]
    timings: Sequence[tuple[str | Promise, float]]

    @property
    def is_waiting(self) -> bool:
        return self.query.state in State.unfinished()

    @property
    def is_failed(self) -> bool:
        return self.query.state == State.FAILED

    @property
    def recognised(self) -> int:
        """Regions that were given a name, sure or not."""
        return sum(region.detection.status != Status.UNKNOWN for region in self.regions)

    @property
    def milliseconds(self) -> float:
        return sum(value for _, value in self.timings)

    @property
    def uses_starters(self) -> bool:
        return any(network.is_starter for network in self.networks)

    @property
    def lower_is_better(self) -> bool:
        return self.query.answered_with.get("metric") == Metric.L2


def is_starter(*names: str) -> bool:
    """Whether one of these networks is a starter model."""
    return any(map(feature_models.is_starter, names))


def read(query: RecognitionQuery) -> Answer:
    """The answer of a query, in at most two SQL queries however many regions it has."""
    if query.state != State.DONE:
        return Answer(query, [], [], [])
    metric = Metric(query.answered_with.get("metric", Metric.IP))
    matches = Match.objects.select_related("image__catalogue", "product__catalogue").order_by(
        "rank"
    )
    detections = list(query.detections.prefetch_related(Prefetch("matches", matches)))
    return Answer(
        query=query,
        regions=[_region(detection, query, metric, detections) for detection in detections],
        networks=_networks(query.answered_with),
        timings=[
            (label, query.timings[stage])
            for stage, label in STAGES.items()
            if stage in query.timings
        ],
    )


def _region(
    detection: Detection,
    query: RecognitionQuery,
    metric: Metric,
    others: Iterable[Detection],
) -> Region:
    left, right = 100 * detection.x1 / query.width, 100 * detection.x2 / query.width
    top, bottom = 100 * detection.y1 / query.height, 100 * detection.y2 / query.height
    at_end = left > 75
    # Up to the next plate on about the same height, so that neighbours do not cover each other.
    ends = [
        100 * other.x1 / query.width
        for other in others
        if other.x1 > detection.x1 and abs(other.y1 - detection.y1) < 0.1 * query.height
    ]
    return Region(
        number=detection.position + 1,
        detection=detection,
        left=_percent(left),
        top=_percent(top),
        right=_percent(100 - right),
        width=_percent(right - left),
        height=_percent(bottom - top),
        at_end=at_end,
        inside=top < 9,
        room=_percent(right - left if at_end else max(min(ends, default=100) - left, right - left)),
        candidates=[_candidate(match, metric) for match in detection.matches.all()],
    )


def _candidate(match: Match, metric: Metric) -> Candidate:
    cosine = match.score if metric.higher_is_better else 1 - match.score / 2
    product, image = match.product, match.image
    if product and product.removed_at is not None:
        product = None
    return Candidate(
        label=match.label,
        name=product.page_name if product else match.label,
        product=product,
        image=image if image and image.removed_at is None else None,
        score=f"{match.score:.2f}",
        share=round(100 * min(max(cosine, 0), 1)),
    )


def _percent(value: float) -> str:
    """Always with a decimal point, whatever the language of the page."""
    return f"{value:.3f}%"


def _networks(answered_with: Mapping[str, Any]) -> list[Network]:
    roles = {"detector": _("detection"), "feature_model": _("features")}
    return [
        Network(
            role,
            used["name"],
            used.get("engine", ""),
            used.get("device", ""),
            used.get("digest", "")[:8],
        )
        for key, role in roles.items()
        if (used := answered_with.get(key))
    ]
