"""What a second worker process adds: 1, 2 ... workers, each on a core of its own.

    python -m bench.scale --workers 1,2 --questions 400 --json output/bench-scale.json

Questions wait in the database before the clock starts, and no web server runs, which on a small
machine would take the second worker's core: what is measured is detection, embedding, search and
the writing of the answer. PostgreSQL and Valkey run on whatever core is free; their share of the
processor time is in the table, and where every core has a worker it bounds what can be reached
(`most`). The numbers of workers take turns, `--rounds` times, and the ratio is the median over the
rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path
from typing import Any

from bench import charts, models, serving, site


def drained(catalogue: Any, asked: list[bytes], questions: int, workers: int) -> dict[str, Any]:
    """Answers a second of that many workers, and processor milliseconds an answer of each part."""
    from recognition import images, tasks
    from recognition.models import RecognitionQuery, State
    from recognition.services import queries

    wake, tasks.wake = tasks.wake, lambda task, *arguments: None
    options = queries.Options(rec_threshold=-1.0)
    for number in range(questions):
        picture = images.check(asked[number % len(asked)])
        queries.submit(catalogue, picture, by=catalogue.owner, options=options)
    tasks.wake = wake
    open_ = RecognitionQuery.objects.exclude(state__in=State.ended())
    with site.workers(workers, cores=sorted(os.sched_getaffinity(0))[:workers], settle=0.0):
        while open_.count() > questions * 0.95:  # Celery's start and the first batches are over
            time.sleep(0.005)
            if open_.count() == questions:
                for _ in range(workers):
                    tasks.answer_queries.delay()
                time.sleep(0.5)
        before, began, left = site.cpu_seconds(), time.perf_counter(), open_.count()
        # Until a few are left: at the very end one worker has nothing to do.
        while (now := open_.count()) > questions * 0.05:
            time.sleep(0.02)
        seconds, after = time.perf_counter() - began, site.cpu_seconds()
        while open_.exists():
            time.sleep(0.02)
    failed = RecognitionQuery.objects.filter(state=State.FAILED)
    if (bad := failed.first()) is not None:
        raise SystemExit(f"a question failed: {bad.error}")
    RecognitionQuery.objects.all().delete()
    answered = left - now
    return {
        "workers": workers,
        "rps": round(answered / seconds, 2),
        "cpu_ms": {
            part: round(1e3 * (value - before[part]) / answered, 1) for part, value in after.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    models.add_argument(parser)
    parser.add_argument("--workers", default="1,2", help="numbers of workers, with commas")
    parser.add_argument("--questions", type=int, default=400, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gallery", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    pair = models.prepare(options.models)
    site.own_site(pair)
    from django.conf import settings

    settings.SHITU_MAX_WAITING_QUERIES = 0
    catalogue, _ = serving.our_gallery(options.gallery, pair.detector, pair.embedder)
    asked = serving.pictures(serving.PICTURES)
    counts = [int(number) for number in options.workers.split(",")]
    rounds = [
        {count: drained(catalogue, asked, options.questions, count) for count in counts}
        for _ in range(options.rounds)
    ]
    result: dict[str, Any] = {
        "machine": site.machine(),
        "models": pair.name,
        "gallery": options.gallery,
        "rows": [],
    }
    for count in counts:
        measured = [one[count] for one in rounds]
        middle = statistics.median(row["rps"] for row in measured)
        spent = min(measured, key=lambda row: abs(row["rps"] - middle))["cpu_ms"]
        ratios = [one[count]["rps"] / one[counts[0]]["rps"] for one in rounds]
        row = {
            "workers": count,
            "rps": middle,
            "ratio": round(statistics.median(ratios), 2),
            "cpu_ms": spent,
        }
        if count == len(os.sched_getaffinity(0)):
            row["most"] = round(count / counts[0] * spent["worker"] / sum(spent.values()), 2)
        result["rows"].append(row)
        print(
            f"{count} workers: {middle} answers/s, ratio {row['ratio']}, processor ms an answer "
            + ", ".join(f"{part} {value}" for part, value in spent.items() if value),
            flush=True,
        )
    if options.json:
        site.write(result, options.json)
        charts.bars(
            options.json.with_suffix(".svg"),
            f"Workers of one core each ({pair.name})",
            [str(count) for count in counts],
            {"answers a second": [row["rps"] for row in result["rows"]]},
            "answers a second",
        )


if __name__ == "__main__":
    main()
