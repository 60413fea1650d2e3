"""What a space is to be: its metric, the type of its index, its parameters."""

from __future__ import annotations

from django.db import transaction
from django.utils.translation import gettext as _

from recognition.errors import BadInput
from recognition.models import Catalogue, IndexType, Metric, VectorIndex
from recognition.search import ranking


def set_type(
    space: VectorIndex,
    index_type: IndexType,
    *,
    m: int | None = None,
    ef_construction: int | None = None,
    lists: int | None = None,
    recall_target: float | None = None,
) -> None:
    """Choose type and parameters; the next round of `tend` builds what they ask for.

    What is None stays as it is. Raises BadInput for values pgvector does not take.
    """
    wanted = {
        "index_type": IndexType(index_type),
        "m": m,
        "ef_construction": ef_construction,
        "lists": lists,
        "recall_target": recall_target,
    }
    given = {name: value for name, value in wanted.items() if value is not None}
    for name, value in given.items():
        setattr(space, name, value)
    for name in ("m", "ef_construction", "lists", "recall_target"):
        column = VectorIndex._meta.get_field(name)
        value = getattr(space, name)
        if value is not None:
            _check(name, value, column)
    if space.ef_construction < 2 * space.m:
        raise BadInput(
            _(
                "ef_construction %(effort)s is too small for m %(m)s: pgvector needs at least "
                "twice m, %(least)s"
            )
            % {"effort": space.ef_construction, "m": space.m, "least": 2 * space.m},
            field="ef_construction",
        )
    space.save(update_fields=list(given))


@transaction.atomic
def set_metric(space: VectorIndex, metric: Metric) -> None:
    """Express scores in another metric; thresholds are translated, so the answers stay the same.

    No index changes: vectors have unit length, so every metric ranks them alike.
    """
    catalogue = Catalogue.objects.select_for_update(no_key=True).get(pk=space.catalogue_id)
    old, new = Metric(space.metric), Metric(metric)
    space.metric = new
    space.save(update_fields=["metric"])
    if catalogue.index_id == space.pk:
        if catalogue.rec_threshold is not None:
            cosine = ranking.similarity(catalogue.rec_threshold, old)
            catalogue.rec_threshold = ranking.score(cosine, new)
            catalogue.save(update_fields=["rec_threshold"])
        catalogue.touch()


def _check(name: str, value: float, column: object) -> None:
    from django.core.exceptions import ValidationError

    try:
        column.run_validators(value)  # type: ignore[attr-defined]
    except ValidationError as error:
        raise BadInput(f"{name} {value}: {' '.join(error.messages)}", field=name) from error
