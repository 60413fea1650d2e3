"""Bulk import: started here, run as jobs (`recognition/services/jobs.py`).

Formats: a gallery list with its pictures as PaddleX has it, a folder for every label, a CSV or
XLSX manifest, Google Product Search's bulk CSV, and an export of this platform; as a ZIP, or as a
folder of this machine for commands. `formats.py` tells them apart by what is in them. URLs that a
call of the API names are an import too.

- `lines`      what every reader gives
- `places`     folders and ZIP files, judged before they are opened
- `paddlex`, `folders`, `manifest` with `columns` and `google`, `site_archive`   their readers
- `items`      the reader of what a call of the API named
- `runner`     the run itself
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO

from django.conf import settings
from django.core.files.base import File
from django.core.files.storage import default_storage
from django.db import transaction
from django.utils.translation import gettext as _

from recognition.errors import BadInput, TooLarge
from recognition.models import Action, Catalogue, GalleryImage, Job, LineResult, Product, User
from recognition.models.job import LOCAL_PATH, job_path
from recognition.services import (
    audit,
    catalogues,
    files,
    gallery,
    jobs,
    quotas,
    trash,
)
from recognition.services.imports import items
from recognition.services.imports.formats import ITEMS, LABELS, archive_head, folder_digest
from recognition.services.imports.lines import printable
from recognition.services.imports.site_archive import CATALOGUE_FIELDS, SPACE_FIELDS

__all__ = [
    "archive_head",
    "check_size",
    "remove_others",
    "settings_of",
    "start",
    "start_here",
    "start_items",
]

_TAKEN = [name for name in (*CATALOGUE_FIELDS, *SPACE_FIELDS) if name != "name"]


def check_size(byte_size: int | None) -> None:
    """Raises TooLarge for an upload of more than SHITU_MAX_IMPORT_BYTES."""
    most = settings.SHITU_MAX_IMPORT_BYTES
    if (byte_size or 0) > most:
        raise TooLarge(
            _("The file has more than %(most)s bytes (SHITU_MAX_IMPORT_BYTES).")
            % {"most": f"{most:,}"},
            field="file",
        )


def start(
    catalogue: Catalogue,
    source: BinaryIO,
    *,
    by: User | None,
    name: str = "",
    dry_run: bool = False,
    new_settings: Mapping[str, Any] | None = None,
) -> Job:
    """Store an upload and queue its import; what is wrong with it will be in the job.

    `name` is what the uploader calls it. With `dry_run` every line is judged and nothing is added.
    `new_settings` (see `settings_of`) are given to the catalogue at once, as
    `catalogues.change` does, whose errors it raises. Raises LimitReached when too many jobs run.
    """
    job = Job(
        catalogue=catalogue,
        kind=Job.Kind.IMPORT,
        started_by=by,
        source_name=printable(name)[:255],
        dry_run=dry_run,
    )
    return _queued(job, source, name, new_settings or {})


def settings_of(source: BinaryIO) -> dict[str, Any]:
    """Settings in an export of this platform, of its catalogue and search space; not its name and
    feature model. They are as they were sent, so check them. Raises BadInput when there are none.
    """
    with archive_head(source) as head:
        if head is None:
            raise BadInput(_("only an export of this platform has settings"), field="settings")
        kept = head["catalogue"]
    return {name: kept[name] for name in _TAKEN if name in kept}


def start_items(catalogue: Catalogue, pictures: Sequence[items.Item], *, by: User | None) -> Job:
    """Queue pictures that a worker fetches by their URLs; line n of the job is the n-th of them.

    Those in base64 among them take their turn, so that what has the same external id comes in the
    order given. Raises LimitReached when too many jobs run.
    """
    job = Job(
        catalogue=catalogue,
        kind=Job.Kind.IMPORT,
        started_by=by,
        source_name=printable(items.called(pictures))[:255],
        options={ITEMS: True},
        total=len(pictures),
    )
    with closing(items.written(pictures)) as source:
        return _queued(job, source, "items.jsonl", {})


def _queued(job: Job, source: BinaryIO, name: str, new_settings: Mapping[str, Any]) -> Job:
    with transaction.atomic():  # what is refused anyway need not be stored first
        quotas.check_job(job.catalogue, by=job.started_by)
    # Before the transaction: whoever works in the catalogue need not wait for it.
    job.file.name = default_storage.save(job_path(job, name), File(source))
    with transaction.atomic(), files.storing() as stored:
        stored.append(job.file.name)
        if new_settings:
            catalogues.change(job.catalogue, **new_settings)
        return jobs.queue(job)


def start_here(
    catalogue: Catalogue,
    path: Path,
    *,
    by: User | None,
    labels: Path | None = None,
    dry_run: bool = False,
) -> Job:
    """The job of importing a folder or file of this machine, for `jobs.run_here`.

    No worker touches it. When such an import of the same, unchanged source was interrupted, that
    job comes back, its failed lines ready to be tried again. `labels` is the list of a folder.
    """
    path, labels = path.resolve(), labels.resolve() if labels else None
    options = {
        LOCAL_PATH: str(path),
        LABELS: str(labels) if labels else None,
        "unchanged": _fingerprint(labels or path),
    }
    mine = Job.objects.filter(
        catalogue=catalogue, kind=Job.Kind.IMPORT, dry_run=dry_run, options__path=str(path)
    ).unfinished()
    for job in mine:
        if job.options == options:
            jobs.forget_errors(job)
            job.refresh_from_db()
            return job
    jobs.fail(mine, _("interrupted, and its source has changed since"))
    with transaction.atomic():
        job = Job.objects.create(
            catalogue=catalogue,
            kind=Job.Kind.IMPORT,
            started_by=by,
            source_name=printable((labels or path).name)[:255],  # editors see it: no path of ours
            options=options,
            dry_run=dry_run,
        )
        audit.record(Action.JOB_START, job, catalogue=catalogue, by=by)
    return job


def remove_others(job: Job) -> tuple[int, int] | None:
    """Make the catalogue hold exactly what a finished import named.

    Removes the images that no line of `job` has; products left without any go to the trash.
    Returns how many of each, or None when a line failed and nothing was removed: a line that could
    not be read has no image, and what it names would go with the rest.
    """
    if job.lines.filter(result=LineResult.ERROR).exists():
        return None
    catalogue = job.catalogue
    removed = 0
    others = GalleryImage.objects.filter(catalogue=catalogue).exclude(
        pk__in=job.lines.filter(image__isnull=False).values("image_id")
    )
    while batch := list(others.order_by("pk")[:500]):
        removed += gallery.remove_images(catalogue, batch)
    empty = catalogue.products.filter(images__isnull=True).order_by("pk")
    products = 0
    while ids := list(empty.values_list("pk", flat=True)[:500]):
        with transaction.atomic():
            locked = Product.objects.filter(pk__in=ids).order_by("pk")
            ids = list(locked.select_for_update(no_key=True).values_list("pk", flat=True))
            # Behind their locks: somebody may have given one its first picture a moment ago.
            products += trash.put(catalogue, empty.filter(pk__in=ids))
    return removed, products


def _fingerprint(path: Path) -> list[int] | str | None:
    """What changes when line n of the source is no longer the same; None where there is none.

    Size and time of a file. Of a folder a digest of its names, in the order of its lines, and of
    the lists among them.
    """
    try:
        if path.is_dir():
            return folder_digest(path)
        found = path.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]
