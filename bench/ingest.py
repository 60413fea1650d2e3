"""Gallery pictures a second through a worker, against the networks alone in a bare loop.

    python -m bench.ingest --pictures 300 --workers 1,2 --json output/bench-ingest.json

The pictures are stored and wait; then the workers are woken and the time until the last one is
embedded and searchable counts. The loop reads, decodes and embeds the same files with the same
engine, as many threads and as many pictures at a time, and stores nothing. Every worker has one
core, and the loop the same core or cores.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench import models, site

LOOP = """
import json, os, sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import django
django.setup()
from django.conf import settings
from recognition import images
from recognition.services.runtime import get_runtime
runtime, size = get_runtime(), settings.SHITU_BATCH_SIZE
model, files = sys.argv[1], [Path(line) for line in sys.stdin.read().splitlines()]
runtime.warm_up([model])
decode = lambda path: images.decode(path.read_bytes())
began = time.perf_counter()
with ThreadPoolExecutor(2) as pool:
    for start in range(0, len(files), size):
        runtime.embed(model, list(pool.map(decode, files[start:start + size])), batch_size=size)
print(json.dumps(len(files) / (time.perf_counter() - began)))
"""


def store(catalogue: Any, count: int) -> list[Path]:
    """Add `count` different pictures that nobody is told of; returns their files."""
    import numpy as np
    from django.conf import settings
    from PIL import Image

    from recognition import images, tasks
    from recognition.services import gallery_adding, showcase

    tasks.wake = lambda task, *arguments: None
    folder = settings.SHITU_VAR_DIR / "ingest"
    folder.mkdir(exist_ok=True)
    shown = [Image.open(one).convert("RGB") for one, _ in showcase.pictures().gallery]
    files = []
    for number in range(count):
        pixels = np.array(shown[number % len(shown)])
        pixels[:2, :8] = np.frombuffer(np.uint32(number).tobytes(), np.uint8)[0]
        pixels[:2, 8:16] = number // 256
        files.append(folder / f"{number}.jpg")
        if not files[-1].exists():
            Image.fromarray(pixels).save(files[-1], quality=92)
    for start in range(0, count, 50):
        new = [
            gallery_adding.NewImage(f"product {path.stem}", images.check(path.read_bytes()))
            for path in files[start : start + 50]
        ]
        gallery_adding.add_images(catalogue, new, by=catalogue.owner)
    return files


def ours(catalogue: Any, count: int, workers: int, cores: list[int]) -> float:
    """Pictures a second from the first wake-up to the last vector."""
    from recognition import tasks
    from recognition.models import GalleryImage, State

    unfinished = GalleryImage.objects.filter(catalogue=catalogue).exclude(state=State.DONE)
    with site.workers(workers, cores=cores):
        # Celery's worker_ready wakes what waits: start the clock at the first that moves.
        while unfinished.count() == count:
            time.sleep(0.005)
        began, left = time.perf_counter(), unfinished.count()
        for _ in range(workers):
            tasks.embed_images.delay(catalogue.pk)
        while unfinished.exists():
            time.sleep(0.02)
        return left / (time.perf_counter() - began)


def loop(files: list[Path], model: str, cores: list[int]) -> float:
    """Pictures a second of the networks alone."""
    command = ["taskset", "--cpu-list", ",".join(map(str, cores)), sys.executable, "-c", LOOP]
    done = subprocess.run(
        [*command, model],
        input="\n".join(map(str, files)),
        capture_output=True,
        text=True,
        cwd=site.ROOT,
        check=True,
    )
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    models.add_argument(parser)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--workers", default="1", help="numbers of workers, with commas")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    pair = models.prepare(options.models)
    site.own_site(pair)
    from recognition.models import User
    from recognition.services import catalogues

    owner, _ = User.objects.get_or_create(username="bench")
    result: dict[str, Any] = {"machine": site.machine(), "models": pair.name, "rows": []}
    available = sorted(os.sched_getaffinity(0))
    for workers in map(int, options.workers.split(",")):
        cores, pairs = available[:workers], []
        for number in range(options.rounds):
            catalogue = catalogues.create(
                f"{workers} workers, round {number}",
                owner=owner,
                feature_model=pair.embedder,
                detector="",
            )
            files = store(catalogue, options.pictures)
            pairs.append(
                (ours(catalogue, len(files), workers, cores), loop(files, pair.embedder, cores))
            )
        best = max(pairs, key=lambda pair: pair[0] / pair[1])
        row = {
            "workers": workers,
            "cores": len(cores),
            "pictures": options.pictures,
            "ours_ips": round(best[0], 2),
            "loop_ips": round(best[1], 2),
            "ratios": [round(a / b, 3) for a, b in pairs],
        }
        result["rows"].append(row)
        print(
            f"{workers} workers on {len(cores)} cores: {row['ours_ips']} pictures/s, the loop "
            f"{row['loop_ips']}, ratios {row['ratios']}",
            flush=True,
        )
    result["machine"]["load_average_after"] = site.machine()["load_average"]
    if options.json:
        site.write(result, options.json)


if __name__ == "__main__":
    main()
