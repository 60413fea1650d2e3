"""The demo catalogue: rendered pictures, built and asked about like any other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from django.conf import settings

from recognition import images
from recognition.demo import DemoPicture, DemoSet, render_demo
from recognition.evaluation import (
    LabelledBox,
    Report,
    SceneAnswer,
    SingleAnswer,
    evaluate,
    match_labelled,
)
from recognition.models import Catalogue, RecognitionQuery, User
from recognition.services import catalogues, gallery_adding, queries

NAME = "Demo"
_CHUNK = 24


@dataclass(frozen=True, slots=True)
class Shown:
    """One demo picture, what is in it, and the answered query about it."""

    picture: DemoPicture
    query: RecognitionQuery


def pictures() -> DemoSet:
    """The demo pictures, rendered at first use (about 20 s)."""
    return render_demo(settings.SHITU_VAR_DIR / "demo")


def ensure(owner: User, say: Callable[[str], object]) -> Catalogue:
    """The demo catalogue, filled; what is there already stays. Workers embed it meanwhile."""
    found = Catalogue.objects.filter(owner=owner, name=NAME).first()
    if found is not None and found.images.exists():
        return found
    say("rendering the demo pictures (once)")
    demo = pictures()
    catalogue = found or catalogues.create(NAME, owner=owner)
    for start in range(0, len(demo.gallery), _CHUNK):
        gallery_adding.add_images(
            catalogue,
            [
                gallery_adding.NewImage(label, images.check(path.read_bytes()), path.name)
                for path, label in demo.gallery[start : start + _CHUNK]
            ],
            by=owner,
        )
    say(f"demo catalogue: {catalogue.images.count()} pictures of {len(demo.labels)} products")
    return catalogue


def ask(catalogue: Catalogue, asked: Sequence[DemoPicture], *, by: User) -> Iterator[Shown]:
    """Ask about demo pictures; raises the error of one that cannot be answered."""
    inputs = [
        (picture.path.name, lambda path=picture.path: images.check(path.read_bytes()))
        for picture in asked
    ]
    for picture, answered in zip(asked, queries.ask_all(catalogue, inputs, by=by), strict=True):
        if answered.error is not None:
            raise answered.error
        assert answered.query is not None  # noqa: S101  (either is set)
        yield Shown(picture, answered.query)


def figures(singles: Sequence[Shown], scenes: Sequence[Shown]) -> Report:
    """Recall and detection figures, computed from the stored answers."""
    return evaluate(
        [
            SingleAnswer(shown.picture.truth[0].label or "", queries.best_labels(shown.query))
            for shown in singles
        ],
        [SceneAnswer(shown.picture.truth, _regions(shown.query)) for shown in scenes],
    )


def right(shown: Shown) -> int:
    """How many of the products in the picture were named rightly."""
    truth = shown.picture.truth
    if len(truth) == 1:
        return int(queries.best_labels(shown.query)[:1] == [truth[0].label])
    return len(match_labelled(_regions(shown.query), truth))


def _regions(query: RecognitionQuery) -> list[LabelledBox]:
    regions = []
    for detection in query.detections.prefetch_related("matches"):
        best = next(iter(detection.matches.all()), None)
        regions.append(
            LabelledBox(
                best.label if best else None,
                (detection.x1, detection.y1, detection.x2, detection.y2),
                detection.det_score,
            )
        )
    return regions
