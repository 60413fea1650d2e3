"""The project's search against hand-written SQL and against FAISS, on the same generated vectors.

    .venv/bin/python bench/search.py --sizes 10000,100000 --json build/search.json

Times are of one question after another from one client, round trip included, in blocks that
alternate between the contestants; a ratio is the median over the blocks. On a machine that is busy
with other things client and server wait for their turn at every question, which FAISS in this
process does not: then only the CPU figures mean anything. FAISS answers with one thread and the
least efSearch that reaches a recall of 0.99. "Raw SQL" is the best statement we know for the same
rows (`bench/handwritten.py`), prepared, with binary parameters, over the same connection.
When all sizes are filled they are asked in turns too, which tells how time grows with size: what
was measured an hour apart does not. Uses the project's database and cleans up behind itself.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shitu_site.settings")

import django  # noqa: E402

django.setup()

import faiss  # noqa: E402
from django.db import connection, connections  # noqa: E402

from bench import spaces  # noqa: E402
from bench.building import faiss_hnsw32, measure_building  # noqa: E402
from bench.handwritten import BARE, NOTHING, RAW, RAW_PRODUCTS, profile, raw  # noqa: E402
from bench.turns import Ask, duel, in_turns  # noqa: E402
from bench.vectors import Clustered, Vectors, clustered  # noqa: E402
from recognition import search  # noqa: E402
from recognition.models import VectorIndex, View  # noqa: E402
from recognition.search import physical  # noqa: E402
from recognition.services import indexes  # noqa: E402

if TYPE_CHECKING:
    from numpy.typing import NDArray

K = 5
RECALL_TARGET = 0.99  # FAISS need not do better than this, even where we do
EFFORTS = (16, 24, 32, 40, 48, 64, 80, 96, 128, 160, 200, 256, 320, 400, 512, 640, 800)


def ours(space: VectorIndex, *, per_product: bool) -> Ask:
    """One question to the project's search function; image ids, best first."""

    def ask(vector: Vectors) -> list[int]:
        found = search.nearest([space], vector, limit=K, per_product=per_product)
        return [neighbour.image_id for neighbour in found.neighbours[0]]

    return ask


def in_faiss(index: faiss.Index) -> Ask:
    return lambda vector: index.search(vector, K)[1][0]


def recall(answers: Sequence[Sequence[int]], truth: NDArray[np.int64]) -> float:
    """The share of the true first K that was found."""
    hits = sum(len(set(a) & set(t[:K].tolist())) for a, t in zip(answers, truth, strict=True))
    return hits / (K * len(truth))


@dataclass(frozen=True)
class Subject:
    """A space of one size that is measured, what is in it, and what was found so far."""

    space: VectorIndex
    data: Clustered
    ids: NDArray[np.int64]
    row: dict[str, Any]
    log: _Log


def fill(size: int, questions: int) -> Subject:
    """An indexed space of generated vectors."""
    log = _Log(size)
    data = clustered(size, questions, seed=size)
    space = spaces.make_space(data.vectors.shape[1], name=f"bench {size} {time.time():.0f}")
    row: dict[str, Any] = {"size": size, "dimension": data.vectors.shape[1], "k": K}
    try:
        began = time.perf_counter()
        ids = spaces.fill(space, data.vectors, data.products)
        row["load_rows_per_s"] = size / (time.perf_counter() - began)
        log("loaded")
        began = time.perf_counter()
        if indexes.tend(space.pk) is indexes.Tended.BUSY:
            sys.exit("another index is being built in this database: try again when it is done")
        row["build_and_sample_s"] = time.perf_counter() - began
    except BaseException:
        _remove(space)
        raise
    space.refresh_from_db()
    row["build_s"] = space.built_with.get("seconds")
    log(f"index: {space.built_with}")
    return Subject(space, data, ids, row, log)


def measure_growth(subjects: Sequence[Subject]) -> None:
    """How the time of a question grows with the size: all sizes asked in turns, block by block."""
    for name, per_product in (("", False), ("products_", True)):
        times = in_turns(
            {
                str(one.row["size"]): (
                    ours(one.space, per_product=per_product),
                    one.data.questions,
                )
                for one in subjects
            }
        )
        smallest = times[str(min(one.row["size"] for one in subjects))]
        for one in subjects:
            mine = times[str(one.row["size"])]
            one.row[f"{name}p50_ms_in_turns"] = mine.p50
            one.row[f"{name}p50_ratio_to_smallest"] = mine.ratio(smallest)
    for one in subjects:
        one.log(
            f"in turns {one.row['p50_ms_in_turns']:.3f} ms,"
            f" {one.row['p50_ratio_to_smallest']:.2f} times the smallest"
        )


def _truth(data: Clustered, depth: int = 10) -> NDArray[np.int64]:
    """Positions of the nearest, by float32 arithmetic."""
    flat = faiss.IndexFlatIP(data.vectors.shape[1])
    flat.add(data.vectors)
    return flat.search(data.questions, depth)[1]


def _recall_of_products(subject: Subject, truth: NDArray[np.int64]) -> float:
    """The share of the true first K distinct products that was found; `truth` is deep enough."""
    products = subject.data.products
    numbers = dict(zip(subject.ids.tolist(), products.tolist(), strict=True))
    hits = 0
    for row, nearest in enumerate(truth):
        wanted = list(dict.fromkeys(products[nearest].tolist()))[:K]
        [found] = search.nearest(
            [subject.space], subject.data.questions[row : row + 1], limit=K
        ).neighbours
        hits += len(set(wanted) & {numbers[one.image_id] for one in found})
    return hits / (K * len(truth))


def measure(subject: Subject, *, equal_build: bool) -> None:
    """One size by itself: recall, against SQL written by hand, against FAISS, many crops at once.

    `equal_build`: against FAISS built with the same effort as well.
    """
    space, data, ids, log = subject.space, subject.data, subject.ids, subject.log
    careful = None
    if equal_build:
        figures, careful = measure_building(space, data.vectors)
        subject.row.update(figures)
        log(f"building, seconds: {figures}")
    subject.row.update(
        {
            "built_with": space.built_with,
            "index_bytes": space.built_with.get("bytes"),
            "ef_search": space.ef_search,
            "stands_out": space.stands_out,
        }
    )
    deep = _truth(data, 40 * K)
    truth = ids[deep]
    answers = [
        [neighbour.image_id for neighbour in found]
        for start in range(0, len(data.questions), 20)
        for found in search.nearest(
            [space], data.questions[start : start + 20], limit=K, per_product=False
        ).neighbours
    ]
    mine = recall(answers, truth)
    products_found = _recall_of_products(subject, deep)
    log(f"recall@{K} {mine:.4f}, of products {products_found:.4f}")
    target = min(mine, RECALL_TARGET)
    peer, faiss_build = faiss_hnsw32(data.vectors, 40)  # as PaddleX builds it
    effort, theirs = _least_effort(peer, data.questions, ids, truth, target)
    log(f"FAISS HNSW32 built in {faiss_build:.1f} s; efSearch {effort}: recall {theirs:.4f}")
    contestants = {
        "ours": ours(space, per_product=False),
        "raw": raw(space, RAW, K),
        "bare": raw(space, BARE, K),
        "nothing": raw(space, NOTHING, K),
        "faiss": in_faiss(peer),
        "products": ours(space, per_product=True),
        "raw_products": raw(space, RAW_PRODUCTS, K),
    }
    if careful:
        least, found = _least_effort(careful, data.questions, ids, truth, target)
        contestants["careful_faiss"] = in_faiss(careful)
    times = duel(contestants, data.questions)
    if careful:
        subject.row.update(
            {
                "faiss_equal_construction_recall": found,
                "faiss_equal_construction_ef_search": least,
                "cpu_ratio_to_faiss_equal_construction": times["ours"].cpu_ratio(
                    times["careful_faiss"]
                ),
            }
        )
    log(", ".join(f"{name} {t.p50:.3f} ms (cpu {t.cpu_ms:.3f})" for name, t in times.items()))
    own, hand, inside = times["ours"], times["raw"], times["faiss"]
    subject.row.update(
        {
            f"recall_at_{K}": mine,
            f"products_recall_at_{K}": products_found,
            "p50_ms": own.p50,
            "p99_ms": own.p99,
            "cpu_ms": own.cpu_ms,
            "p50_ratio_to_raw_sql": own.ratio(hand),
            "p50_ratio_to_faiss_hnsw32": own.ratio(inside),
            "cpu_ratio_to_raw_sql": own.cpu_ratio(hand),
            "cpu_ratio_to_faiss_hnsw32": own.cpu_ratio(inside),
            "p50_ratio_to_bare_sql": own.ratio(times["bare"]),
            "raw_sql_p50_ms": hand.p50,
            "raw_sql_cpu_ms": hand.cpu_ms,
            "bare_sql_p50_ms": times["bare"].p50,
            "round_trip_p50_ms": times["nothing"].p50,
            "profile": profile(space, data.questions, K),
            "bare_sql_cpu_ms": times["bare"].cpu_ms,
            "faiss_p50_ms": inside.p50,
            "faiss_cpu_ms": inside.cpu_ms,
            "faiss_recall": theirs,
            "faiss_ef_search": effort,
            "faiss_build_s": faiss_build,
            "products_p50_ms": times["products"].p50,
            "products_p99_ms": times["products"].p99,
            "products_p50_ratio_to_raw_sql": times["products"].ratio(times["raw_products"]),
            "products_cpu_ratio_to_raw_sql": times["products"].cpu_ratio(times["raw_products"]),
        }
    )
    subject.row.update(_crops(space, data.questions))
    log("crops")


def _least_effort(
    index: faiss.Index,
    questions: Vectors,
    ids: NDArray[np.int64],
    truth: NDArray[np.int64],
    target: float,
) -> tuple[int, float]:
    """The least efSearch that reaches the recall (the greatest if none does), and its recall."""
    for effort in EFFORTS:
        index.hnsw.efSearch = effort
        reached = recall(ids[index.search(questions, K)[1]].tolist(), truth)
        if reached >= target:
            break
    return effort, reached


def _crops(space: VectorIndex, questions: Vectors) -> dict[str, Any]:
    """Milliseconds for each crop when m of them are asked in one round trip."""
    sizes, rounds = (1, 5, 20), 40
    times: dict[int, list[float]] = {m: [] for m in sizes}
    for turn in range(-5, rounds):
        for m in sizes:
            at = (turn * 20) % (len(questions) - 20)
            began = time.perf_counter()
            search.nearest([space], questions[at : at + m], limit=K)
            if turn >= 0:
                times[m].append(1e3 * (time.perf_counter() - began) / m)
    return {"ms_per_crop": {str(m): float(np.median(found)) for m, found in times.items()}}


def _under_load(space: VectorIndex, data: Clustered, log: _Log) -> dict[str, Any]:
    """Insert rate with the index in place, and the search meanwhile."""
    more = clustered(1000, seed=space.pk).vectors
    product = space.catalogue.products.order_by("pk").first()
    image_ids = spaces.add_images(space.catalogue, np.full(len(more), product.pk))
    took = []

    def insert() -> None:
        began = time.perf_counter()
        for start in range(0, len(more), 16):
            part = slice(start, start + 16)
            batch = image_ids[part].tolist()
            search.store(space, batch, [View.WHOLE] * len(batch), more[part])
        took.append(time.perf_counter() - began)
        connections.close_all()

    writer = threading.Thread(target=insert)
    ask, times = ours(space, per_product=False), []
    writer.start()
    row = 0
    while writer.is_alive():
        began = time.perf_counter()
        ask(data.questions[row : row + 1])
        times.append(1e3 * (time.perf_counter() - began))
        row = (row + 1) % len(data.questions)
    writer.join()
    spaces.remove_images(image_ids)
    figures = {
        "insert_rows_per_s_indexed": len(more) / took[0],
        "p50_ms_during_inserts": float(np.median(times)),
        "p99_ms_during_inserts": float(np.percentile(times, 99)),
    }
    log(f"while inserting: {figures}")
    return figures


def _after_deletes(
    space: VectorIndex, data: Clustered, ids: NDArray[np.int64], log: _Log
) -> dict[str, Any]:
    """Half of the images go; before and after the index was tended."""
    gone = np.random.default_rng(0).permutation(len(ids))[: len(ids) // 2]
    began = time.perf_counter()
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM recognition_galleryimage WHERE id = ANY(%s)", [ids[gone].tolist()]
        )
    figures: dict[str, Any] = {"delete_rows_per_s": len(gone) / (time.perf_counter() - began)}
    left = np.setdiff1d(np.arange(len(ids)), gone)
    truth = ids[left][_truth(Clustered(data.vectors[left], data.products[left], data.questions))]
    for name in ("after_deleting_half", "after_tending"):
        space.refresh_from_db()
        ask, times, answers = ours(space, per_product=False), [], []
        for row in range(len(data.questions)):
            began = time.perf_counter()
            answers.append(ask(data.questions[row : row + 1]))
            times.append(1e3 * (time.perf_counter() - began))
        figures[name] = {
            f"recall_at_{K}": recall(answers, truth),
            "p50_ms": float(np.median(times)),
            "p99_ms": float(np.percentile(times, 99)),
            "index_bytes": physical.size(space.index_name) if space.index_name else 0,
        }
        if name == "after_deleting_half":
            began = time.perf_counter()
            figures["tended"] = str(indexes.tend(space.pk))
            figures["tend_s"] = time.perf_counter() - began
    log(f"half deleted: {figures}")
    return figures


def _remove(space: VectorIndex) -> None:
    """Rows first by the table, because one by one takes minutes."""
    catalogue = space.catalogue
    for index in physical.existing(space.pk):
        physical.drop(index.name)
    search.remove_space(space)
    with connection.cursor() as cursor:
        for table in ("galleryimage", "product"):
            cursor.execute(
                f"DELETE FROM recognition_{table} WHERE catalogue_id = %s", [catalogue.pk]
            )
    catalogue.delete()


class _Log:
    """Progress on stderr, with the seconds since the size was begun."""

    def __init__(self, size: int) -> None:
        self.size, self.began = size, time.perf_counter()

    def __call__(self, text: str) -> None:
        seconds = time.perf_counter() - self.began
        print(f"{self.size:>9,} {seconds:7.1f} s  {text}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", default="10000", help="vectors, separated by commas")
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--json", type=Path, help="where the figures go; default: standard output")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="leave out inserts, deletes and FAISS built as carefully",
    )
    options = parser.parse_args()
    subjects: list[Subject] = []
    try:
        for size in map(int, options.sizes.split(",")):
            subjects.append(fill(size, options.questions))
            measure(subjects[-1], equal_build=not options.quick)
            _write(subjects, options.json)  # the next one may take an hour
        if len(subjects) > 1:
            measure_growth(subjects)
        for one in subjects:
            if not options.quick:
                one.row.update(_under_load(one.space, one.data, one.log))
                one.row.update(_after_deletes(one.space, one.data, one.ids, one.log))
            _write(subjects, options.json)
            one.log("done")
    finally:
        for one in subjects:
            _remove(one.space)
    if not options.json:
        print(_as_json(subjects))


def _write(subjects: Sequence[Subject], target: Path | None) -> None:
    if target:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_as_json(subjects) + "\n")


def _as_json(subjects: Sequence[Subject]) -> str:
    return json.dumps({"rows": [one.row for one in subjects]}, indent=2, default=float)


if __name__ == "__main__":
    main()
