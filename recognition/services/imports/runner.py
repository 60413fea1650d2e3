"""Runs an import: lines stream in, pictures are checked, and chunks are committed.

A chunk is one transaction: its pictures, the report of its lines, the progress and the proof that
the job is still ours. So a process killed at any instruction leaves whole chunks behind, and
whoever goes on skips exactly the lines that have a report.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from hashlib import sha256
from itertools import islice
from threading import BoundedSemaphore
from typing import Final

import numpy as np
from django.conf import settings
from django.db.models import F, Max
from django.utils import translation
from django.utils.translation import gettext as _

from recognition import images, search
from recognition.errors import BadInput, Conflict, RecognitionError, StorageFull
from recognition.gallery_list import clean_label
from recognition.models import (
    BoxSource,
    Catalogue,
    GalleryImage,
    Job,
    JobLine,
    LineResult,
    State,
)
from recognition.services import files, gallery, gallery_adding, product_fields
from recognition.services.imports.describing import describe
from recognition.services.imports.formats import opened
from recognition.services.imports.lines import Checked, Line, printable
from recognition.services.jobs import Lease, Progress

CHUNK_PICTURES: Final = 50
CHUNK_LINES: Final = 500
CHUNK_BYTES: Final = 32 * 2**20
_THREADS: Final = 2  # reading and decoding release the GIL
_FETCHERS: Final = 8  # each mostly waits, and only _THREADS of them decode at a time
_LOOK_BACK: Final = 500

_decoding = BoundedSemaphore(_THREADS)


def run(job: Job, lease: Lease, progress: Progress) -> None:
    """Do every line of `job` that has no report yet.

    Raises what makes the whole source unusable: BadInput, TooLarge. Bad lines raise nothing.
    """
    with ExitStack() as stack:
        with lease.kept(lambda: None):  # gigabytes may come from a storage elsewhere
            source = stack.enter_context(opened(job))
        lease.renew(total=source.total)
        job.total = source.total
        progress(job)
        write = _DryRun(job) if job.dry_run else _Write(job, lease)
        threads = _FETCHERS if source.fetches else _THREADS
        with closing(_checked(_undone(job, source.lines, lease), lease, threads)) as checked:
            for chunk in _chunks(checked):
                write.prepare(_good(chunk))
                _commit(job, lease, chunk, write)
                progress(job)
    behind = job.done + job.failed
    if behind != job.total:  # a workbook does not know its length, JSON and CSV may be wrong
        lease.renew(total=behind)
        job.total = behind
    if not job.failed and job.file:  # nothing is left to retry
        with lease.transaction():  # the end too: without its upload nobody could go on
            Job.objects.filter(pk=job.pk).update(file="")
            files.remove_on_commit([str(job.file)])
            lease.end(State.DONE)


def _undone(job: Job, lines: Iterator[Line], lease: Lease) -> Iterator[Line]:
    """The lines that have no report yet, from this run or an earlier one."""
    last = job.lines.aggregate(last=Max("number"))["last"] or 0
    while batch := _read(lines, lease):
        numbers = [line.number for line in batch]
        if min(numbers) <= last:
            lease.renew_if_old()  # nothing else does while lines are only skipped
            reported = job.lines.filter(number__range=(min(numbers), max(numbers)))
            done = set(reported.values_list("number", flat=True))
            yield from (line for line in batch if line.number not in done)
        else:
            yield from batch


def _read(lines: Iterator[Line], lease: Lease) -> list[Line]:
    """Some more of them; the first image of a large export comes after all its products."""
    with lease.kept(lambda: None):
        return list(islice(lines, _LOOK_BACK))


def _checked(lines: Iterator[Line], lease: Lease, threads: int) -> Generator[Checked, None, None]:
    """Each line with its picture read, decoded once and checked; in order, a few at a time."""
    with ThreadPoolExecutor(
        threads,
        thread_name_prefix="check",
        initializer=translation.activate,  # a thread does not inherit it
        initargs=(translation.get_language(),),
    ) as pool:
        ahead: deque[Future[Checked]] = deque()
        try:
            for line in lines:
                ahead.append(pool.submit(_check, line))
                if len(ahead) >= threads + _THREADS:
                    yield _waited_for(ahead.popleft(), lease)
            while ahead:
                yield _waited_for(ahead.popleft(), lease)
        finally:
            for future in ahead:
                future.cancel()


def _waited_for(future: Future[Checked], lease: Lease) -> Checked:
    """The line once it is there; meanwhile the lease is kept, and a cancellation noticed."""
    while True:
        try:
            return future.result(timeout=min(1.0, settings.SHITU_LEASE_SECONDS / 3))
        except TimeoutError:  # of this wait: `_check` lets none out
            lease.prove()


def _check(line: Line) -> Checked:
    checked = Checked(line)
    if line.note:
        checked.result, checked.reason = LineResult.SKIPPED, line.note
        return checked
    try:
        if line.problem:
            raise BadInput(line.problem)
        checked.product = product_fields.clean(line.product)
        if line.label or not checked.product.get("external_id"):
            checked.label = clean_label(line.label)
        if line.picture is not None:
            gallery.clean_external_id(line.external_id)
            with closing(line.picture()) as file, _decoding:
                picture = images.check(file)
            if line.box:
                images.check_box(line.box, picture.width, picture.height)
            checked.picture = replace(picture, checksum=line.checksum or picture.checksum)
        elif not checked.product:
            raise BadInput(_("there is neither a picture nor anything about the product"))
    except RecognitionError as error:
        checked.refuse(error.message)
    except OSError as error:
        why = error.strerror or type(error).__name__
        checked.refuse(_("the picture cannot be read: %(why)s") % {"why": why})
    return checked


def _chunks(checked: Iterable[Checked]) -> Iterator[list[Checked]]:
    """Bounded in pictures, lines, bytes and time, so that slow pictures do not outlast the lease.

    The pictures of a chunk are added by one call: their ids follow one another or are left to us,
    and no external id comes twice.
    """
    chunk = _Chunk()
    for one in checked:
        if not chunk.takes(one):
            yield chunk.lines
            chunk = _Chunk()
        chunk.put(one)
        if chunk.full():
            yield chunk.lines
            chunk = _Chunk()
    if chunk.lines:
        yield chunk.lines


class _Chunk:
    def __init__(self) -> None:
        self.lines: list[Checked] = []
        self._pictures: list[Line] = []
        self._external_ids: set[str] = set()
        self._size, self._started = 0, time.monotonic()

    def takes(self, one: Checked) -> bool:
        if one.picture is None or not self._pictures:
            return True
        last = self._pictures[-1].vector_id
        expected = None if last is None else last + 1
        return one.line.vector_id == expected and one.line.external_id not in self._external_ids

    def put(self, one: Checked) -> None:
        self.lines.append(one)
        if one.picture is not None:
            self._pictures.append(one.line)
            self._size += one.size
            if one.line.external_id:
                self._external_ids.add(one.line.external_id)

    def full(self) -> bool:
        return (
            len(self._pictures) >= CHUNK_PICTURES
            or len(self.lines) >= CHUNK_LINES
            or self._size >= CHUNK_BYTES
            or time.monotonic() - self._started > settings.SHITU_LEASE_SECONDS / 3
        )


def _good(chunk: Sequence[Checked]) -> list[Checked]:
    return [one for one in chunk if one.result == LineResult.OK]


def _commit(job: Job, lease: Lease, chunk: Sequence[Checked], write: _Write | _DryRun) -> None:
    """One chunk, all of it or nothing.

    What is refused as a whole is tried line by line: a line alone is refused with its reason, and
    a full quota ends the job at the very picture for which there is no room.
    """
    try:
        _commit_whole(job, lease, chunk, write)
    except (BadInput, Conflict) as error:
        if len(chunk) > 1:
            for one in chunk:
                _commit(job, lease, [one], write)
        elif isinstance(error, StorageFull):
            raise
        else:
            chunk[0].refuse(error.message)
            _commit_whole(job, lease, chunk, write)


def _commit_whole(
    job: Job, lease: Lease, chunk: Sequence[Checked], write: _Write | _DryRun
) -> None:
    with lease.transaction(), files.storing() as stored:
        write(_good(chunk), stored)
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
        # Renewed once more, for the pictures may have taken longer than a lease to store.
        lease.advance(done=F("done") + done, failed=F("failed") + failed)
    job.done += done
    job.failed += failed


class _Write:
    """Puts the good lines of a chunk into the catalogue."""

    def __init__(self, job: Job, lease: Lease) -> None:
        self._job, self._lease = job, lease
        self._catalogue: Catalogue = job.catalogue

    def prepare(self, good: Sequence[Checked]) -> None:
        """What comes before the transaction of the chunk and may well be done twice."""
        describe(self._catalogue, good, self._lease.transaction)
        first_id = next((one.line.vector_id for one in good if one.picture), None)
        if first_id is not None:
            Catalogue.objects.filter(pk=self._catalogue.pk, next_number__lt=first_id).update(
                next_number=first_id
            )

    def __call__(self, good: Sequence[Checked], stored: list[str]) -> None:
        """Sets `image` and `result` of each; `stored` gets the names of the new files."""
        pictured = [(one, one.picture) for one in good if one.picture is not None]
        if not pictured:
            return
        new = [
            gallery_adding.NewImage(
                one.label,
                picture,
                printable(one.line.source_name),
                _given_box(one.line),
                one.line.external_id,
                BoxSource.DETECTED if one.line.box_was_detected else BoxSource.GIVEN,
            )
            for one, picture in pictured
        ]
        created: list[tuple[Line, GalleryImage]] = []
        for (one, _picture), added in zip(
            pictured,
            gallery_adding.add_images(self._catalogue, new, by=self._job.started_by),
            strict=True,
        ):
            one.image = added.image
            if added.created:
                stored.append(str(added.image.file))
                created.append((one.line, added.image))
                if added.replaced:
                    one.reason = _("it replaces the picture that had its id")
                elif added.duplicate_of is not None:
                    one.reason = _("another product has it too (id %(id)s)") % {
                        "id": added.duplicate_of.number
                    }
            else:
                one.result = LineResult.DUPLICATE
                one.reason = gallery_adding.has_already(added)
        self._keep_vectors(created)

    def _keep_vectors(self, created: Sequence[tuple[Line, GalleryImage]]) -> None:
        """Vectors that came with the pictures make embedding them again needless, as long as the
        catalogue would make the same."""
        came = [(line, image) for line, image in created if line.vectors]
        if not came:
            return
        fits = gallery_adding.embeds_as_before(self._catalogue)
        if fits:
            rows = [
                (image.pk, view, vector)
                for line, image in came
                for view, vector in line.vectors.items()
            ]
            search.store(
                self._catalogue.require_index(),
                [image_id for image_id, _, _ in rows],
                [view for _, view, _ in rows],
                np.stack([vector for _, _, vector in rows]),
            )
        for line, image in came:
            if fits:
                image.state = State.DONE
            elif line.box_was_detected:  # as `_given_box` says
                image.box, image.box_source = None, BoxSource.NONE
        GalleryImage.objects.bulk_update(
            [image for _, image in came], ["state", "box", "box_source"]
        )


class _DryRun:
    """Says what would become of each line, judged by itself, and changes nothing.

    Keeps eight bytes of every picture seen, about 90 MB for a million lines.
    """

    def __init__(self, job: Job) -> None:
        self._catalogue = job.catalogue
        self._seen: set[bytes] = set()

    def prepare(self, good: Sequence[Checked]) -> None:
        """Nothing."""

    def __call__(self, good: Sequence[Checked], stored: list[str]) -> None:
        pictured = [(one, one.picture) for one in good if one.picture is not None]
        there = set(
            GalleryImage.objects.filter(
                catalogue=self._catalogue,
                checksum__in=[picture.checksum for _one, picture in pictured],
            ).values_list("product__label", "checksum")
        )
        for one, picture in pictured:
            product = one.label or one.product.get("external_id", "")
            mark = sha256(f"{product}\0{picture.checksum}".encode()).digest()[:8]
            if (product, picture.checksum) in there or mark in self._seen:
                one.result = LineResult.DUPLICATE
                one.reason = _("the product has this picture already")
            self._seen.add(mark)


def _given_box(line: Line) -> Sequence[float] | None:
    """The box to store; one that was detected is detected anew unless its vector came along."""
    return None if line.box_was_detected and not line.vectors else line.box
