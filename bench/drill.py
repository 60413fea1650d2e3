"""Many writers and readers on one catalogue; every answer must have been true at some moment.

    .venv/bin/python bench/drill.py --writers 16 --readers 16 --seconds 60

Every change is remembered under the catalogue version it made. An answer says which version it was
read at, so afterwards the catalogue is played back and each answer is held against what was true
then: no removed picture, no missing one, no old label. Writers add, remove, relabel, merge and
switch products off; readers must never see a version older than one that was acknowledged before
they asked. Uses the project's database and cleans up behind itself.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

if __name__ == "__main__":
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shitu_site.settings")
    django.setup()

from django.db import connections, transaction  # noqa: E402

from bench import spaces  # noqa: E402
from bench.vectors import Vectors, clustered, random_unit  # noqa: E402
from recognition import search  # noqa: E402
from recognition.models import GalleryImage, Product, VectorIndex, View  # noqa: E402
from recognition.search import physical  # noqa: E402

LIMIT = 5
HALF = 2e-3  # similarities of half precision may differ by this much from float32


@dataclass
class Change:
    """What one committed transaction did: pictures put under a product (None: removed), products
    named (None: removed) or switched on or off.
    """

    product_of: dict[int, int | None] = field(default_factory=dict)
    vector_of: dict[int, Vectors] = field(default_factory=dict)
    label_of: dict[int, str | None] = field(default_factory=dict)
    active: dict[int, bool] = field(default_factory=dict)


@dataclass
class Answer:
    asked: int
    version: int
    least_version: int
    neighbours: list[search.Neighbour]


@dataclass
class Outcome:
    changes: Counter[str]
    answers: int
    recall: float
    wrong: list[str]


class Drill:
    """One catalogue under load; `check` plays it back."""

    def __init__(self, space: VectorIndex, start: Change, questions: Vectors) -> None:
        self.space, self.questions = space, questions
        self.catalogue_id = space.catalogue_id
        space.catalogue.refresh_from_db()
        self.history: dict[int, Change] = {space.catalogue.version: start}
        self.acknowledged = space.catalogue.version
        self.answers: list[Answer] = []
        self.done: Counter[str] = Counter()
        self.errors: list[str] = []
        self.stop = threading.Event()
        self.lock = threading.Lock()

    def run(
        self,
        writers: int,
        readers: int,
        seconds: float,
        enough: Callable[[], bool] = lambda: True,
    ) -> None:
        """Readers and writers side by side: for `seconds`, and from there on until `enough`."""
        threads = [
            threading.Thread(target=self._until_stopped, args=(work, random.Random(seed)))
            for seed, work in enumerate([self._write] * writers + [self._read] * readers)
        ]
        for thread in threads:
            thread.start()
        self.stop.wait(seconds)
        while not (self.stop.is_set() or enough()):
            self.stop.wait(0.1)
        self.stop.set()
        for thread in threads:
            thread.join()

    def _until_stopped(self, work, rng: random.Random) -> None:
        try:
            while not self.stop.is_set():
                work(rng)
        except Exception as error:  # noqa: BLE001  (a drill reports whatever went wrong)
            self.errors.append(f"{work.__name__}: {error!r}")
            self.stop.set()
        finally:
            connections.close_all()

    def _read(self, rng: random.Random) -> None:
        asked = rng.randrange(len(self.questions))
        with self.lock:
            least = self.acknowledged
        found = search.nearest([self.space], self.questions[asked : asked + 1], limit=LIMIT)
        self.answers.append(
            Answer(asked, found.versions[self.catalogue_id], least, found.neighbours[0])
        )

    def _write(self, rng: random.Random) -> None:
        act = rng.choice(
            [self._add, self._add, self._remove, self._relabel, self._merge, self._switch]
        )
        change = Change()
        catalogue = type(self.space.catalogue)(pk=self.catalogue_id)
        with transaction.atomic():
            # Writers decide by what is there, so they take turns; readers never wait.
            type(catalogue).objects.select_for_update().get(pk=self.catalogue_id)
            act(rng, change)
            version = catalogue.touch()
        with self.lock:
            self.history[version] = change
            self.acknowledged = max(self.acknowledged, version)
        self.done[act.__name__.strip("_")] += 1

    def _some(self, rng: random.Random, rows) -> int | None:
        ids = list(rows.values_list("pk", flat=True)[:2000])
        return rng.choice(ids) if ids else None

    def _images(self):
        return GalleryImage.objects.filter(catalogue_id=self.catalogue_id).order_by("-pk")

    def _products(self):
        return Product.objects.filter(catalogue_id=self.catalogue_id).order_by("-pk")

    def _add(self, rng: random.Random, change: Change) -> None:
        """Pictures close to a question, under a product there is or a new one."""
        product = self._some(rng, self._products())
        if product is None or rng.random() < 0.3:
            made = Product.objects.create(
                catalogue_id=self.catalogue_id, label=f"new {rng.getrandbits(64):x}"
            )
            product = made.pk
            change.label_of[product], change.active[product] = made.label, True
        near = self.questions[rng.randrange(len(self.questions))]
        vectors = near + 0.4 * random_unit(3, len(near), seed=rng.getrandbits(32))
        vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        ids = spaces.add_images(self.space.catalogue, np.full(3, product)).tolist()
        search.store(self.space, ids, [View.WHOLE] * 3, vectors)
        change.product_of.update(dict.fromkeys(ids, product))
        change.vector_of.update(zip(ids, vectors, strict=True))

    def _remove(self, rng: random.Random, change: Change) -> None:
        image = self._some(rng, self._images())
        if image is not None:
            GalleryImage.objects.filter(pk=image).delete()
            change.product_of[image] = None

    def _relabel(self, rng: random.Random, change: Change) -> None:
        """A picture goes to another product, and that gets another name."""
        image, product = self._some(rng, self._images()), self._some(rng, self._products())
        if image is not None and product is not None:
            GalleryImage.objects.filter(pk=image).update(product_id=product)
            label = f"renamed {rng.getrandbits(64):x}"
            Product.objects.filter(pk=product).update(label=label)
            change.product_of[image], change.label_of[product] = product, label

    def _merge(self, rng: random.Random, change: Change) -> None:
        one, other = self._some(rng, self._products()), self._some(rng, self._products())
        if one is None or other is None or one == other:
            return
        moved = list(GalleryImage.objects.filter(product_id=one).values_list("pk", flat=True))
        GalleryImage.objects.filter(pk__in=moved).update(product_id=other)
        Product.objects.filter(pk=one).delete()
        change.product_of.update(dict.fromkeys(moved, other))
        change.label_of[one] = None

    def _switch(self, rng: random.Random, change: Change) -> None:
        product = self._some(rng, self._products())
        if product is not None:
            change.active[product] = rng.random() < 0.7
            Product.objects.filter(pk=product).update(is_active=change.active[product])

    def check(self, *, least_recall: float = 1.0) -> Outcome:
        """Play the changes back and hold every answer against its version."""
        wrong = list(self.errors)
        played = _Catalogue()
        versions = sorted(self.history)
        at, hits, total = 0, 0, 0
        for answer in sorted(self.answers, key=lambda answer: answer.version):
            while at < len(versions) and versions[at] <= answer.version:
                played.apply(self.history[versions[at]])
                at += 1
            if answer.version < answer.least_version:
                wrong.append(
                    f"read version {answer.version} after {answer.least_version} was acknowledged"
                )
            right, wanted = played.compare(self.questions[answer.asked], answer, wrong)
            hits, total = hits + right, total + wanted
        found = hits / total if total else 1.0
        if found < least_recall:
            wrong.append(f"only {found:.4f} of what was there was found")
        return Outcome(self.done, len(self.answers), found, wrong)


class _Catalogue:
    """What was true at one version."""

    def __init__(self) -> None:
        self.row: dict[int, int] = {}
        self.images: list[int] = []
        self.vectors = np.zeros((0, 0), dtype=np.float32)
        self.product_of: dict[int, int] = {}
        self.label_of: dict[int, str] = {}
        self.active: dict[int, bool] = {}

    def apply(self, change: Change) -> None:
        for image, vector in change.vector_of.items():
            self.row[image] = len(self.images)
            self.images.append(image)
            if len(self.images) > len(self.vectors):  # grows by doubling
                more = np.zeros((2 * len(self.images), len(vector)), dtype=np.float32)
                more[: len(self.vectors)] = self.vectors if len(self.vectors) else 0
                self.vectors = more
            self.vectors[self.row[image]] = vector
        for mine, theirs in (
            (self.product_of, change.product_of),
            (self.label_of, change.label_of),
            (self.active, change.active),
        ):
            for key, value in theirs.items():
                if value is None:
                    mine.pop(key, None)
                else:
                    mine[key] = value

    def compare(self, question: Vectors, answer: Answer, wrong: list[str]) -> tuple[int, int]:
        """(how many of the true products were found, how many there are); faults go to `wrong`."""
        scores = self.vectors[: len(self.images)] @ question
        best: dict[int, float] = {}
        for row in np.argsort(-scores):
            product = self.product_of.get(self.images[row])
            if product is not None and self.active[product]:
                best.setdefault(product, float(scores[row]))
                if len(best) > LIMIT and scores[row] < list(best.values())[LIMIT - 1] - HALF:
                    break
        exact = list(best.values())[:LIMIT]
        for neighbour in answer.neighbours:
            about = f"version {answer.version}: image {neighbour.image_id}"
            product = self.product_of.get(neighbour.image_id)
            if product is None:
                wrong.append(f"{about} was removed")
            elif product != neighbour.product_id or not self.active[product]:
                wrong.append(f"{about} was not of product {neighbour.product_id}")
            elif self.label_of[product] != neighbour.label:
                wrong.append(f"{about} was not called {neighbour.label}")
            elif abs(scores[self.row[neighbour.image_id]] - neighbour.similarity) > HALF:
                wrong.append(f"{about} did not have similarity {neighbour.similarity}")
        if len({neighbour.product_id for neighbour in answer.neighbours}) != len(exact):
            wrong.append(
                f"version {answer.version}: {len(answer.neighbours)} of {len(exact)} products"
            )
        least = exact[-1] - HALF if exact else 0.0
        return sum(n.similarity >= least for n in answer.neighbours), len(exact)


def prepare(size: int, *, dimension: int = 64, questions: int = 50) -> Drill:
    """A catalogue of `size` pictures and its drill; index it or not before `run`."""
    data = clustered(size, questions, dimension=dimension, views=5, seed=size)
    space = spaces.make_space(dimension)
    ids = spaces.fill(space, data.vectors, data.products).tolist()
    product_ids = dict(GalleryImage.objects.filter(pk__in=ids).values_list("pk", "product_id"))
    labels = dict(space.catalogue.products.values_list("pk", "label"))
    start = Change(
        product_of=dict(product_ids),
        vector_of=dict(zip(ids, data.vectors, strict=True)),
        label_of=dict(labels),
        active=dict.fromkeys(labels, True),
    )
    return Drill(space, start, data.questions)


def main() -> None:
    from recognition.services import indexes

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--writers", type=int, default=16)
    parser.add_argument("--readers", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--size", type=int, default=8000, help="pictures at the start")
    options = parser.parse_args()
    drill = prepare(options.size)
    try:
        print("index:", indexes.tend(drill.space.pk))
        drill.space.refresh_from_db()
        drill.run(options.writers, options.readers, options.seconds)
        exact = drill.space.index_name == ""
        outcome = drill.check(least_recall=0.9999 if exact else 0.99)
        print(f"changes: {dict(outcome.changes)}")
        print(f"answers: {outcome.answers}, recall@{LIMIT} {outcome.recall:.4f}")
        for line in outcome.wrong[:20]:
            print("WRONG:", line)
        print(f"{len(outcome.wrong)} wrong")
    finally:
        for index in physical.existing(drill.space.pk):
            physical.drop(index.name)
        drill.space.catalogue.delete()
    sys.exit(1 if outcome.wrong else 0)


if __name__ == "__main__":
    main()
