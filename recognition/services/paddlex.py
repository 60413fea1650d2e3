"""The four operations of PaddleX's server as verbs: done when they return.

The workers do the work and this waits for the rows; a caller who goes away loses nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from urllib.parse import urlsplit
from uuid import UUID, uuid4

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet

from recognition import fetch, images
from recognition.errors import (
    AnswerTimeout,
    BadInput,
    EngineFailed,
    NotFound,
    RecognitionError,
    TooLarge,
)
from recognition.gallery_list import clean_label
from recognition.images import Picture
from recognition.models import (
    Catalogue,
    GalleryImage,
    Job,
    Metric,
    RecognitionQuery,
    Role,
    State,
    User,
    Worker,
)
from recognition.services import (
    backpressure,
    bell,
    catalogues,
    embed_jobs,
    gallery,
    gallery_adding,
    gallery_embedding,
    pipeline_config,
    queries,
    saved_indexes,
)
from recognition.services.gallery_adding import Added, NewImage

DEFAULT_METRIC, DEFAULT_INDEX_TYPE = "IP", "Flat"
"""What PaddleX's server builds (its library defaults to HNSW32)."""

_LOADERS = 8
_MOST_LOADED = 512 * 2**20  # bytes of the pictures of one request, as they are stored
_MOST_DETECTIONS = 300  # PaddleX has no limit; this is the highest a catalogue can have
_LARGEST_ID = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Pair:
    """A picture as it was sent (URL or base64) and its label."""

    image: str
    label: str


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in an index: how many images, and `{vector id: label}` of those asked for."""

    count: int
    labels: dict[int, str] | None


class Unfinished(AnswerTimeout):
    """The caller's time is over and the work goes on: `job` follows it. `ids` are the vector ids of
    the pairs, in order."""

    def __init__(self, message: str, job: Job, ids: list[int]) -> None:
        super().__init__(message)
        self.job, self.ids = job, ids


def load(image: str, *, timeout: float | None = None) -> Picture:
    """The checked picture behind a URL or in base64 text.

    As in PaddleX, what begins with http:// or https:// and names a host is a URL; it is fetched
    within `timeout` seconds (SHITU_FETCH_TIMEOUT). Raises BadImage, TooLarge, FetchRefused.
    """
    if _is_url(image):
        return images.check(fetch.fetch_picture(image, timeout=timeout), name=image[:200])
    return images.check(images.from_base64(image))


def _is_url(image: str) -> bool:
    return image.startswith(("http://", "https://")) and _names_host(image)


def _names_host(url: str) -> bool:
    try:
        return bool(urlsplit(url).netloc)
    except ValueError:  # half an IPv6 address, for instance: a bad one, as `fetch` says
        return True


def find(user: User, key: str | None, role: Role) -> Catalogue:
    """The catalogue that `key` (PaddleX's indexKey) or, for None, the site's default means.

    Raises NotFound, RoleTooLow, or BadInput when there is neither a key nor a default.
    """
    if key is not None:
        try:
            return catalogues.require(user, UUID(key), role)
        except ValueError as error:
            raise NotFound(
                f"there is no index “{key[:100]}” among those you may see; indexKey is what "
                "shitu-index-build answered",
                field="indexKey",
            ) from error
    catalogue = default(user)
    if catalogue is None:
        raise BadInput(
            "no indexKey was given, and this site has no default index; send the indexKey that "
            "shitu-index-build answered, or set SHITU_PADDLEX_DEFAULT_CATALOGUE",
            field="indexKey",
        )
    catalogues.require_role(user, catalogue, role)
    return catalogue


def has_default() -> bool:
    """Whether a request may leave its indexKey out."""
    return bool(settings.SHITU_PADDLEX_DEFAULT_CATALOGUE or pipeline_config.site_index())


def default(user: User) -> Catalogue | None:
    """The catalogue that requests without an indexKey mean: SHITU_PADDLEX_DEFAULT_CATALOGUE, or
    the `index` of SHITU_PIPELINE_CONFIG. Raises NotFound when `user` may not see it."""
    if name := settings.SHITU_PADDLEX_DEFAULT_CATALOGUE:
        return catalogues.meant(name, user=user)
    if index := pipeline_config.site_index():
        return saved_indexes.imported(user, index)
    return None


def build(
    user: User,
    pairs: Sequence[Pair],
    *,
    name: str | None = None,
    metric: str | None = None,
    index_type: str | None = None,
    wait: bool = True,
) -> tuple[Catalogue, list[Added]]:
    """Make a catalogue of `user` from pictures; returns it and what became of each, in order.

    All or nothing: a picture that cannot be used is named, and no catalogue is made. Raises
    BadInput, TooLarge, AnswerTimeout, Conflict for a `name` that is taken, Unfinished,
    EngineFailed.
    """
    deadline = _deadline()
    metric, index_type = metric or DEFAULT_METRIC, index_type or DEFAULT_INDEX_TYPE
    if metric == "hamming":
        raise BadInput(
            "metricType “hamming” is for binary features, and neither PaddleX 3.7 nor this site "
            f"can build it; use one of {', '.join(Metric.values)}",
            field="metricType",
        )
    new = _loaded(pairs, deadline)
    with transaction.atomic():
        catalogue = catalogues.create(
            name or f"PaddleX index {uuid4()}",
            owner=user,
            metric=metric,
            index_type=index_type,
            max_detections=_MOST_DETECTIONS,
        )
        added = gallery_adding.add_images(catalogue, new, by=user)
    if wait:
        labels = [one.label for one in new]
        _wait(
            catalogue,
            added,
            labels,
            by=user,
            deadline=deadline,
            undo=lambda: catalogues.remove(catalogue),
        )
    return catalogue, added


def add(catalogue: Catalogue, pairs: Sequence[Pair], *, by: User, wait: bool = True) -> list[Added]:
    """Add pictures; returns what became of each, in order.

    All or nothing, as `build`. A picture that its product has already is not stored again: its old
    id comes back, and if it could not be embedded then, that is tried once more. Raises BadInput,
    TooLarge, LimitReached, AnswerTimeout, Unfinished, EngineFailed.
    """
    deadline = _deadline()
    backpressure.check_images(catalogue)
    new = _loaded(pairs, deadline)
    added = gallery_adding.add_images(catalogue, new, by=by)
    gallery_embedding.retry(one.image for one in added if one.image.state == State.FAILED)
    if wait:
        created = [one.image for one in added if one.created]
        labels = [one.label for one in new]
        _wait(
            catalogue,
            added,
            labels,
            by=by,
            deadline=deadline,
            undo=lambda: gallery.remove_images(catalogue, created),
        )
    return added


def remove(catalogue: Catalogue, ids: Sequence[int]) -> list[int]:
    """Remove images by vector id; returns the ids that were unknown, which is no error."""
    known = [number for number in ids if 0 <= number <= _LARGEST_ID]
    _, unknown = gallery.remove_numbers(catalogue, known)
    missing = {*unknown, *(number for number in ids if not 0 <= number <= _LARGEST_ID)}
    return [number for number in dict.fromkeys(ids) if number in missing]


def contents(catalogue: Catalogue, among: Sequence[int] | None = None) -> Contents:
    """How many images are in the index, and their labels.

    Beyond SHITU_PADDLEX_ID_MAP_LIMIT images only the labels of `among`; None of them without it.
    Images that could not be embedded have no vector and do not count.
    """
    rows: QuerySet[GalleryImage] = GalleryImage.objects.filter(catalogue=catalogue).exclude(
        state=State.FAILED
    )
    count = rows.count()
    if count > settings.SHITU_PADDLEX_ID_MAP_LIMIT:
        if among is None:
            return Contents(count, None)
        rows = rows.filter(number__in=among)
        return Contents(count, _labels(catalogue, rows))
    labels = _labels(catalogue, rows)  # counted again: somebody may add between the two statements
    return Contents(len(labels), labels)


def _labels(catalogue: Catalogue, rows: QuerySet[GalleryImage]) -> dict[int, str]:
    label = queries.shown_label(catalogue.shown_label, product="product", label="product__label")
    return dict(rows.order_by("number").values_list("number", label))


def ask(
    catalogue: Catalogue,
    image: str,
    *,
    by: User,
    det_threshold: float | None = None,
    rec_threshold: float | None = None,
    top_k: int | None = None,
) -> RecognitionQuery:
    """The answered question about one picture, image by image as PaddleX lists them.

    Thresholds beyond the range of any score mean what they mean in PaddleX: everything or nothing.
    Raises BadImage, BadInput, FetchRefused, AnswerTimeout.
    """
    options = queries.Options(
        det_threshold=_within(det_threshold, 0.0, 1.0),
        rec_threshold=_within(rec_threshold, -1.0, 4.0),
        top_k=top_k,
        per_product=False,
    )
    query = queries.submit(catalogue, load(image), by=by, options=options)
    queries.require_answer(query, settings.SHITU_PADDLEX_TIMEOUT)
    return query


def _within(value: float | None, low: float, high: float) -> float | None:
    return None if value is None else max(low, min(high, value))


def _deadline() -> float:
    return time.monotonic() + settings.SHITU_PADDLEX_TIMEOUT


def _loaded(pairs: Sequence[Pair], deadline: float) -> list[NewImage]:
    """Every pair, checked; raises the error of the first one that cannot be used, naming it.

    Raises TooLarge for more pictures than one request may have, or of more than _MOST_LOADED bytes,
    and AnswerTimeout when some are still to be fetched at the deadline.
    """
    _check_number(pairs)
    loaded, lock = 0, Lock()

    def one(position: int) -> NewImage:
        nonlocal loaded
        pair, part = pairs[position], "label"
        try:
            label, part = clean_label(pair.label), "image"
            if loaded > _MOST_LOADED:
                raise _too_much_at_once()
            picture = load(pair.image, timeout=_time_left(pair.image, deadline))
            with lock:
                loaded += len(picture.data)
            if loaded > _MOST_LOADED:
                raise _too_much_at_once()
            return NewImage(label, picture)
        except RecognitionError as error:
            where = f"imageLabelPairs[{position}].{part}"
            raise type(error)(f"{where}: {error.message}", field=where) from error

    # Decoding releases the GIL and fetching waits, so a few at a time are faster than one.
    with ThreadPoolExecutor(_LOADERS, thread_name_prefix="paddlex-load") as pool:
        futures = [pool.submit(one, position) for position in range(len(pairs))]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()


def _check_number(pairs: Sequence[Pair]) -> None:
    if not pairs:
        raise BadInput(
            "imageLabelPairs is empty; give at least one picture with its label",
            field="imageLabelPairs",
        )
    urls = sum(_is_url(pair.image) for pair in pairs)
    for what, count, name in (
        ("URLs", urls, "SHITU_MAX_UPLOAD_URLS"),
        ("pictures in base64", len(pairs) - urls, "SHITU_MAX_UPLOAD_FILES"),
    ):
        most = getattr(settings, name)
        if count > most:
            raise TooLarge(
                f"imageLabelPairs has {count:,} {what}, and one request may have {most:,} "
                f"({name}); send the others with shitu-index-add",
                field="imageLabelPairs",
            )


def _time_left(image: str, deadline: float) -> float | None:
    """How many seconds there are to fetch a picture; None for one that came along."""
    if not _is_url(image):
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise AnswerTimeout(
            f"its turn did not come within {settings.SHITU_PADDLEX_TIMEOUT:g} s "
            "(SHITU_PADDLEX_TIMEOUT), so nothing was added; send fewer URLs at once"
        )
    return min(left, settings.SHITU_FETCH_TIMEOUT)


def _too_much_at_once() -> TooLarge:
    return TooLarge(
        f"with this picture the request takes more than {_MOST_LOADED:,} bytes as they are stored, "
        "so nothing was added; send fewer pictures at once"
    )


def _wait(
    catalogue: Catalogue,
    added: Sequence[Added],
    labels: Sequence[str],
    *,
    by: User,
    deadline: float,
    undo: Callable[[], object],
) -> None:
    """Wait until all are embedded. When the workers could not embed one, raise; if it is new,
    `undo` before.

    After the deadline a job is made that follows the rest, and Unfinished raised.
    """
    waiting = ids = [one.image.pk for one in added]
    rows = GalleryImage.objects.filter(catalogue=catalogue)
    with bell.while_embedding(catalogue.pk) as sleep:
        while True:
            unfinished = rows.filter(state__in=State.unfinished())
            waiting = list(unfinished.filter(pk__in=waiting).values_list("pk", flat=True))
            if not waiting:
                break
            if time.monotonic() >= deadline:
                raise _unfinished(embed_jobs.start(catalogue, added, labels, by=by), added)
            sleep(deadline)
    failed = dict(rows.filter(pk__in=ids, state=State.FAILED).values_list("pk", "error"))
    for position, one in enumerate(added):
        if one.created and one.image.pk in failed:
            undo()
            raise EngineFailed(
                f"imageLabelPairs[{position}].image could not be embedded, so nothing was added: "
                f"{failed[one.image.pk]}"
            )
    for position, pk in enumerate(ids):
        if pk in failed:
            raise EngineFailed(
                f"imageLabelPairs[{position}].image is in the index from before and could not be "
                f"embedded this time either; all the others are in: {failed[pk]}"
            )


def _unfinished(job: Job, added: Sequence[Added]) -> Unfinished:
    job.refresh_from_db(fields=["done", "failed"])
    idle = "" if Worker.objects.alive().exists() else "; no worker is running"
    return Unfinished(
        f"not finished within {settings.SHITU_PADDLEX_TIMEOUT:g} s: {job.done:,} of {job.total:,} "
        f"pictures are in index {job.catalogue.key}, the others follow without being sent "
        f"again{idle}; job {job.key} says how far it is",
        job,
        [one.image.number for one in added],
    )
