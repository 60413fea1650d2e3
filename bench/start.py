"""Seconds until each process is ready, and the memory it takes.

    python -m bench.start --json output/bench-start.json

Web processes, a worker on one core and beat are started one after the other on a site of their own.
Ready is the web when it answers `/health`, the worker when it has announced itself, which is after
its networks have answered once, beat when it has written its schedule. Memory is read after some
questions were answered: `rss` as the system counts it, `pss` with shared pages divided among those
who share them. The exit code is 1 when a web process has loaded a network library or holds more
than `--most-web-mb`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench import models, serving, site

_NETWORK_LIBRARIES = ("paddle", "openvino", "onnxruntime", "faiss", "cv2")


def rows() -> list[dict[str, Any]]:
    """Memory of every process of the site that runs now, in MB, and what it has loaded."""
    found = []
    for part, process in site.running():
        memory = process.memory_full_info()
        files = {Path(mapped.path) for mapped in process.memory_maps()}
        found.append(
            {
                "process": part,
                "rss_mb": round(memory.rss / 1e6, 1),
                "pss_mb": round(memory.pss / 1e6, 1),
                "loaded": [
                    name for name in _NETWORK_LIBRARIES if any(name in file.parts for file in files)
                ],
            }
        )
    return sorted(found, key=lambda row: (row["process"], -row["pss_mb"]))


def _until_healthy(port: int) -> None:
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as answer:  # noqa: S310
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.02)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    models.add_argument(parser)
    parser.add_argument("--most-web-mb", type=float, default=150.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    pair = models.prepare(options.models)
    site.own_site(pair)
    seconds = {}
    with ExitStack() as stack:
        from django.conf import settings

        from recognition.services import tokens

        catalogue, _ = serving.our_gallery(1000, pair.detector, pair.embedder)
        _, token = tokens.create(catalogue.owner, "bench")
        began = time.perf_counter()
        port = stack.enter_context(site.web())
        _until_healthy(port)
        seconds["web"] = time.perf_counter() - began
        began = time.perf_counter()
        stack.enter_context(site.workers(1, cores=[0], settle=0.0))
        seconds["worker"] = time.perf_counter() - began
        began = time.perf_counter()
        log = settings.SHITU_VAR_DIR / "beat.log"
        celery = Path(sys.executable).with_name("celery")
        command = [celery, "--app", "shitu_site", "beat", "--loglevel", "INFO"]
        stack.enter_context(site.process(command, log, SHITU_LOG_LEVEL="INFO"))
        while "Starting" not in log.read_text():
            time.sleep(0.02)
        seconds["beat"] = time.perf_counter() - began
        asked = serving.target(port, str(catalogue.key), serving.pictures(4), token)
        serving.answers(asked)
        result = {
            "machine": site.machine(),
            "models": pair.name,
            "ready_seconds": {part: round(value, 2) for part, value in seconds.items()},
            "rows": rows(),
        }
    for part, value in result["ready_seconds"].items():
        print(f"{part:>9} ready after {value} s")
    for row in result["rows"]:
        print(
            f"{row['process']:>9} {row['rss_mb']:>8} MB resident, {row['pss_mb']:>8} its share"
            f"   {', '.join(row['loaded'])}"
        )
    if options.json:
        site.write(result, options.json)
    web = [row for row in result["rows"] if row["process"] == "web"]
    if any(row["loaded"] or row["rss_mb"] > options.most_web_mb for row in web):
        sys.exit(f"a web process is too large or has loaded a network library: {json.dumps(web)}")


if __name__ == "__main__":
    main()
