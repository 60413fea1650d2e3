"""The networks known by name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

from recognition.errors import BadInput

Role = Literal["detector", "embedder"]

# PaddleX keeps these four nowhere else (paddlex/inference/utils/official_models.py).
OFFICIAL_URL = (
    "https://paddle-model-ecology.bj.bcebos.com/paddlex/official_inference_model/paddle3.0.0/"
    "{name}_infer.tar"
)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What is known of a network before it is installed.

    `paddlex_name` is the name PaddleX loads it under, which decides the predictor class;
    `dimension` is the documented length of its vectors, None for a detector. What counts is the
    length measured at installation (`InstalledModel.dimension`).
    """

    name: str
    role: Role
    paddlex_name: str
    dimension: int | None
    source: Literal["official", "starter"]
    url: str | None
    description: str


def _official(name: str, role: Role, dimension: int | None, description: str) -> ModelSpec:
    return ModelSpec(
        name, role, name, dimension, "official", OFFICIAL_URL.format(name=name), description
    )


MODELS: MappingProxyType[str, ModelSpec] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            _official(
                "PP-ShiTuV2_det",
                "detector",
                None,
                "Main-body detector of PP-ShiTuV2 (PicoDet, LCNet x2.5, 640 px; 27.5 MB)",
            ),
            _official(
                "PP-ShiTuV2_rec",
                "embedder",
                512,
                "Features of PP-ShiTuV2 (PP-LCNetV2 base; 16.3 MB)",
            ),
            _official(
                "PP-ShiTuV2_rec_CLIP_vit_base",
                "embedder",
                512,
                "More accurate and slower features (CLIP ViT-B/16; 307 MB)",
            ),
            _official(
                "PP-ShiTuV2_rec_CLIP_vit_large",
                "embedder",
                512,
                "Most accurate and slowest features (CLIP ViT-L/14; 1.05 GB)",
            ),
            ModelSpec(
                "starter_det",
                "detector",
                "PP-ShiTuV2_det",
                None,
                "starter",
                None,
                "Starter detector, a stand-in: EfficientNet-Lite0 trunk, small head, 320 px",
            ),
            ModelSpec(
                "starter_rec",
                "embedder",
                "PP-ShiTuV2_rec",
                512,
                "starter",
                None,
                "Starter features, a stand-in: EfficientNet-Lite0 trained on ImageNet, not on "
                "products",
            ),
        )
    }
)

INT8_SUFFIX = "-int8"  # of a model's name: its quantised twin, see quantisation.py
DEFAULT_PADDLEX_NAME: dict[Role, str] = {"detector": "PP-ShiTuV2_det", "embedder": "PP-ShiTuV2_rec"}


def check_name(name: str) -> str:
    """`name` if a model may be called so, which also makes it a safe directory name.

    Raises BadInput.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise BadInput(
            f"{name!r} cannot name a model: use up to 64 letters, digits, '.', '_' and '-', "
            "starting with a letter or digit.",
            field="name",
        )
    return name


def check_role(role: str) -> Role:
    """`role` if it is one; raises BadInput."""
    for known in get_args(Role):
        if role == known:
            return known
    raise BadInput(
        f"{role!r} is not a role: choose one of {', '.join(get_args(Role))}.", field="role"
    )


def ways_out(name: str) -> str:
    """What somebody can do who lacks the model `name`, in one sentence."""
    spec = MODELS.get(name)
    if spec is None and name.endswith(INT8_SUFFIX):
        return (
            f"Make it with `./manage.py models quantise {name.removesuffix(INT8_SUFFIX)}`, or copy "
            "its directory from where that was done: made anew, its weights are others."
        )
    if spec is not None and spec.source == "starter":
        return "Build the starter models with `./manage.py models build-starter`."
    role = spec.role if spec else "ROLE"
    add = f"`./manage.py models add {name} --role {role} --dir DIR`"
    if spec is None:
        return f"Add the directory of its network with {add}."
    return (
        f"Three ways out: `./manage.py models fetch {name}` downloads it; "
        f"`./manage.py models fetch {name} --from FILE.tar` installs an archive carried by hand; "
        f"{add} takes a directory of your own."
    )
