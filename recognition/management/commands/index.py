"""`manage.py index`: see, build, change, measure and explain the vector index of a catalogue."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from recognition.errors import RecognitionError
from recognition.models import Catalogue, GalleryImage, IndexType, Metric, VectorIndex
from recognition.services import catalogues, index_jobs, indexes


class Command(BaseCommand):
    help = "The vector index of a catalogue: stats, tend, rebuild, set, recall, explain."

    def add_arguments(self, parser: ArgumentParser) -> None:
        acts = parser.add_subparsers(dest="act", required=True)

        def act(name: str, help: str) -> ArgumentParser:
            made = acts.add_parser(name, help=help)
            made.add_argument("catalogue", help="key or name")
            return made

        act("stats", "what there is: vectors, bytes, type, state, recall, version").add_argument(
            "--json", action="store_true"
        )
        acts.add_parser("tend", help="give every catalogue the index its size asks for, now")
        act("rebuild", "build the index anew beside the old one, then switch")
        change = act("set", "choose metric, type and parameters")
        change.add_argument("--metric", choices=Metric.values)
        change.add_argument("--type", choices=IndexType.values)
        change.add_argument("--m", type=int, help="HNSW: links per vector")
        change.add_argument("--ef-construction", type=int, help="HNSW: care taken in building")
        change.add_argument("--lists", type=int, help="IVF: number of lists")
        change.add_argument("--recall-target", type=float, help="share to be found, 0.5 to 1")
        act("recall", "measure how much of the exact answer the index finds")
        explain = act("explain", "how PostgreSQL finds the neighbours of one of its images")
        explain.add_argument("--image", type=int, help="number of the image; default: the first")
        explain.add_argument("--limit", type=int, default=5)
        explain.add_argument("--exact", action="store_true", help="without the index")

    def handle(self, *args: Any, act: str, **options: Any) -> None:
        try:
            if act == "tend":
                for space_id, done in indexes.tend_all().items():
                    self.stdout.write(f"space {space_id}: {done}")
                return
            catalogue = catalogues.find(options["catalogue"])
            getattr(self, f"_{act}")(catalogue, options)
        except RecognitionError as error:
            raise CommandError(error.message) from error

    def _stats(self, catalogue: Catalogue, options: dict[str, Any]) -> None:
        found = indexes.statistics(catalogue)
        if options["json"]:
            spaces = [asdict(space) for space in found]
            self.stdout.write(json.dumps(spaces, indent=2, default=str, ensure_ascii=False))
            return
        for space in found:
            self.stdout.write(f"{space.feature_model}{'' if space.current else ' (not in use)'}")
            for name, value in asdict(space).items():
                if name not in ("feature_model", "current") and value not in (None, "", {}):
                    self.stdout.write(f"  {name.replace('_', ' '):20} {_readable(value)}")

    def _rebuild(self, catalogue: Catalogue, options: dict[str, Any]) -> None:
        self._tend(catalogue.require_index(), rebuild=True)

    def _set(self, catalogue: Catalogue, options: dict[str, Any]) -> None:
        space = index_jobs.change(
            catalogue,
            metric=options["metric"],
            index_type=options["type"],
            m=options["m"],
            ef_construction=options["ef_construction"],
            lists=options["lists"],
            recall_target=options["recall_target"],
        )
        self._tend(space)

    def _recall(self, catalogue: Catalogue, options: dict[str, Any]) -> None:
        sample = indexes.measure_recall(catalogue.require_index().pk)
        if sample is None:
            self.stdout.write("no index: every answer is exact")
            return
        self.stdout.write(
            f"recall@{sample.k} {sample.recall:.3f} over {sample.questions} questions, "
            f"{sample.indexed_ms:.2f} ms by index, {sample.exact_ms:.2f} ms exactly"
        )
        if sample.raised_to:
            self.stdout.write(
                f"too little, so the effort went from {sample.effort} to {sample.raised_to}: "
                f"{sample.recall_after:.3f}"
            )

    def _explain(self, catalogue: Catalogue, options: dict[str, Any]) -> None:
        space = catalogue.require_index()
        images = GalleryImage.objects.filter(catalogue=catalogue, embeddings__space=space)
        if options["image"] is not None:
            images = images.filter(number=options["image"])
        image = images.order_by("pk").first()
        if image is None:
            raise CommandError("no such image has a vector in this catalogue")
        for line in index_jobs.explain(image, limit=options["limit"], exact=options["exact"]):
            self.stdout.write(line)

    def _tend(self, space: VectorIndex, *, rebuild: bool = False) -> None:
        done = indexes.tend(space.pk, rebuild=rebuild)
        if done is indexes.Tended.FAILED:
            space.refresh_from_db()
            raise CommandError(f"the index could not be built: {space.build_error}")
        if done is indexes.Tended.BUSY:
            raise CommandError("another index is being built; the next round will take this one")
        self.stdout.write(f"index {done}")


def _readable(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)
