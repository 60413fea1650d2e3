"""Recognition over HTTP: this site against PaddleX's own server, on one machine, in turns.

    python -m bench.serving --galleries 1000 --clients 1,16 --json output/bench-serving.json

Both get the same networks, the same vectors as gallery and the same pictures. Blocks of `--seconds`
alternate; a ratio is the median over the pairs of blocks. PaddleX runs as it ships (see
bench/paddlex_server.py) under a Python of its own, because its serving extras need other versions
than the project does:

    python3.11 -m venv var/bench-paddlex
    var/bench-paddlex/bin/pip install "paddlex[serving,cv]==3.7.2" paddlepaddle==3.3.1
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import statistics
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from bench import load, site
from bench.load import Target

PEER = site.ROOT / "var" / "bench-paddlex" / "bin" / "python"
MODELS = {"starter": ("starter_det", "starter_rec")}
DIMENSION = 512


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
def paddlex(
    python: Path, detector: str, embedder: str, indexes: Path
) -> Iterator[tuple[int, psutil.Process]]:
    """PaddleX's server; yields its port and process."""
    from django.conf import settings

    port, log = site.free_port(), settings.SHITU_VAR_DIR / "paddlex.log"
    command = [python, site.ROOT / "bench" / "paddlex_server.py", settings.SHITU_MODELS_DIR]
    arguments = [*command, detector, embedder, indexes, str(port)]
    with site.process(arguments, log) as running:
        site.wait_for_port(port, running, log)
        yield port, psutil.Process(running.pid)


def our_target(port: int, catalogue: Any, asked: list[bytes], token: str) -> Target:
    """PaddleX's endpoint where the site has it, else the native one."""
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/shitu-infer")
    has_it = connection.getresponse().status == 405
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    if has_it:
        return Target(port, "/shitu-infer", paddlex_bodies(asked, str(catalogue.key)), headers)
    bodies = [json.dumps({"image": base64.b64encode(one).decode()}).encode() for one in asked]
    return Target(port, f"/api/v1/catalogues/{catalogue.key}/recognitions?wait=30", bodies, headers)


def paddlex_bodies(asked: list[bytes], key: str) -> list[bytes]:
    return [
        json.dumps(
            {"image": base64.b64encode(one).decode(), "indexKey": key, "visualize": False}
        ).encode()
        for one in asked
    ]


def compare(
    ours: Target,
    peer: Target,
    peer_process: psutil.Process,
    *,
    clients: int,
    seconds: float,
    blocks: int,
) -> dict[str, Any]:
    """Alternating blocks, the first of each not counted.

    `cpu_ms` is processor time an answer of all processes of a side: what counts when the machine
    is busy with other things.
    """
    contestants = {"ours": ours, "paddlex": peer}
    measured: dict[str, list[load.Block]] = {name: [] for name in contestants}

    def spent() -> dict[str, float]:
        times = peer_process.cpu_times()
        return {"ours": sum(site.cpu_seconds().values()), "paddlex": times.user + times.system}

    for target in contestants.values():
        load.ask(target, clients, min(seconds, 2.0))
    before = spent()
    for _ in range(blocks):
        for name, target in contestants.items():
            measured[name].append(load.ask(target, clients, seconds))
    after = spent()
    pairs = zip(measured["ours"], measured["paddlex"], strict=True)
    row: dict[str, Any] = {"endpoint": ours.path.partition("?")[0].rpartition("/")[2]}
    for name, found in measured.items():
        row |= {
            f"{name}_rps": round(statistics.median(block.per_second for block in found), 2),
            f"{name}_p50_ms": load.percentile(found, 50),
            f"{name}_p99_ms": load.percentile(found, 99),
            f"{name}_cpu_ms": round(1e3 * (after[name] - before[name]) / _answers(found), 1),
        }
    return row | {
        "ratio": round(statistics.median(a.per_second / b.per_second for a, b in pairs), 2)
    }


def _answers(blocks: list[load.Block]) -> int:
    return sum(len(block.milliseconds) for block in blocks)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", default="starter", choices=[*MODELS])
    parser.add_argument("--galleries", default="1000", help="sizes, with commas")
    parser.add_argument("--clients", default="1,16", help="numbers at once, with commas")
    parser.add_argument("--workers", type=int, default=1, help="worker processes of ours")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a block")
    parser.add_argument("--blocks", type=int, default=2, help="of each, in turns")
    parser.add_argument("--peer-python", type=Path, default=PEER, help=f"default: {PEER}")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not options.peer_python.exists():
        parser.error(f"{options.peer_python} does not exist.\n\n{__doc__}")
    detector, embedder = MODELS[options.models]
    site.own_site()
    with ExitStack() as stack:
        from django.conf import settings

        from recognition.services import tokens

        asked = pictures(8)
        galleries = {}
        folder = settings.SHITU_VAR_DIR / "indexes"
        folder.mkdir()
        for size in map(int, options.galleries.split(",")):
            catalogue, data = our_gallery(size, detector, embedder)
            galleries[size] = catalogue
            np.save(folder / f"{catalogue.key}.npy", data.vectors)
            labels = [f"product {number}" for number in data.products.tolist()]
            (folder / f"{catalogue.key}.json").write_text(json.dumps(labels))
        _, token = tokens.create(catalogue.owner, "bench")
        peer_port, peer_process = stack.enter_context(
            paddlex(options.peer_python, detector, embedder, folder)
        )
        stack.enter_context(site.workers(options.workers))
        our_port = stack.enter_context(site.web())
        result: dict[str, Any] = {"machine": site.machine(), "models": options.models, "rows": []}
        for size, catalogue in galleries.items():
            ours = our_target(our_port, catalogue, asked, token)
            peer = Target(
                peer_port,
                "/shitu-infer",
                paddlex_bodies(asked, str(catalogue.key)),
                {"Content-Type": "application/json"},
            )
            for clients in map(int, options.clients.split(",")):
                row = {"gallery": size, "clients": clients}
                row |= compare(
                    ours,
                    peer,
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
                    f"{row['ours_cpu_ms']} and {row['paddlex_cpu_ms']}",
                    flush=True,
                )
        result["machine"]["load_average_after"] = site.machine()["load_average"]
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
