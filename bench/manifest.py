"""How much memory and time a long import takes.

    python -m bench.manifest --lines 1000000 --pictures 20000 --format csv

Generates a list, imports it in this process as a job does, and prints the highest resident memory.
`--pictures` lines name a picture that is there and new, spread evenly; the others name one that is
missing, which costs the reader, the report and the database the same and the disk nothing. Needs
the site's database, and no worker running, which would embed the pictures meanwhile; the catalogue
it makes goes again at the end.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import django
import numpy as np
from PIL import Image

_BASE = 500  # different pictures; each is new again under another label


def rows(lines: int, pictures: int) -> Iterator[tuple[str, str]]:
    """Path and label of every line."""
    every = max(1, lines // pictures)
    for number in range(lines):
        there = number % every == 0
        yield (
            f"{number // every % _BASE}.png" if there else f"missing-{number}.png",
            f"product {number // every // _BASE}",
        )


def write_list(path: Path, lines: int, pictures: int) -> None:
    """The list, in the format that the name says."""
    if path.suffix == ".xlsx":
        import openpyxl

        book = openpyxl.Workbook(write_only=True)
        sheet = book.create_sheet()
        sheet.append(["label", "image"])
        for image, label in rows(lines, pictures):
            sheet.append([label, image])
        book.save(path)
        return
    with path.open("w") as file:
        if path.suffix == ".csv":
            file.write("label,image,attributes.size\n")
        for image, label in rows(lines, pictures):
            is_csv = path.suffix == ".csv"
            file.write(f"{label},{image},330\n" if is_csv else f"{image}\t{label}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--format", choices=["csv", "txt", "xlsx"], default="csv")
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shitu_site.settings")
    django.setup()
    from django.conf import settings

    from recognition import tasks
    from recognition.models import Job, User
    from recognition.services import catalogues, imports, jobs

    tasks.wake = lambda task, *arguments: None
    owner, _ = User.objects.get_or_create(username="bench")
    catalogue = catalogues.create(
        f"bench {time.time()}",
        owner=owner,
        feature_model=settings.SHITU_FEATURE_MODEL,
        detector="",
    )
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        random = np.random.default_rng(0)
        for number in range(_BASE):
            blocks = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            Image.fromarray(blocks).resize((64, 64)).save(folder / f"{number}.png")
        labels = folder / f"list.{options.format}"
        write_list(labels, options.lines, options.pictures)
        before = _peak()
        print(
            f"{labels.stat().st_size / 2**20:.0f} MB of {options.format}; start at {before:.0f} MB"
        )
        started = last = time.monotonic()

        def say(job: Job) -> None:
            nonlocal last
            if time.monotonic() - last > 15:
                last = time.monotonic()
                print(f"{job.done + job.failed:>9,} lines, peak {_peak():.0f} MB", flush=True)

        job = imports.start_here(catalogue, folder, by=None, labels=labels)
        job = jobs.run_here(job, say)
        seconds = time.monotonic() - started
        print(
            f"{job.total:,} lines in {seconds:.0f} s ({job.total / seconds:,.0f} a second), "
            f"{job.counts()}, state {job.state} {job.error}\n"
            f"peak resident memory {_peak():.0f} MB"
        )
        started = time.monotonic()
        jobs.forget_errors(job)
        Job.objects.filter(pk=job.pk).update(failed=0)
        print(
            f"forgetting {options.lines - options.pictures:,} failed lines: "
            f"{time.monotonic() - started:.0f} s"
        )
    catalogues.remove(catalogue)


def _peak() -> float:
    """Highest resident memory of this process so far, in MB (Linux counts in kB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
