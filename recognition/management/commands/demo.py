"""The main job from end to end, with figures."""

from __future__ import annotations

import json
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from tqdm import tqdm

from recognition import drawing
from recognition.errors import RecognitionError
from recognition.management.workers import worker_running
from recognition.services import pictures, queries, setup, showcase


class Command(BaseCommand):
    help = "Render pictures, build a catalogue, recognise test pictures, print how well it went."
    requires_system_checks: list[str] = []  # the first step makes them pass

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--output", type=Path, default=settings.BASE_DIR / "output")

    def handle(self, *, output: Path, **options: Any) -> None:
        started = time.monotonic()
        try:
            setup.set_up(self.stdout.write)
            admin, _ = setup.ensure_admin(with_password=False)
            self.stdout.write("rendering the demo pictures (once)")
            demo = showcase.pictures()
            with worker_running(self.stdout):
                call_command(
                    "build_index",
                    catalogue=showcase.NAME,
                    gallery=demo.directory,
                    labels=demo.gallery_list,
                    user=admin.username,
                    stdout=self.stdout,
                )
                self._recognise(demo, admin, output)
        except RecognitionError as error:
            raise CommandError(error.message) from error
        self.stdout.write(f"\nall of it took {time.monotonic() - started:.0f} s")

    def _recognise(self, demo: Any, admin: Any, output: Path) -> None:
        catalogue = showcase.catalogues.find(showcase.NAME, user=admin)
        asked = [*demo.singles, *demo.scenes]
        started = time.monotonic()
        shown = list(
            tqdm(
                showcase.ask(catalogue, asked, by=admin),
                total=len(asked),
                desc="recognise",
                unit="picture",
            )
        )
        seconds = time.monotonic() - started
        report = showcase.figures(shown[: len(demo.singles)], shown[len(demo.singles) :])
        self._save(shown, output)
        self._print(shown, report, seconds, output)

    def _save(self, shown: list[showcase.Shown], output: Path) -> None:
        output.mkdir(parents=True, exist_ok=True)
        for one in shown:
            result = queries.paddlex_result(one.query, input_path=str(one.picture.path))
            (output / drawing.saved_json_name(one.picture.path)).write_text(
                json.dumps(result, indent=2, ensure_ascii=False) + "\n"
            )
            shown_label = one.query.catalogue.shown_label
            annotated = pictures.annotated(one.query, shown=shown_label)
            (output / drawing.saved_picture_name(one.picture.path)).write_bytes(annotated)

    def _print(
        self, shown: list[showcase.Shown], report: Any, seconds: float, output: Path
    ) -> None:
        width = max(len(one.picture.path.name) for one in shown)
        self.stdout.write(f"\n{'picture':<{width}}  right  truth -> answers (score)")
        for one in shown:
            truth = ", ".join(region.label or "?" for region in one.picture.truth)
            answer = ", ".join(
                f"{box['labels'][0]} ({box['rec_scores'][0]:.2f})"
                if box["labels"][0]
                else "unknown"
                for box in queries.paddlex_result(one.query)["res"]["boxes"]
            )
            right = f"{showcase.right(one)}/{len(one.picture.truth)}"
            self.stdout.write(f"{one.picture.path.name:<{width}}  {right:<5}  {truth} -> {answer}")
        self.stdout.write("")
        for name, value in report.as_rows():
            self.stdout.write(f"{name:<36} {value}")
        stages: dict[str, list[float]] = {}
        for one in shown:
            for stage, value in one.query.timings.items():
                stages.setdefault(stage, []).append(value)
        for stage, values in stages.items():
            median = sorted(values)[len(values) // 2]
            self.stdout.write(f"{'ms in ' + stage + ' (median, batched)':<36} {median:.1f}")
        self.stdout.write(f"{'pictures per second':<36} {len(shown) / seconds:.1f}")
        model = shown[0].query.answered_with["feature_model"]
        self.stdout.write(
            f"{'answered with':<36} {model['name']} {model['digest'][:12]} on {model['device']}, "
            f"{model['engine']}"
        )
        self.stdout.write(f"{'annotated pictures and JSON':<36} {output}")
