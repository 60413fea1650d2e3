"""What an answer costs beside the networks, by stage: one client, one question at a time.

    python -m bench.overhead --questions 100 --json output/bench-overhead.json

The worker notes milliseconds by stage on every answer; the client sees the whole. `respond` is what
is left of it: reading the request, storing the question, writing and sending the answer.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import statistics
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench import models, site
from bench.load import Target
from bench.serving import our_gallery, pictures
from bench.serving import target as paddlex_target

NETWORKS = ("detect", "embed")
STAGES = ("queue", "decode", "detect", "embed", "search", "rank")


def native_target(port: int, key: str, asked: list[bytes], token: str) -> Target:
    """The native endpoint, which answers with everything there is to know."""
    return Target(
        port,
        f"/api/v1/catalogues/{key}/recognitions?wait=30",
        [json.dumps({"image": base64.b64encode(one).decode()}).encode() for one in asked],
        {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )


TARGETS = {"paddlex": paddlex_target, "native": native_target}


def ask(target: Target, count: int) -> list[dict[str, float]]:
    """`count` answers one after another: milliseconds of each stage and of the whole."""
    from recognition.models import RecognitionQuery

    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=60)
    whole = []
    for number in range(count):
        before = time.perf_counter()
        connection.request(
            "POST", target.path, target.bodies[number % len(target.bodies)], target.headers
        )
        response = connection.getresponse()
        body = response.read()
        whole.append(1e3 * (time.perf_counter() - before))
        if response.status not in (200, 201):
            raise SystemExit(f"{response.status}: {body[:200]!r}")
    rows = RecognitionQuery.objects.order_by("-pk").values_list("timings", flat=True)[:count]
    found = []
    for timings, milliseconds in zip(reversed(rows), whole, strict=True):
        stages = {stage: timings[stage] for stage in STAGES}
        found.append(
            stages | {"respond": milliseconds - sum(stages.values()), "whole": milliseconds}
        )
    return found


def summary(found: list[dict[str, float]]) -> dict[str, Any]:
    """Medians by stage, and of what is not spent in the networks."""
    outside = [one["whole"] - sum(one[name] for name in NETWORKS) for one in found]
    return {
        "questions": len(found),
        "overhead_p50_ms": round(statistics.median(outside), 2),
        "overhead_p90_ms": round(statistics.quantiles(outside, n=10)[-1], 2),
        "p50_ms": {
            stage: round(statistics.median(one[stage] for one in found), 2) for stage in found[0]
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    models.add_argument(parser)
    parser.add_argument("--gallery", type=int, default=1000)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--endpoint", default="paddlex", choices=[*TARGETS])
    parser.add_argument("--workers", type=int, default=1, help="processes that share the cores")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    pair = models.prepare(options.models)
    site.own_site(pair)
    with ExitStack() as stack:
        from recognition.services import tokens

        catalogue, _ = our_gallery(options.gallery, pair.detector, pair.embedder)
        _, token = tokens.create(catalogue.owner, "bench")
        stack.enter_context(site.workers(options.workers))
        port = stack.enter_context(site.web())
        target = TARGETS[options.endpoint](port, str(catalogue.key), pictures(8), token)
        ask(target, 10)
        before = site.cpu_seconds()
        found = ask(target, options.questions)
        spent = {
            part: round(1e3 * (seconds - before[part]) / options.questions, 2)
            for part, seconds in site.cpu_seconds().items()
        }
        result = {"machine": site.machine(), "models": pair.name, "gallery": options.gallery}
        result |= summary(found) | {"cpu_ms": spent}
    for stage, value in result["p50_ms"].items():
        print(f"{stage:>8} {value:>8.2f} ms")
    print("processor ms an answer:", ", ".join(f"{k} {v}" for k, v in spent.items()))
    print(f"overhead beside the networks: p50 {result['overhead_p50_ms']} ms")
    if options.json:
        site.write(result, options.json)


if __name__ == "__main__":
    main()
