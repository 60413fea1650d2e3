"""Runs an import: lines stream in, pictures are checked, and chunks are committed.

A chunk is one transaction: its pictures, the report of its lines, the progress and the proof that
the job is still ours. So a process killed at any instruction leaves whole chunks behind, and
whoever goes on skips exactly the lines that have a report.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import groupby, islice
from typing import Any, Final

import numpy as np
from django.conf import settings
from django.core.exceptions import FieldDoesNotExist, ValidationError
from django.db import transaction
from django.db.models import F, Max
from django.db.models.functions import Greatest
from django.utils import timezone

from recognition import images, search
from recognition.errors import BadInput, RecognitionError
from recognition.models import (
    BoxSource,
    Catalogue,
    GalleryImage,
    Job,
    JobLine,
    LineResult,
    Product,
    State,
)
from recognition.services import files, gallery
from recognition.services.imports.columns import product_fields
from recognition.services.imports.formats import opened
from recognition.services.imports.lines import Line, printable
from recognition.services.imports.site_archive import NOT_PRODUCT_FIELDS
from recognition.services.jobs import Lease, Progress

CHUNK_LINES: Final = 50
CHUNK_BYTES: Final = 32 * 2**20
_THREADS: Final = 2  # reading and decoding release the GIL
_AHEAD: Final = 2 * _THREADS
_LOOK_BACK: Final = 500


@dataclass(slots=True)
class _Checked:
    """A line on its way into the catalogue: what it will be, and in the end what it became."""

    line: Line
    label: str = ""
    picture: images.Picture | None = None
    result: LineResult = LineResult.OK
    reason: str = ""
    image: GalleryImage | None = None
    product: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return len(self.picture.data) if self.picture else 0


def run(job: Job, lease: Lease, progress: Progress) -> None:
    """Do every line of `job` that has no report yet.

    Raises what makes the whole source unusable: BadInput, TooLarge. Bad lines raise nothing.
    """
    with opened(job) as source:
        lease.renew(total=source.total)
        job.total = source.total
        progress(job)
        write = _DryRun(job) if job.dry_run else _Write(job)
        with closing(_checked(_undone(job, source.lines, lease))) as checked:
            for chunk in _chunks(checked):
                _commit(job, lease, chunk, write)
                progress(job)
    behind = job.done + job.failed
    if behind != job.total:  # a workbook does not know its length, JSON and CSV may be wrong
        lease.renew(total=behind)
        job.total = behind
    if not job.failed and job.file:
        files.remove_on_commit([job.file.name])  # nothing is left to retry
        lease.renew(file="")


def _undone(job: Job, lines: Iterator[Line], lease: Lease) -> Iterator[Line]:
    """The lines that have no report yet, from this run or an earlier one."""
    last = job.lines.aggregate(last=Max("number"))["last"] or 0
    while batch := list(islice(lines, _LOOK_BACK)):
        numbers = [line.number for line in batch]
        if min(numbers) <= last:
            lease.renew_if_old()  # nothing else does while lines are only skipped
            reported = job.lines.filter(number__range=(min(numbers), max(numbers)))
            done = set(reported.values_list("number", flat=True))
            yield from (line for line in batch if line.number not in done)
        else:
            yield from batch


def _checked(lines: Iterator[Line]) -> Iterator[_Checked]:
    """Each line with its picture read, decoded once and checked; in order, a few at a time."""
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="check") as pool:
        ahead: deque[Future[_Checked]] = deque()
        try:
            for line in lines:
                ahead.append(pool.submit(_check, line))
                if len(ahead) >= _AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def _check(line: Line) -> _Checked:
    checked = _Checked(line)
    if line.note:
        checked.result, checked.reason = LineResult.SKIPPED, line.note
        return checked
    try:
        if line.problem:
            raise BadInput(line.problem)
        checked.label = gallery.clean_label(line.label)
        checked.product = _product_fields(line)
        if line.picture is not None:
            with closing(line.picture()) as file:
                checked.picture = images.check(file)
            if line.box:
                images.check_box(line.box, checked.picture.width, checked.picture.height)
        elif not checked.product:
            raise BadInput("there is neither a picture nor anything about the product")
    except RecognitionError as error:
        checked.result, checked.reason, checked.picture = LineResult.ERROR, error.message, None
    except OSError as error:
        checked.result = LineResult.ERROR
        checked.reason = f"the picture cannot be read: {error.strerror or type(error).__name__}"
    return checked


def _product_fields(line: Line) -> dict[str, Any]:
    """Fields of Product in a line that this site has. Raises BadInput for one that is wrong."""
    known = product_fields() - NOT_PRODUCT_FIELDS - {"label"}
    fields = {name: value for name, value in line.product.items() if name in known}
    for name, value in fields.items():
        try:
            model_field = Product._meta.get_field(name)
            if model_field.get_internal_type() == "JSONField" and not isinstance(value, dict):
                raise BadInput(f"{name}: it is no object of names and values", field=name)
            fields[name] = model_field.clean(value, None)
        except ValidationError as error:
            raise BadInput(f"{name}: {' '.join(error.messages)}", field=name) from error
        except FieldDoesNotExist as error:
            raise BadInput(f"{name}: no such field", field=name) from error
    return fields


def _chunks(checked: Iterable[_Checked]) -> Iterator[list[_Checked]]:
    """Bounded in lines, in bytes and in time, so that slow pictures do not outlast the lease."""
    chunk: list[_Checked] = []
    size, longest = 0, settings.SHITU_LEASE_SECONDS / 3
    started = time.monotonic()
    for one in checked:
        chunk.append(one)
        size += one.size
        if len(chunk) >= CHUNK_LINES or size >= CHUNK_BYTES or time.monotonic() - started > longest:
            yield chunk
            chunk, size, started = [], 0, time.monotonic()
    if chunk:
        yield chunk


def _commit(job: Job, lease: Lease, chunk: Sequence[_Checked], write: _Write | _DryRun) -> None:
    """One chunk, all of it or nothing."""
    with files.storing() as stored, transaction.atomic():
        lease.renew()  # first, so that a cancelled job adds nothing and two never do the same
        write([one for one in chunk if one.result == LineResult.OK], stored)
        JobLine.objects.bulk_create(
            JobLine(
                job=job,
                number=one.line.number,
                text=one.line.text,
                result=one.result,
                reason=printable(one.reason),
                image=one.image,
            )
            for one in chunk
        )
        failed = sum(one.result == LineResult.ERROR for one in chunk)
        done = len(chunk) - failed
        Job.objects.filter(pk=job.pk).update(done=F("done") + done, failed=F("failed") + failed)
    job.done += done
    job.failed += failed


class _Write:
    """Puts the good lines of a chunk into the catalogue, inside the transaction."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._catalogue: Catalogue = job.catalogue

    def __call__(self, good: Sequence[_Checked], stored: list[str]) -> None:
        """Sets `image` and `result` of each; `stored` gets the names of the new files."""
        if not good:
            return
        changed = self._tell_products(good)
        created = self._add([one for one in good if one.picture], stored)
        self._keep_vectors(created)
        if changed and not created:  # taking numbers moves the version already
            self._catalogue.touch()

    def _tell_products(self, good: Sequence[_Checked]) -> bool:
        """Make and lock the products, and write what the lines say about them.

        Locked here, in one order and before anything locks the catalogue, as `gallery` does it.
        """
        labels = sorted({one.label for one in good})
        made = Product.objects.bulk_create(
            [Product(catalogue=self._catalogue, label=label) for label in labels],
            ignore_conflicts=True,
        )
        rows = Product.objects.filter(catalogue=self._catalogue, label__in=labels)
        products = {
            product.label: product for product in rows.order_by("pk").select_for_update(no_key=True)
        }
        now = timezone.now()
        told: dict[int, Product] = {}
        written: set[str] = set()
        for one in good:
            product = products[one.label]
            for name, value in one.product.items():
                # Names and attributes are added to; everything else is replaced.
                before = getattr(product, name)
                after = {**before, **value} if isinstance(before, dict) else value
                if after != before:
                    setattr(product, name, after)
                    product.changed_at = now
                    told[product.pk] = product
                    written.add(name)
        if told:
            Product.objects.bulk_update(told.values(), [*sorted(written), "changed_at"])
        return bool(told or made)

    def _add(self, good: Sequence[_Checked], stored: list[str]) -> list[_Checked]:
        """Add the pictures, run by run of vector ids to be kept; returns those that are new."""
        created = []
        for first_id, run in _runs(good):
            if first_id is not None:
                Catalogue.objects.filter(pk=self._catalogue.pk).update(
                    next_number=Greatest(F("next_number"), first_id)
                )
            new = [
                gallery.NewImage(
                    one.label, one.picture, printable(one.line.source_name), _given_box(one.line)
                )
                for one in run
                if one.picture is not None
            ]
            for one, added in zip(
                run, gallery.add_images(self._catalogue, new, by=self._job.started_by), strict=True
            ):
                one.image = added.image
                if added.created:
                    stored.append(added.image.file.name)
                    created.append(one)
                else:
                    one.result = LineResult.DUPLICATE
                    one.reason = f"the product has this picture already (id {added.image.number})"
        return created

    def _keep_vectors(self, created: Sequence[_Checked]) -> None:
        """Vectors that came with the pictures make embedding them again needless."""
        ready = [one for one in created if one.line.vectors]
        if not ready:
            return
        rows = [
            (one.image.pk, view, vector)
            for one in ready
            if one.image is not None
            for view, vector in one.line.vectors.items()
        ]
        search.store(
            self._catalogue.require_index(),
            [image_id for image_id, _, _ in rows],
            [view for _, view, _ in rows],
            np.stack([vector for _, _, vector in rows]),
        )
        kept = [one.image for one in ready if one.image is not None]
        for one in ready:
            if one.image is not None:
                one.image.state = State.DONE
                if one.line.box_was_detected:
                    one.image.box_source = BoxSource.DETECTED
        GalleryImage.objects.bulk_update(kept, ["state", "box_source"])


class _DryRun:
    """Says what would become of each line, and changes nothing.

    Keeps eight bytes of every picture seen, about 90 MB for a million lines.
    """

    def __init__(self, job: Job) -> None:
        self._catalogue = job.catalogue
        self._seen: set[bytes] = set()

    def __call__(self, good: Sequence[_Checked], stored: list[str]) -> None:
        with_picture = [one for one in good if one.picture is not None]
        there = set(
            GalleryImage.objects.filter(
                catalogue=self._catalogue,
                checksum__in=[one.picture.checksum for one in with_picture if one.picture],
            ).values_list("product__label", "checksum")
        )
        for one in with_picture:
            pair = (one.label, one.picture.checksum if one.picture else "")
            mark = sha256("\0".join(pair).encode()).digest()[:8]
            if pair in there or mark in self._seen:
                one.result = LineResult.DUPLICATE
                one.reason = "the product has this picture already"
            self._seen.add(mark)


def _given_box(line: Line) -> Sequence[float] | None:
    """The box to store; one that was detected is detected anew unless its vector came along."""
    return None if line.box_was_detected and not line.vectors else line.box


def _runs(good: Sequence[_Checked]) -> Iterator[tuple[int | None, list[_Checked]]]:
    """Neighbours whose ids follow one another, with the first id; None where none is to be kept."""
    for key, group in groupby(
        enumerate(good),
        lambda pair: None if pair[1].line.vector_id is None else pair[1].line.vector_id - pair[0],
    ):
        run = [one for _, one in group]
        yield None if key is None else run[0].line.vector_id, run
