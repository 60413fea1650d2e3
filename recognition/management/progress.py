"""Progress bars on standard error, and the words commands have in common."""

from __future__ import annotations

import logging
import sys
import time
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from django.core.management.base import BaseCommand, CommandError
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from recognition.errors import RecognitionError
from recognition.management.workers import worker_running
from recognition.models import Catalogue, Job, Role, State, User, Worker
from recognition.services import catalogues, imports, jobs

SOME_FAILED, NOTHING_DONE = 1, 2
MOST_SHOWN = 100
_LOOK_EVERY = 0.3
_PATIENCE = 60.0

T = TypeVar("T")


@contextmanager
def bar(total: int | None, what: str, unit: str) -> Iterator[tqdm[None]]:
    """A bar below the warnings; in a log file, where it cannot move, one line every 10 s."""
    with (
        _in_its_own_words(),
        logging_redirect_tqdm(),
        tqdm(
            total=total or None,
            desc=what,
            unit=unit,
            mininterval=0.1 if sys.stderr.isatty() else 10.0,
            dynamic_ncols=True,
        ) as shown,
    ):
        yield shown


@contextmanager
def _in_its_own_words() -> Iterator[None]:
    """What a command tells itself is in no log line besides; warnings are, and all with DEBUG."""
    ours = logging.getLogger("recognition")
    before = ours.level
    if ours.getEffectiveLevel() == logging.INFO:
        ours.setLevel(logging.WARNING)
    try:
        yield
    finally:
        ours.setLevel(before)


def followed(items: Iterable[T], total: int | None, what: str, unit: str) -> Iterator[T]:
    """The same items, with a bar that counts them."""
    with bar(total, what, unit) as shown:
        for item in items:
            yield item
            shown.update()


@contextmanager
def in_words() -> Iterator[None]:
    """A named error becomes the command's last words instead of a traceback."""
    try:
        yield
    except RecognitionError as error:
        raise CommandError(error.message, returncode=NOTHING_DONE) from error


def find_user(name: str | None) -> User:
    """The user called `name`, or the first superuser. Raises CommandError."""
    if name is not None:
        try:
            return User.objects.get(username=name, is_active=True)
        except User.DoesNotExist:
            raise CommandError(f"there is no active user {name}", returncode=NOTHING_DONE) from None
    user = User.objects.filter(is_superuser=True, is_active=True).order_by("pk").first()
    if user is None:
        raise CommandError(
            "there is no superuser to own the catalogue; name a user with --user, or make one "
            "with `./manage.py createsuperuser`",
            returncode=NOTHING_DONE,
        )
    return user


def find_catalogue(
    name: str, user: str | None, role: Role = Role.VIEWER, *, own: bool = False
) -> Catalogue:
    """The catalogue of that name or key; with a user, among those they may see, or (`own`) own.

    Raises NotFound, Conflict, and RoleTooLow when the user named has a lower role there.
    """
    if user is None:
        return catalogues.find(name)
    by = find_user(user)
    found = catalogues.find(name, user=by, own=own)
    catalogues.require_role(by, found, role)
    return found


def remove_if_empty(catalogue: Catalogue) -> None:
    """Take back a catalogue that this command made and that nothing came into."""
    inside = (catalogue.images, catalogue.products, catalogue.jobs.unfinished())
    if not any(rows.exists() for rows in inside):
        catalogues.remove(catalogue)


def check_paths(*paths: Path | None, folder: Path | None = None) -> None:
    """See that files and folders are there before anything is made for them.

    `folder` must be one. Raises CommandError for the first that is not.
    """
    for path in filter(None, (folder, *paths)):
        try:
            Path(path).stat()
        except OSError as error:
            raise CommandError(
                f"{path} cannot be read: {error.strerror}", returncode=NOTHING_DONE
            ) from error
    if folder is not None and not Path(folder).is_dir():
        raise CommandError(f"{folder} is no folder", returncode=NOTHING_DONE)


def add_import_arguments(parser: ArgumentParser) -> None:
    """Options of every command that imports."""
    parser.add_argument("--catalogue", required=True, help="name or key")
    parser.add_argument("--user", help="on whose behalf (default: the first superuser)")
    parser.add_argument("--report", type=Path, help="write what became of every line, as CSV")
    parser.add_argument(
        "--no-wait", action="store_true", help="leave the embedding to workers, do not wait for it"
    )


def import_here(
    command: BaseCommand,
    job: Job,
    *,
    wait: bool,
    replace: bool = False,
    report: Path | None = None,
) -> None:
    """Run an import in this process and see it embedded; print what became of it.

    Interrupted and started again it goes on where it stopped. Raises CommandError: `returncode` is
    SOME_FAILED when lines or pictures failed, NOTHING_DONE when all of them did.
    """
    started = time.monotonic()
    with in_words():
        job = _run(job)
        if report is not None:
            _write_report(job, report)
        if job.state == State.FAILED:
            raise CommandError(job.error, returncode=NOTHING_DONE)
        counts = job.counts()
        nothing = counts["ok"] + counts["duplicate"] == 0
        if replace and not nothing and not job.dry_run:
            removed = imports.remove_others(job)
            command.stdout.write(
                f"nothing removed: {counts['error']} lines failed"
                if removed is None
                else f"replaced: removed {removed[0]} images and {removed[1]} products"
            )
        if wait and not job.dry_run and not nothing:
            with worker_running(command.stdout):
                wait_until_embedded(job.catalogue)
    unembedded = _print(command, job, counts, time.monotonic() - started)
    if nothing:
        raise CommandError("not one line could be taken", returncode=NOTHING_DONE)
    if counts["error"] or unembedded:
        raise CommandError(
            f"{counts['error']} lines and {unembedded} embeddings failed, the rest is done",
            returncode=SOME_FAILED,
        )


def wait_until_embedded(catalogue: Catalogue) -> None:
    """Wait, with a bar, until no image of the catalogue waits for its embedding.

    Raises CommandError when no worker has answered for a minute.
    """
    unfinished = catalogue.images.filter(state__in=State.unfinished())
    left = unfinished.count()
    if not left:
        return
    seen = time.monotonic()
    with bar(left, "embed", "image") as shown:
        while left := unfinished.count():
            shown.total = max(shown.total, shown.n + left)  # others add some too
            shown.update(shown.total - left - shown.n)
            if Worker.objects.alive().exists():
                seen = time.monotonic()
            elif time.monotonic() - seen > _PATIENCE:
                raise CommandError(
                    f"no worker answers, and {left} images wait for their embedding; start one "
                    "with `./manage.py worker`",
                    returncode=SOME_FAILED,
                )
            time.sleep(_LOOK_EVERY)
        shown.update(shown.total - shown.n)


def _run(job: Job) -> Job:
    with bar(None, "dry run" if job.dry_run else "import", "line") as shown:

        def show(job: Job) -> None:
            shown.total = max(job.total, job.done + job.failed) or None
            shown.update(job.done + job.failed - shown.n)
            shown.set_postfix(failed=job.failed, refresh=False)

        ended = jobs.run_here(job, show)
        show(ended)  # how many lines there are, the reader may have guessed until now
        return ended


def _print(command: BaseCommand, job: Job, counts: dict[str, int], seconds: float) -> int:
    """The summary; returns how many images of this job could not be embedded."""
    out = command.stdout.write
    model = job.catalogue.require_index().feature_model
    verb = "would be added" if job.dry_run else "added"
    out(
        f"{verb} {counts['ok']}, already there {counts['duplicate']}, skipped {counts['skipped']}, "
        f"failed {counts['error']}, in {seconds:.1f} s"
    )
    out(f"feature model {model.name}, weights {model.digest[:12]}, {model.dimension} dimensions")
    bad = job.lines.exclude(result="ok").exclude(result="duplicate").order_by("number")
    for line in bad[:MOST_SHOWN]:
        command.stderr.write(f"line {line.number}: {line.result}: {line.reason}  [{line.text}]")
    unembedded = job.lines.filter(image__state=State.FAILED).order_by("number")
    for line in unembedded.select_related("image")[:MOST_SHOWN]:
        reason = line.image.error if line.image else ""
        command.stderr.write(f"line {line.number}: not embedded: {reason}  [{line.text}]")
    if bad.count() > MOST_SHOWN:
        command.stderr.write(
            f"... and {bad.count() - MOST_SHOWN} more; --report FILE writes all of them"
        )
    return unembedded.count()


def _write_report(job: Job, path: Path) -> None:
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            file.writelines(jobs.report(job))
    except OSError as error:
        raise CommandError(
            f"the report {path} cannot be written: {error.strerror}", returncode=SOME_FAILED
        ) from error
