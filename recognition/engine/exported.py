"""What somebody gives us to install: an archive or a directory as PaddleX exports it, checked."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from recognition.engine.installed import (
    FLOAT32,
    INT8,
    MODEL_FILES,
    NETWORKS,
    ONNX,
    OPENVINO_IR,
    SETTINGS,
    WEIGHTS,
)
from recognition.engine.registry import Role
from recognition.errors import BadInput, TooLarge

MAX_MODEL_BYTES = 8 * 2**30  # the largest official one has 1.05 GB
MAX_MEMBERS = 1000


def unpack(archive: Path, stage: Path) -> None:
    """Take the model files out of a tar archive, whatever folder they lie in.

    Only files with the names of `MODEL_FILES` are written, and only directly into `stage`. An
    archive with links, devices, paths that lead outside, or too much in it is refused as a whole:
    PaddleX extracts whatever it is given. Raises BadInput, TooLarge.
    """
    total = 0
    try:
        with tarfile.open(archive) as tar:
            for number, member in enumerate(tar):
                parts = Path(member.name).parts
                if not (member.isfile() or member.isdir()) or member.issparse():
                    raise BadInput(f"{member.name!r} in the archive is no ordinary file.")
                if Path(member.name).is_absolute() or ".." in parts:
                    raise BadInput(f"{member.name!r} in the archive leads out of it.")
                total += member.size
                if total > MAX_MODEL_BYTES or number >= MAX_MEMBERS:
                    raise TooLarge(
                        f"The archive holds more than {MAX_MODEL_BYTES >> 30} GiB or "
                        f"{MAX_MEMBERS} entries: no model does."
                    )
                source = tar.extractfile(member)
                if source is None or parts[-1] not in MODEL_FILES:
                    continue
                with source, (stage / parts[-1]).open("xb") as target:
                    shutil.copyfileobj(source, target, 2**20)
    except FileExistsError as error:
        raise BadInput(f"The archive holds {Path(error.filename).name} twice.") from error
    except (tarfile.TarError, EOFError) as error:
        raise BadInput(f"The file is not a complete tar archive: {error}.") from error


def read_settings(stage: Path, role: Role) -> dict[str, Any]:
    """`inference.yml` of a complete model directory with that role; raises BadInput."""
    present = {path.name for path in stage.iterdir()}
    has_paddle = WEIGHTS in present and any(network in present for network in NETWORKS)
    has_other = ONNX in present or present.issuperset(OPENVINO_IR)
    if SETTINGS not in present or not (has_paddle or has_other):
        raise BadInput(
            "This is no model as PaddleX exports it: it needs inference.yml and either "
            "inference.json (or .pdmodel) with inference.pdiparams, or inference.onnx, or "
            "inference.xml with inference.bin; found "
            f"{', '.join(sorted(present)) or 'none of them'}.",
            field="dir",
        )
    try:
        settings = yaml.safe_load((stage / SETTINGS).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"inference.yml cannot be read: {error}", field="dir") from error
    sections = settings if isinstance(settings, dict) else {}
    if role == "embedder":
        steps = (sections.get("PreProcess") or {}).get("transform_ops") or []
        names = {name for step in steps for name in step}
        missing = {"ResizeImage", "NormalizeImage", "ToCHWImage"} - names
        if "NormalizeFeatures" not in (sections.get("PostProcess") or {}):
            missing.add("NormalizeFeatures")
    else:
        missing = {"Preprocess", "label_list"} - sections.keys()
    if missing:
        raise BadInput(
            f"inference.yml is not that of a {role}: it lacks {', '.join(sorted(missing))}.",
            field="role",
        )
    return sections


def preprocessing(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The part of `inference.yml` that decides what a network sees and answers."""
    sections = ("Preprocess", "PreProcess", "PostProcess", "label_list", "draw_threshold")
    return {section: settings[section] for section in sections if section in settings}


def precision(stage: Path) -> str:
    """Of the arithmetic of the network in `stage`: INT8 when it is quantised, else FLOAT32."""
    network = stage / OPENVINO_IR[0]
    quantised = network.is_file() and b'type="FakeQuantize"' in network.read_bytes()
    return INT8 if quantised else FLOAT32
