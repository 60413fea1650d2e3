"""Which pair of networks a measurement runs, and where they lie."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from recognition.engine.registry import INT8_SUFFIX
from recognition.engine.starter import build_starter
from recognition.engine.store import ModelStore

ROOT = Path(__file__).resolve().parent.parent
STARTER, ARCHEXACT = "starter", "archexact"


@dataclass(frozen=True, slots=True)
class Pair:
    """Names of a detector and a feature model in the models directory `root`."""

    name: str
    root: Path
    detector: str
    embedder: str

    def ours(self, precision: str) -> Pair:
        """The pair in that precision; PaddleX always runs the float one."""
        suffix = INT8_SUFFIX if precision == "int8" else ""
        return Pair(self.name, self.root, self.detector + suffix, self.embedder + suffix)


def add_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--models",
        default=STARTER,
        metavar="starter|archexact|DIR",
        help="DIR holds PP-ShiTuV2_det and PP-ShiTuV2_rec as PaddleX exports them",
    )


def prepare(text: str) -> Pair:
    """The pair that `--models` names, built or installed if it is not there yet."""
    if text == STARTER:
        store = ModelStore(ROOT / "var" / "models")
        build_starter(store)
        return Pair(STARTER, store.root, "starter_det", "starter_rec")
    if text == ARCHEXACT:
        from bench import archexact

        return Pair(ARCHEXACT, archexact.build(), archexact.DETECTOR, archexact.EMBEDDER)
    directory = Path(text)
    store = ModelStore(ROOT / "var" / "bench" / f"models-{directory.resolve().name}")
    names = {"detector": "PP-ShiTuV2_det", "embedder": "PP-ShiTuV2_rec"}
    for role, name in names.items():
        store.add_directory(name, role, directory / name)
    return Pair(directory.name, store.root, names["detector"], names["embedder"])
