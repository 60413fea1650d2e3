"""Another network for a catalogue: embed beside the old one, compare, switch or drop.

A catalogue has one search space for each network its images were embedded with, and one of them,
`Catalogue.index`, answers. So the new network is tried without anybody noticing, and both the
switch and the way back are one row changed. New images, and those that got another box, are
embedded into the answering space only; the switch refuses until they are in the other one as well.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from django.conf import settings
from django.db import transaction
from django.db.models import Count, Exists, OuterRef, Q
from django.utils.translation import gettext as _

from recognition import search
from recognition.engine.types import Pixels, Vectors
from recognition.errors import BadInput, Conflict, NotFound
from recognition.evaluation import Report, SingleAnswer, evaluate
from recognition.models import (
    Action,
    Catalogue,
    Embedding,
    GalleryImage,
    Job,
    JobLine,
    LineResult,
    Metric,
    State,
    User,
    VectorIndex,
    View,
)
from recognition.search import export, physical
from recognition.services import audit, feature_models, indexes, indexing, jobs
from recognition.services.jobs import Lease, Progress
from recognition.services.runtime import get_runtime

_BESIDE = ("metric", "index_type", "m", "ef_construction", "lists", "recall_target")
_SPACE = "space"
_TOP = 5
_QUESTIONS = 200  # compared at a time: a score for each of them and each product is in memory


def start(catalogue: Catalogue, feature_model: str, *, by: User | None) -> Job:
    """Queue the embedding of every image by another network, into a search space beside the old.

    The space is made at the first call, with the settings of the one that answers. Called again it
    embeds what was added since; while such a job is unfinished, that job comes back.

    Raises ModelUnavailable, Conflict for the network that answers already, LimitReached when too
    many jobs run.
    """
    model = feature_models.installed(feature_model)
    with transaction.atomic():
        locked = Catalogue.objects.select_for_update(no_key=True).get(pk=catalogue.pk)
        current = locked.require_index()
        if current.feature_model_id == model.pk:
            raise _in_use(catalogue, model.name)
        space, _made = VectorIndex.objects.get_or_create(
            catalogue=catalogue,
            feature_model=model,
            defaults={name: getattr(current, name) for name in _BESIDE},
        )
        if (unfinished := _jobs(space).unfinished().first()) is not None:
            return unfinished
        return jobs.queue(
            Job(
                catalogue=catalogue,
                kind=Job.Kind.REEMBED,
                started_by=by,
                source_name=model.name,
                options={_SPACE: space.pk},
            )
        )


def run(job: Job, lease: Lease, progress: Progress) -> None:
    """Embed what the job's space lacks, batch by batch, each of them committed.

    Killed at any instruction, it goes on where it was: what has a vector is not done again. An
    image that cannot be embedded gets a line of the job with the reason.
    """
    space = (
        VectorIndex.objects.select_related("feature_model", "catalogue")
        .filter(pk=job.options[_SPACE])
        .first()
    )
    if space is None:
        raise Conflict(_("the search space was dropped meanwhile"))
    with lease.transaction():
        lease.renew(failed=0)
        job.lines.all().delete()
    job.failed, last = 0, 0
    _count(job, space, lease)
    while batch := list(missing(space).filter(pk__gt=last).order_by("pk")[: _batch()]):
        last = batch[-1].pk
        failed = indexing.embed_into(space, batch, lease.transaction)
        if failed:
            _report(job, lease, batch, failed)
        job.done += len(batch) - len(failed)
        job.total = max(job.total, job.done + job.failed)  # images came meanwhile
        # Those that fail are tried by each run: behind them stands what may kill it.
        renew = lease.advance if len(batch) > len(failed) else lease.renew
        renew(total=job.total, done=job.done)
        progress(job)
    _count(job, space, lease)  # and some went
    with lease.kept(partial(physical.stop_build, space.pk)):
        indexes.tend(space.pk)
    lease.renew()


def _count(job: Job, space: VectorIndex, lease: Lease) -> None:
    """Write how many images have their vector, and how many there are with those that lack it; in
    one statement, because they come and go. What failed counts even when its image is gone."""
    lacking = _lacking(space)
    found = _embeddable(space).aggregate(
        whole=Count("pk", filter=~lacking), lacking=Count("pk", filter=lacking)
    )
    job.done = found["whole"]
    job.total = job.done + max(found["lacking"], job.failed)
    lease.renew(total=job.total, done=job.done)


def _batch() -> int:
    return 2 * settings.SHITU_BATCH_SIZE


def _report(job: Job, lease: Lease, batch: Sequence[GalleryImage], failed: dict[int, str]) -> None:
    """A line for each image that failed, unless it failed because somebody removed it."""
    with lease.transaction():
        images = GalleryImage.objects.filter(pk__in=failed).order_by("pk")
        there = set(images.select_for_update(no_key=True).values_list("pk", flat=True))
        rows = [image for image in batch if image.pk in there]
        lease.renew(failed=job.failed + len(rows))
        JobLine.objects.bulk_create(
            JobLine(
                job=job,
                number=number,
                text=f"image {image.number}",
                result=LineResult.ERROR,
                reason=failed[image.pk],
                image=image,
            )
            for number, image in enumerate(rows, start=job.failed + 1)
        )
    job.failed += len(rows)


def _jobs(space: VectorIndex) -> Any:
    return Job.objects.filter(kind=Job.Kind.REEMBED, options__space=space.pk)


def missing(space: VectorIndex) -> Any:
    """Images that are embedded and have a picture, and lack a vector in `space` (a queryset)."""
    return _embeddable(space).filter(_lacking(space))


def _lacking(space: VectorIndex) -> Q:
    """Images to which one of their vectors in `space` is missing."""
    lacking = Q()
    for view in indexing.views(space.catalogue):
        there = Embedding.objects.filter(space=space, image=OuterRef("pk"), view=view)
        lacking |= Q(~Exists(there))
    return lacking


def _embeddable(space: VectorIndex) -> Any:
    return GalleryImage.objects.filter(catalogue=space.catalogue_id, state=State.DONE).exclude(
        file=""
    )


def space_of(catalogue: Catalogue, feature_model: str) -> VectorIndex:
    """The catalogue's search space of the network of that name, the newest weights first.

    Raises NotFound.
    """
    space = (
        catalogue.spaces.select_related("feature_model", "catalogue")
        .filter(feature_model__name=feature_model)
        .order_by("-feature_model__installed", "-pk")
        .first()
    )
    if space is None:
        raise NotFound(
            _(
                "the catalogue “%(catalogue)s” was never embedded with %(model)s; "
                "`manage.py reembed` does that"
            )
            % {"catalogue": catalogue, "model": feature_model},
            field="feature_model",
        )
    return space


@transaction.atomic
def switch(catalogue: Catalogue, feature_model: str, *, by: User | None) -> VectorIndex:
    """Answer with another network from the next question on; returns the space that did before.

    Nothing is removed, so switching back is the same call. An image that is being embedded at this
    moment is embedded again, by the network that then answers.

    Raises NotFound when it was never embedded with that network, Conflict while images lack a
    vector of it.
    """
    locked = Catalogue.objects.select_for_update(no_key=True).get(pk=catalogue.pk)
    before, space = locked.require_index(), space_of(catalogue, feature_model)
    if before.pk == space.pk:
        raise _in_use(catalogue, feature_model)
    _require_whole(space)
    # Scores and threshold stay in the metric the catalogue speaks now.
    indexes.set_metric(space, Metric(before.metric))
    Catalogue.objects.filter(pk=catalogue.pk).update(index=space)
    audit.record(
        Action.CATALOGUE_CHANGE,
        catalogue,
        catalogue=catalogue,
        by=by,
        changes={"feature_model": [str(before.feature_model), str(space.feature_model)]},
    )
    catalogue.index = space
    catalogue.touch()
    return before


def _in_use(catalogue: Catalogue, name: str) -> Conflict:
    return Conflict(
        _("the catalogue “%(catalogue)s” uses %(model)s already")
        % {"catalogue": catalogue, "model": name},
        field="feature_model",
    )


def _require_whole(space: VectorIndex) -> None:
    """Raises Conflict unless every image that can be found now can be found in `space` too."""
    name = space.feature_model.name
    if left := missing(space).count():
        raise Conflict(
            _(
                "%(n)s images have no vector of %(model)s; run `manage.py reembed "
                "--feature-model %(model)s` (again), and see why images failed"
            )
            % {"n": left, "model": name},
            field="feature_model",
        )
    bare = GalleryImage.objects.filter(catalogue=space.catalogue_id, file="").exclude(
        Exists(Embedding.objects.filter(space=space, image=OuterRef("pk")))
    )
    if without := bare.count():
        numbers = ", ".join(map(str, bare.order_by("number").values_list("number", flat=True)[:5]))
        raise Conflict(
            _(
                "%(n)s images came as vectors without pictures (%(numbers)s ...), so that "
                "%(model)s cannot embed them; add their pictures and remove these images first"
            )
            % {"n": without, "numbers": numbers, "model": name},
            field="feature_model",
        )


@transaction.atomic
def drop(catalogue: Catalogue, feature_model: str, *, by: User | None) -> int:
    """Remove the vectors of a network that does not answer; returns how many.

    Raises NotFound, and Conflict for the network that answers.
    """
    space = space_of(catalogue, feature_model)
    # Before the catalogue is locked: whoever works on a job has the job first, the catalogue last.
    jobs.fail(_jobs(space).unfinished(), _("the search space was dropped"))
    locked = Catalogue.objects.select_for_update(no_key=True).get(pk=catalogue.pk)
    if space.pk == locked.index_id:
        raise Conflict(
            _(
                "the catalogue “%(catalogue)s” answers with %(model)s; switch to another network "
                "first"
            )
            % {"catalogue": catalogue, "model": feature_model},
            field="feature_model",
        )
    removed = search.remove_space(space)
    audit.record(
        Action.CATALOGUE_CHANGE,
        catalogue,
        catalogue=catalogue,
        by=by,
        changes={"feature_models": [str(space.feature_model), None]},
    )
    space.delete()
    return removed


@dataclass(frozen=True, slots=True)
class Question:
    """A picture of one product, as RGB pixels, and its true label."""

    truth: str
    pixels: Pixels


@dataclass(frozen=True, slots=True)
class Compared:
    """How well one network recognises the questions. `images` is the size of the gallery."""

    space: VectorIndex
    current: bool
    images: int
    report: Report


def compare(
    catalogue: Catalogue,
    questions: Iterable[Question],
    *,
    without: Collection[int] = (),
) -> list[Compared]:
    """Recall@1 and @5 of every network the catalogue is embedded with, the answering one first.

    Whole pictures, exact search, no threshold, the best image of each product counts: it compares
    features, not indexes or detectors. `without` are vector ids of images that are left out of the
    gallery, because they are asked about. For commands and workers: it loads the networks.

    Raises BadInput without questions, Conflict when a network lacks vectors the other has.
    """
    spaces = sorted(
        catalogue.spaces.select_related("feature_model", "catalogue"),
        key=lambda space: (space.pk != catalogue.index_id, space.pk),
    )
    for space in spaces:
        if space.pk != catalogue.index_id:
            _require_whole(space)
    galleries = [_Gallery(space, frozenset(without)) for space in spaces]
    answers: list[list[SingleAnswer]] = [[] for _space in spaces]
    for batch in _batches(questions, _QUESTIONS):
        for space, gallery, answered in zip(spaces, galleries, answers, strict=True):
            vectors = get_runtime().embed(
                space.feature_model.name,
                [question.pixels for question in batch],
                batch_size=settings.SHITU_BATCH_SIZE,
                expected_digest=space.feature_model.digest,
            )
            answered += [
                SingleAnswer(question.truth, ranked)
                for question, ranked in zip(batch, gallery.ranked(vectors), strict=True)
            ]
    if not answers[0]:
        raise BadInput(_("there is not one picture to ask about"), field="queries")
    return [
        Compared(space, space.pk == catalogue.index_id, gallery.images, evaluate(answered))
        for space, gallery, answered in zip(spaces, galleries, answers, strict=True)
    ]


class _Gallery:
    """The vectors of one space, read anew for each batch of questions."""

    def __init__(self, space: VectorIndex, without: frozenset[int]) -> None:
        self._space, self._without = space, without
        self.images = 0

    def ranked(self, vectors: Vectors) -> list[list[str]]:
        """Labels of the five nearest products of each row of `vectors`, best first."""
        codes: dict[str, int] = {}
        best = np.full((len(vectors), 0), -np.inf, np.float32)
        images: set[int] = set()
        for view in indexing.views(self._space.catalogue):
            for part in export.fetch(self._space, View(view)):
                kept = [at for at, n in enumerate(part.numbers) if n not in self._without]
                if not kept:
                    continue
                images.update(part.numbers[at] for at in kept)
                of = np.array([codes.setdefault(part.labels[at], len(codes)) for at in kept])
                if grown := len(codes) - best.shape[1]:
                    best = np.pad(best, ((0, 0), (0, grown)), constant_values=-np.inf)
                np.maximum.at(best.T, of, part.vectors[kept] @ vectors.T)
        self.images = len(images)
        labels = list(codes)
        order = np.argsort(-best, axis=1, kind="stable")[:, :_TOP]
        return [[labels[code] for code in row] for row in order]


def _batches(items: Iterable[Question], size: int) -> Iterator[list[Question]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
