"""What members do with the index of their catalogue: choose it, build it anew, ask it why."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from recognition.errors import Conflict, TryAgain
from recognition.models import (
    Action,
    Catalogue,
    GalleryImage,
    IndexType,
    Job,
    Metric,
    User,
    VectorIndex,
)
from recognition.search import Question, physical
from recognition.search.nearest import explain_many
from recognition.services import audit, filtering, indexes, jobs, similar
from recognition.services.jobs import Lease, Progress

_SPACE = "space"


@transaction.atomic
def change(
    catalogue: Catalogue, *, metric: str | None = None, index_type: str | None = None, **given: Any
) -> VectorIndex:
    """Choose metric, type and parameters (see `indexes.set_type`); returns the space.

    The metric is in the very next answer. What else is asked for is built by the next round that
    looks after indexes; until then the index that is there answers. Raises BadInput.
    """
    locked = Catalogue.objects.select_for_update(no_key=True).get(pk=catalogue.pk)
    spaces = VectorIndex.objects.select_related("feature_model").select_for_update(of=("self",))
    space = spaces.get(pk=locked.require_index().pk)
    wanted = {"metric": metric, "index_type": index_type, **given}
    wanted = {name: value for name, value in wanted.items() if value is not None}
    changes = audit.differences({name: getattr(space, name) for name in wanted}, wanted)
    if "metric" in changes:
        indexes.set_metric(space, Metric(wanted["metric"]))
    if changes.keys() - {"metric"}:
        indexes.set_type(space, IndexType(index_type or space.index_type), **given)
    if changes:
        audit.record(Action.CATALOGUE_CHANGE, catalogue, catalogue=catalogue, changes=changes)
    return space


def start_rebuild(catalogue: Catalogue, *, by: User | None) -> Job:
    """Queue a new index beside the old one, which answers until the new one is there.

    While such a job is unfinished, that job comes back. Raises LimitReached when too many jobs run.
    """
    with transaction.atomic():
        locked = Catalogue.objects.select_for_update(no_key=True).get(pk=catalogue.pk)
        space = locked.require_index()
        rebuilding = Job.objects.filter(
            catalogue=catalogue, kind=Job.Kind.REBUILD, options={_SPACE: space.pk}
        )
        if (unfinished := rebuilding.unfinished().first()) is not None:
            return unfinished
        job = Job(
            catalogue=catalogue,
            kind=Job.Kind.REBUILD,
            started_by=by,
            options={_SPACE: space.pk},
            total=1,
        )
        return jobs.queue(job, action=Action.INDEX_REBUILD)


def run(job: Job, lease: Lease, progress: Progress) -> None:
    """Build. Killed half-way it begins again, and what was left half-built is removed first;
    cancelled, PostgreSQL stops within seconds, and the old index is the one that answers. Raises
    TryAgain while another build is at work: the job waits for that one."""
    space_id = job.options[_SPACE]
    with lease.kept(partial(physical.stop_build, space_id)):
        done = indexes.tend(space_id, rebuild=True)
    if done is indexes.Tended.STOPPED:
        lease.renew()  # unless it was cancelled, which says why already
        raise Conflict(_("the build was stopped in PostgreSQL; the index that was there answers"))
    if done is indexes.Tended.BUSY:
        raise TryAgain(_("another index is being built; this one follows when that one is done"))
    if done is indexes.Tended.GONE:
        raise Conflict(_("the search space was dropped meanwhile"))
    if done is indexes.Tended.FAILED:
        reason = VectorIndex.objects.values_list("build_error", flat=True).get(pk=space_id)
        raise Conflict(_("the index could not be built: %(why)s") % {"why": reason})
    lease.renew(done=1)
    job.done = 1
    progress(job)


def explain(
    image: GalleryImage,
    *,
    limit: int,
    per_product: bool = True,
    exact: bool = False,
    among: Mapping[str, Any] | None = None,
) -> list[str]:
    """How PostgreSQL finds the neighbours of a gallery image: the plan it ran, with times.

    Raises Conflict before the image has a vector, BadInput for a condition that makes no sense.
    """
    space = image.catalogue.require_index()
    vector = similar.vector_of(image)
    question = Question([space], vector, limit, per_product, filtering.among(among or {}))
    return explain_many([question], exact=exact)
