"""Recognition over HTTP: this site against PaddleX's own server, on one machine, in turns.

    python -m bench.serving --models starter --galleries 1000,10000,100000 --clients 1,4,16 \
        --workers 2 --json output/bench-serving.json

Both get the same networks, the same vectors as gallery and the same requests to `/shitu-infer`:
photos of several packs, no drawing, the five nearest of each object whatever their score. Blocks
of `--seconds` alternate; a ratio is the median over the pairs of blocks. Charts are written beside
the JSON file.

`--models archexact` are networks with the structure of PP-ShiTuV2's and random weights (see
bench/archexact.py). What they detect is arbitrary, so each side is asked for exactly `--objects`
boxes of every photo, five unless told: `detThreshold` of a request lies between the scores of the
fifth and the sixth box that this side finds in this photo. With the starter models both sides find
what they find; `ours_objects` and `paddlex_objects` say how many that is in the mean.

The gallery is generated, so nothing in it is truly near a photo and the best scores lie close
together. `same_best_label` is the part of the boxes for which both sides name the same label, and
`best_score_lost` the mean cosine that our index, which is approximate beyond 5,000 vectors, gives
away to PaddleX's, which reads every vector.

Before anything starts, `manage.py tune` finds the engine and the number of threads for our workers.
`--precision int8` runs the quantised twins on our side, against the same float PaddleX.

PaddleX runs as it ships (see bench/paddlex_server.py) under a Python of its own, because its
serving extras need other versions than the project does:

    python3.11 -m venv var/bench-paddlex
    var/bench-paddlex/bin/pip install "paddlex[serving,cv]==3.7.2" paddlepaddle==3.3.1
"""

from __future__ import annotations

import argparse
import base64
import http.client
import io
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from bench import charts, load, models, site
from bench.load import Target
from bench.models import Pair

PEER = site.ROOT / "var" / "bench-paddlex" / "bin" / "python"
PICTURES = 8
DIMENSION = 512
ADDRESS = "/shitu-infer"
LEAST_SCORE = 0.03  # archexact: below it the network itself drops boxes
_PEER_PACKAGES = ("paddlex", "paddlepaddle", "faiss-cpu", "numpy", "opencv-contrib-python")


def pictures(count: int) -> list[bytes]:
    """JPEG photos of rendered shelves, about 640 pixels wide."""
    from PIL import Image

    from recognition.services import showcase

    made = []
    for scene in showcase.pictures().scenes[:count]:
        image = Image.open(scene.path).convert("RGB")
        image.thumbnail((640, 640))
        out = io.BytesIO()
        image.save(out, "JPEG", quality=90)
        made.append(out.getvalue())
    return made


def our_gallery(size: int, detector: str, embedder: str) -> tuple[Any, Any]:
    """A catalogue with `size` generated vectors, indexed as it would be, and those vectors."""
    from bench import spaces
    from bench.vectors import clustered
    from recognition.models import User
    from recognition.services import catalogues, indexes

    owner, _ = User.objects.get_or_create(username="bench")
    data = clustered(size, dimension=DIMENSION)
    catalogue = catalogues.create(
        f"gallery of {size}", owner=owner, feature_model=embedder, detector=detector
    )
    spaces.fill(catalogue.require_index(), data.vectors, data.products)
    indexes.tend(catalogue.index_id)
    return catalogue, data


@contextmanager
def paddlex(python: Path, pair: Pair, indexes: Path) -> Iterator[tuple[int, psutil.Process]]:
    """PaddleX's server; yields its port and process."""
    from django.conf import settings

    port, log = site.free_port(), settings.SHITU_VAR_DIR / "paddlex.log"
    command = [python, site.ROOT / "bench" / "paddlex_server.py", pair.root]
    arguments = [*command, pair.detector, pair.embedder, indexes, str(port)]
    with site.process(arguments, log) as running:
        site.wait_for_port(port, running, log)
        yield port, psutil.Process(running.pid)


def peer_versions(python: Path) -> dict[str, str]:
    """What PaddleX's Python has installed."""
    program = (
        "import json, sys\nfrom importlib.metadata import version\n"
        "print(json.dumps({name: version(name) for name in sys.argv[1:]}))"
    )
    said = subprocess.run(
        [python, "-c", program, *_PEER_PACKAGES], capture_output=True, text=True, check=True
    )
    found: dict[str, str] = json.loads(said.stdout)
    return found


def target(
    port: int, key: str, asked: Sequence[bytes], token: str | None, **options: Sequence[Any]
) -> Target:
    """The questions to one side; each of `options` has a value for every picture."""
    bodies = []
    for number, picture in enumerate(asked):
        body = {
            "image": base64.b64encode(picture).decode(),
            "indexKey": key,
            "visualize": False,
            "recThreshold": -1.0,
        }
        body |= {name: values[number] for name, values in options.items()}
        bodies.append(json.dumps(body).encode())
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    return Target(port, ADDRESS, bodies, headers)


def answers(asked: Target) -> list[list[dict[str, Any]]]:
    """The detected objects of each question, asked one by one."""
    connection = http.client.HTTPConnection("127.0.0.1", asked.port, timeout=120)
    found = []
    for body in asked.bodies:
        connection.request("POST", asked.path, body, asked.headers)
        content = json.loads(connection.getresponse().read())
        if content["errorCode"]:
            raise SystemExit(f"{asked.path} answered {content}")
        found.append(content["result"]["detectedObjects"])
    connection.close()
    return found


def thresholds(all_boxes: Target, objects: int) -> list[float]:
    """For each picture a detThreshold that `objects` boxes pass; `all_boxes` asks for every one."""
    found = []
    for number, detected in enumerate(answers(all_boxes)):
        scores = sorted((one["score"] for one in detected), reverse=True)
        if len(scores) <= objects or scores[objects - 1] - scores[objects] < 1e-5:
            raise SystemExit(f"picture {number} has no {objects} distinct best boxes: {scores[:9]}")
        found.append((scores[objects - 1] + scores[objects]) / 2)
    return found


def alike(ours: Target, peer: Target) -> dict[str, float | None]:
    """Objects a picture on each side, and how alike the best matches of equal boxes are; None when
    no box is equal, as with random weights in int8."""
    mine, theirs = answers(ours), answers(peer)
    same, lost = [], []
    for here, there in zip(mine, theirs, strict=True):
        for one in here:
            for other in there:
                if np.allclose(one["bbox"], other["bbox"], atol=2):
                    best, right = one["recResults"][0], other["recResults"][0]
                    same.append(best["label"] == right["label"])
                    lost.append(right["score"] - best["score"])
    return {
        "ours_objects": round(statistics.mean(map(len, mine)), 2),
        "paddlex_objects": round(statistics.mean(map(len, theirs)), 2),
        "same_best_label": round(statistics.mean(same), 3) if same else None,
        "best_score_lost": round(statistics.mean(lost), 4) if lost else None,
    }


def compare(
    ours: Target,
    peer: Target,
    peer_process: psutil.Process,
    *,
    clients: int,
    seconds: float,
    blocks: int,
) -> dict[str, Any]:
    """Alternating blocks, after one of each that does not count.

    `cpu_ms` is processor time an answer of all processes of a side: what counts when the machine
    is busy with other things.
    """
    contestants = {"ours": ours, "paddlex": peer}
    measured: dict[str, list[load.Block]] = {name: [] for name in contestants}

    def spent() -> dict[str, float]:
        times = peer_process.cpu_times()
        return {"ours": sum(site.cpu_seconds().values()), "paddlex": times.user + times.system}

    for one in contestants.values():
        load.ask(one, clients, min(seconds, 2.0))
    before = spent()
    for _ in range(blocks):
        for name, one in contestants.items():
            measured[name].append(load.ask(one, clients, seconds))
    after = spent()
    pairs = zip(measured["ours"], measured["paddlex"], strict=True)
    row: dict[str, Any] = {}
    for name, found in measured.items():
        row |= {
            f"{name}_rps": round(statistics.median(block.per_second for block in found), 2),
            f"{name}_p50_ms": load.percentile(found, 50),
            f"{name}_p99_ms": load.percentile(found, 99),
            f"{name}_cpu_ms": round(1e3 * (after[name] - before[name]) / _answers(found), 1),
            f"{name}_answers": _answers(found),
        }
    return row | {
        "ratio": round(statistics.median(a.per_second / b.per_second for a, b in pairs), 2)
    }


def _answers(blocks: list[load.Block]) -> int:
    return sum(len(block.milliseconds) for block in blocks)


def draw(result: dict[str, Any], file: Path) -> None:
    """Answers a second and p99 by gallery and clients."""
    rows = result["rows"]
    groups = [f"{row['gallery']:,}\n{row['clients']} clients" for row in rows]
    about = f"{result['models']}, {result['precision']}, {result['workers']} workers"
    for key, unit, title in (
        ("rps", "answers a second", "Recognition over HTTP"),
        ("p99_ms", "ms", "99th percentile"),
    ):
        series = {name: [row[f"{name}_{key}"] for row in rows] for name in ("ours", "paddlex")}
        charts.bars(
            file.with_name(f"{file.stem}-{key}.svg"), f"{title} ({about})", groups, series, unit
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    models.add_argument(parser)
    parser.add_argument("--precision", default="float32", choices=["float32", "int8"])
    parser.add_argument("--galleries", default="1000", help="sizes, with commas")
    parser.add_argument("--clients", default="1,4,16", help="numbers at once, with commas")
    parser.add_argument("--workers", type=int, default=1, help="worker processes of ours")
    parser.add_argument("--objects", type=int, default=5, help="in each photo, with archexact")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a block")
    parser.add_argument("--blocks", type=int, default=2, help="of each, in turns")
    parser.add_argument("--peer-python", type=Path, default=PEER, help=f"default: {PEER}")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not options.peer_python.exists():
        parser.error(f"{options.peer_python} does not exist.\n\n{__doc__}")
    pair = models.prepare(options.models)
    site.own_site(pair)
    with ExitStack() as stack:
        from django.conf import settings

        from recognition.services import tokens

        ours = site.quantised(pair) if options.precision == "int8" else pair
        site.tune()
        asked = pictures(PICTURES)
        galleries = {}
        folder = settings.SHITU_VAR_DIR / "indexes"
        folder.mkdir()
        for size in map(int, options.galleries.split(",")):
            catalogue, data = our_gallery(size, ours.detector, ours.embedder)
            galleries[size] = catalogue
            np.save(folder / f"{catalogue.key}.npy", data.vectors)
            labels = [f"product {number}" for number in data.products.tolist()]
            (folder / f"{catalogue.key}.json").write_text(json.dumps(labels))
            print(f"gallery of {size:,} is there", file=sys.stderr)
        _, token = tokens.create(catalogue.owner, "bench")
        peer_port, peer_process = stack.enter_context(paddlex(options.peer_python, pair, folder))
        stack.enter_context(site.workers(options.workers))
        our_port = stack.enter_context(site.web())
        sides = {"ours": (our_port, token), "paddlex": (peer_port, None)}
        settled: dict[str, dict[str, list[float]]] = {name: {} for name in sides}
        if pair.name == models.ARCHEXACT:
            key = str(min(galleries.items())[1].key)
            for name, (port, secret) in sides.items():
                every = target(port, key, asked, secret, detThreshold=[LEAST_SCORE] * len(asked))
                settled[name] = {"detThreshold": thresholds(every, options.objects)}
        result: dict[str, Any] = {
            "machine": site.machine(),
            "paddlex": peer_versions(options.peer_python),
            "models": pair.name,
            "precision": options.precision,
            "workers": options.workers,
            "rows": [],
        }
        for size, catalogue in galleries.items():
            ask_ours, ask_peer = (
                target(port, str(catalogue.key), asked, secret, **settled[name])
                for name, (port, secret) in sides.items()
            )
            same = alike(ask_ours, ask_peer)
            for clients in map(int, options.clients.split(",")):
                row = {"gallery": size, "clients": clients} | same
                row |= compare(
                    ask_ours,
                    ask_peer,
                    peer_process,
                    clients=clients,
                    seconds=options.seconds,
                    blocks=options.blocks,
                )
                result["rows"].append(row)
                print(
                    f"gallery {size:>7,}, {clients:>2} clients: ours {row['ours_rps']:>6} /s "
                    f"(p50 {row['ours_p50_ms']} p99 {row['ours_p99_ms']} ms), PaddleX "
                    f"{row['paddlex_rps']:>6} /s (p50 {row['paddlex_p50_ms']} p99 "
                    f"{row['paddlex_p99_ms']} ms), ratio {row['ratio']}; processor ms an answer "
                    f"{row['ours_cpu_ms']} and {row['paddlex_cpu_ms']}; objects "
                    f"{row['ours_objects']} and {row['paddlex_objects']}",
                    flush=True,
                )
        result["machine"]["load_average_after"] = site.machine()["load_average"]
    if options.json:
        site.write(result, options.json)
        draw(result, options.json)


if __name__ == "__main__":
    main()
