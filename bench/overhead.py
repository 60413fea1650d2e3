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

from bench import site
from bench.serving import MODELS, our_gallery, pictures

NETWORKS = ("detect", "embed")
STAGES = ("queue", "decode", "detect", "embed", "search", "rank")


def ask(port: int, key: str, bodies: list[bytes], token: str, count: int) -> list[dict[str, float]]:
    """`count` answers one after another: milliseconds of each stage and of the whole."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    path = f"/api/v1/catalogues/{key}/recognitions?wait=30"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    found = []
    for number in range(count):
        before = time.perf_counter()
        connection.request("POST", path, bodies[number % len(bodies)], headers)
        answer = json.loads(connection.getresponse().read())
        whole = 1e3 * (time.perf_counter() - before)
        stages = {stage: answer["timings"][stage] for stage in STAGES}
        found.append(stages | {"respond": whole - sum(stages.values()), "whole": whole})
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
    parser.add_argument("--models", default="starter", choices=[*MODELS])
    parser.add_argument("--gallery", type=int, default=1000)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    site.own_site()
    with ExitStack() as stack:
        from recognition.services import tokens

        catalogue, _ = our_gallery(options.gallery, *MODELS[options.models])
        _, token = tokens.create(catalogue.owner, "bench")
        bodies = [
            json.dumps({"image": base64.b64encode(one).decode()}).encode() for one in pictures(8)
        ]
        stack.enter_context(site.workers())
        port = stack.enter_context(site.web())
        key = str(catalogue.key)
        ask(port, key, bodies, token, 10)
        before = site.cpu_seconds()
        found = ask(port, key, bodies, token, options.questions)
        spent = {
            part: round(1e3 * (seconds - before[part]) / options.questions, 2)
            for part, seconds in site.cpu_seconds().items()
        }
        result = {"machine": site.machine(), "models": options.models, "gallery": options.gallery}
        result |= summary(found) | {"cpu_ms": spent}
    for stage, value in result["p50_ms"].items():
        print(f"{stage:>8} {value:>8.2f} ms")
    print("processor ms an answer:", ", ".join(f"{k} {v}" for k, v in spent.items()))
    print(f"overhead beside the networks: p50 {result['overhead_p50_ms']} ms")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
