"""A model on disk: its files, its manifest, its identity. Loads no paddle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from recognition.engine.registry import Role, ways_out
from recognition.errors import BadInput, ModelUnavailable

MANIFEST = "shitu.json"
SETTINGS = "inference.yml"
NETWORKS = ("inference.json", "inference.pdmodel")
WEIGHTS = "inference.pdiparams"
ONNX = "inference.onnx"
OPENVINO_IR = ("inference.xml", "inference.bin")
MODEL_FILES = (SETTINGS, *NETWORKS, WEIGHTS, ONNX, *OPENVINO_IR)
FLOAT32, INT8 = "float32", "int8"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file of a model: its size in bytes and sha256."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """A model that is on disk.

    `digest` (sha256, 64 hex digits) is its identity: two machines with the same digest make the
    same vectors. It is taken over network, weights and `inference.yml` as they were given, never
    over files an engine makes from them; for the starter models, which every machine builds for
    itself, over what they are built from. `dimension` is measured (None for a detector),
    `preprocessing` is the part of `inference.yml` that says so, `origin` tells where it is from,
    `precision` is that of the arithmetic, FLOAT32 or INT8.
    """

    name: str
    role: Role
    paddlex_name: str
    directory: Path
    digest: str
    dimension: int | None
    preprocessing: Mapping[str, Any]
    files: Mapping[str, StoredFile]
    origin: Mapping[str, str] = field(default_factory=dict)
    precision: str = FLOAT32

    def has(self, *names: str) -> bool:
        """Whether all these files belong to the model."""
        return all(name in self.files for name in names)

    def verify(self) -> None:
        """Read every file and compare; raises ModelUnavailable when one was changed.

        Takes about half a second per gigabyte.
        """
        for name, stored in self.files.items():
            path = self.directory / name
            if not path.is_file() or sha256(path) != stored.sha256:
                raise damaged(self.name, name)


def not_a(role: Role, model: InstalledModel) -> BadInput:
    """The error of using a model for what it does not do."""
    noun = {"detector": "a detector", "embedder": "an embedder"}
    return BadInput(f"{model.name} is not {noun[role]} but {noun[model.role]}.", field="name")


def weights_digest(files: Mapping[str, StoredFile]) -> str:
    """The identity of a model: sha256 over name and sha256 of each file that defines it.

    `inference.onnx` counts only where there is no Paddle network, because otherwise it is a
    conversion, and converters differ between versions.
    """
    paddle = [file for file in files if file in (*NETWORKS, WEIGHTS)]
    network = paddle or [file for file in files if file in (ONNX, *OPENVINO_IR)]
    lines = [f"{file} {files[file].sha256}\n" for file in sorted([SETTINGS, *network])]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def read_manifest(directory: Path) -> InstalledModel:
    """The model that `directory` holds, by its manifest alone. Raises ModelUnavailable."""
    try:
        manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        files = {name: StoredFile(**stored) for name, stored in manifest.pop("files").items()}
        return InstalledModel(directory=directory, files=files, **manifest)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise damaged(directory.name, MANIFEST) from error


def write_manifest(stage: Path, model: InstalledModel, *, dimension: int | None = None) -> None:
    """Write the manifest of a model whose files are in `stage`."""
    manifest = asdict(model) | {"dimension": dimension}
    del manifest["directory"]
    text = json.dumps(manifest, indent=2, ensure_ascii=False, sort_keys=True)
    partial = stage / f"{MANIFEST}.new"
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(stage / MANIFEST)


def sha256(path: Path) -> str:
    """Of the bytes of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def damaged(name: str, file: str) -> ModelUnavailable:
    """The error of a model that lacks `file`, or has another one."""
    return ModelUnavailable(
        f"The model {name} is damaged: {file} is missing or not what was installed. Install it "
        f"again. {ways_out(name)}"
    )
