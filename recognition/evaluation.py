"""How good the answers are: recall, precision and mix-ups as plain functions over plain values.

Nothing here knows where answers come from, so the same figures are computed for the engine alone,
for the pages and for REST.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from recognition.errors import BadInput

Corners = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class LabelledBox:
    """A region and what it shows: corners x1, y1, x2, y2 in pixels; `label` is None when the
    answer is "unknown". `score` is not used by any figure, only carried along."""

    label: str | None
    box: Corners
    score: float = 1.0


@dataclass(frozen=True, slots=True)
class SingleAnswer:
    """A picture of one product: its true label, and the labels answered, best first (may be
    empty: unknown)."""

    truth: str
    ranked: Sequence[str]


@dataclass(frozen=True, slots=True)
class SceneAnswer:
    """A picture of several products: the true regions and the regions answered."""

    truth: Sequence[LabelledBox]
    found: Sequence[LabelledBox]


@dataclass(frozen=True, slots=True)
class Confusion:
    """`count` times the product `truth` was taken for `answer` (None: for no known product)."""

    truth: str
    answer: str | None
    count: int


@dataclass(frozen=True, slots=True)
class ProductFigures:
    """One product over singles and scenes. `asked` counts its singles plus its objects in scenes,
    `detected` the scene objects that got a box, `right` the times it was named rightly."""

    label: str
    asked: int
    right: int
    objects: int
    detected: int

    @property
    def recall(self) -> float:
        return self.right / self.asked


@dataclass(frozen=True, slots=True)
class Report:
    """Every figure of one evaluation. Shares are in [0, 1], and None where nothing was asked."""

    queries: int
    recall_at_1: float | None
    recall_at_5: float | None
    scenes: int
    objects: int
    found: int
    detection_recall: float | None
    detection_precision: float | None
    scene_recall: float | None
    scene_precision: float | None
    confusions: tuple[Confusion, ...]
    products: tuple[ProductFigures, ...]

    def as_rows(self) -> list[tuple[str, str]]:
        """Name and value of each figure that was measured, ready to print as a table."""
        rows = [
            ("Single pictures", str(self.queries)),
            ("Recall@1", _share(self.recall_at_1)),
            ("Recall@5", _share(self.recall_at_5)),
            ("Scenes", f"{self.scenes} with {self.objects} products"),
            ("Detection recall (IoU >= 0.5)", _share(self.detection_recall)),
            ("Detection precision", _share(self.detection_precision)),
            ("Scene recall (box and label right)", _share(self.scene_recall)),
            ("Scene precision", _share(self.scene_precision)),
        ]
        return [(name, value) for name, value in rows if value]

    def as_dict(self) -> dict[str, Any]:
        """The same and the details, JSON-ready."""
        return asdict(self)


def evaluate(singles: Sequence[SingleAnswer], scenes: Sequence[SceneAnswer] = ()) -> Report:
    """All figures over pictures of one product and scenes of several.

    An object of a scene counts as detected when a box overlaps it with IoU >= 0.5, and as
    recognised when a box that does so carries the right label.
    """
    asked, right, objects, detected = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    taken_for: Counter[tuple[str, str | None]] = Counter()
    for single in singles:
        asked[single.truth] += 1
        best = single.ranked[0] if single.ranked else None
        if best == single.truth:
            right[single.truth] += 1
        else:
            taken_for[single.truth, best] += 1

    found = named = recognised = 0
    for given in scenes:
        # Two regions in the same place are told apart by their labels, not by who came first.
        scene = SceneAnswer(sorted(given.truth, key=_place), sorted(given.found, key=_place))
        labels = [_known(region) for region in scene.truth]
        asked.update(labels)
        objects.update(labels)
        found += len(scene.found)
        named += sum(region.label is not None for region in scene.found)
        for _, there in match_labelled(scene.found, scene.truth):
            right[labels[there]] += 1
            recognised += 1
        pairs = match_boxes([r.box for r in scene.found], [r.box for r in scene.truth])
        for answer, there in pairs:
            detected[labels[there]] += 1
            if scene.found[answer].label != labels[there]:
                taken_for[labels[there], scene.found[answer].label] += 1

    total = objects.total()
    ranked, truth = [s.ranked for s in singles], [s.truth for s in singles]
    return Report(
        queries=len(singles),
        recall_at_1=recall_at(1, ranked, truth) if singles else None,
        recall_at_5=recall_at(5, ranked, truth) if singles else None,
        scenes=len(scenes),
        objects=total,
        found=found,
        detection_recall=detected.total() / total if total else None,
        detection_precision=detected.total() / found if found else None,
        scene_recall=recognised / total if total else None,
        scene_precision=recognised / named if named else None,
        confusions=tuple(
            Confusion(truth, answer, count)
            for (truth, answer), count in sorted(
                taken_for.items(), key=lambda item: (-item[1], item[0][0], item[0][1] or "")
            )
        ),
        products=tuple(
            ProductFigures(label, asked[label], right[label], objects[label], detected[label])
            for label in sorted(asked)
        ),
    )


def recall_at(
    k: int, ranked_labels_per_query: Sequence[Sequence[str]], truth: Sequence[str]
) -> float:
    """Share of queries whose true label is among the first `k` answers, in [0, 1].

    Raises BadInput when `k` is below 1, there is no query, or the two lists differ in length.
    """
    if k < 1:
        raise BadInput(f"Recall@k needs k of 1 or more, not {k}.", field="k")
    if len(ranked_labels_per_query) != len(truth):
        raise BadInput(
            f"{len(ranked_labels_per_query)} answers cannot be compared with {len(truth)} true "
            "labels: there must be one of each per query."
        )
    if not truth:
        raise BadInput("Recall has no value without a query: give at least one.")
    hits = sum(
        label in ranked[:k] for ranked, label in zip(ranked_labels_per_query, truth, strict=True)
    )
    return hits / len(truth)


def iou(a: Corners, b: Corners) -> float:
    """Intersection over union of two boxes, in [0, 1]; 0 where they do not overlap."""
    both = _area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    return both / (_area(a) + _area(b) - both) if both else 0.0


def match_boxes(
    found: Sequence[Corners], truth: Sequence[Corners], iou_threshold: float = 0.5
) -> list[tuple[int, int]]:
    """Pairs (index in `found`, index in `truth`), best overlap first, each index at most once.

    Greedy by overlap rather than by score: the figures then do not depend on the order in which
    boxes are listed.
    """
    pairs = sorted(
        (
            (-overlap, f, t, i, j)
            for i, f in enumerate(found)
            for j, t in enumerate(truth)
            if (overlap := iou(f, t)) >= iou_threshold
        ),
    )
    used_found: set[int] = set()
    used_truth: set[int] = set()
    matched = []
    for _, _, _, i, j in pairs:
        if i not in used_found and j not in used_truth:
            used_found.add(i)
            used_truth.add(j)
            matched.append((i, j))
    return matched


def match_labelled(
    found: Sequence[LabelledBox], truth: Sequence[LabelledBox], iou_threshold: float = 0.5
) -> list[tuple[int, int]]:
    """As `match_boxes`, but only a box with the right label can claim an object."""
    there = _by_label(truth)
    return [
        (answers[i], objects[j])
        for label, answers in _by_label(found).items()
        if label is not None and (objects := there.get(label))
        for i, j in match_boxes(
            [found[i].box for i in answers], [truth[j].box for j in objects], iou_threshold
        )
    ]


def _place(region: LabelledBox) -> tuple[Corners, str]:
    return region.box, region.label or ""


def _by_label(regions: Iterable[LabelledBox]) -> dict[str | None, list[int]]:
    indices: dict[str | None, list[int]] = defaultdict(list)
    for index, region in enumerate(regions):
        indices[region.label].append(index)
    return indices


def _known(region: LabelledBox) -> str:
    if region.label is None:
        raise BadInput(f"The true region {region.box} has no label: name the product it shows.")
    return region.label


def _area(box: Corners) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"
