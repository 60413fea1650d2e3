"""PaddleX's configuration file, for the site (SHITU_PIPELINE_CONFIG) or for one catalogue."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import structlog
from django.conf import settings

from recognition import pipeline_file
from recognition.engine.installed import (
    INT8,
    MODEL_FILES,
    InstalledModel,
    StoredFile,
    not_a,
    weights_digest,
)
from recognition.engine.registry import INT8_SUFFIX, MODELS, Role
from recognition.engine.store import ModelStore
from recognition.errors import BadInput, Conflict
from recognition.models import Catalogue, Metric
from recognition.pipeline_file import ModelConfig, PipelineConfig

log = structlog.get_logger(__name__)

_INDEX_FILES: Final = ("vector.index", "id_map.yaml")


def site() -> PipelineConfig | None:
    """The configuration of the site, None without SHITU_PIPELINE_CONFIG; read again when it was
    changed. Raises BadInput naming every key that cannot be used."""
    if not settings.SHITU_PIPELINE_CONFIG:
        return None
    path = Path(settings.SHITU_PIPELINE_CONFIG)
    try:
        changed = path.stat().st_mtime_ns
    except OSError as error:
        raise BadInput(
            f"SHITU_PIPELINE_CONFIG names {path.name}, which cannot be read ({error.strerror})"
        ) from error
    return _read(path, changed)


@lru_cache(maxsize=4)
def _read(path: Path, changed: int) -> PipelineConfig:
    config = pipeline_file.read(path)
    for remark in config.remarks:
        log.warning("pipeline_config_key_ignored", file=path.name, key=remark)
    return config


def site_options() -> dict[str, Any]:
    """Options of `catalogues.create` that the site's configuration decides; none without one."""
    config = site()
    return {} if config is None else options(config)


def site_index() -> Path | None:
    """The saved index that requests without an index mean."""
    config = site()
    return config.index if config else None


def site_visualize() -> bool:
    """Whether an answer brings its picture when the request does not say."""
    config = site()
    return config.visualize if config else True


def options(config: PipelineConfig) -> dict[str, Any]:
    """The configuration as options of `catalogues.create`.

    Fine-tuned weights (`model_dir`) are installed at first use. Raises ModelUnavailable, or
    BadInput for a directory that holds no model of that kind.
    """
    return {
        "detector": installed(config.detection, "detector").name,
        "feature_model": installed(config.recognition, "embedder").name,
        "det_threshold": config.det_threshold,
        "rec_threshold": config.rec_threshold,
        "top_k": config.rec_topk,
    }


def installed(part: ModelConfig, role: Role) -> InstalledModel:
    """The installed model that a part of the configuration means.

    A `model_dir` whose files no installed model has is installed as `<model_name>-<8 digits of its
    weights' hash>`, so other weights are another feature model and their vectors never meet. Raises
    ModelUnavailable, BadInput.
    """
    store = ModelStore(settings.SHITU_MODELS_DIR)
    if part.model_dir is None:
        model = store.get(part.model_name)
    elif (present := _of_files(store, part.model_dir)) is not None:
        model = present
    else:
        name = f"{part.model_name}-{_weights(part.model_dir)[:8]}"
        model = store.add_directory(name, role, part.model_dir)
    if model.role != role:
        raise not_a(role, model)
    return model


def _identity(part: ModelConfig) -> str:
    """The digest of `installed(part, ...)`, without installing anything."""
    store = ModelStore(settings.SHITU_MODELS_DIR)
    if part.model_dir is None:
        return store.get(part.model_name).digest
    present = _of_files(store, part.model_dir)
    return present.digest if present else _weights(part.model_dir)


def _of_files(store: ModelStore, directory: Path) -> InstalledModel | None:
    """The installed model whose files are in `directory`, which may be its own.

    Files and not identities are compared: what this machine makes, such as the starter models, has
    an identity that its files do not tell. Raises ModelUnavailable, BadInput.
    """
    if directory.resolve().parent == store.root.resolve():
        return store.get(directory.name)  # as `effective` wrote it
    weights = _weights(directory)
    return next(
        (model for model in store.installed() if weights_digest(model.files) == weights), None
    )


def _weights(directory: Path) -> str:
    files = {
        name: StoredFile((directory / name).stat().st_size, _sha256(directory / name))
        for name in MODEL_FILES
        if (directory / name).is_file()
    }
    if not files:
        raise BadInput(
            f"model_dir {directory.name} holds no model as PaddleX exports it (inference.yml and "
            "weights); check the path, which starts at the folder of the configuration file",
            field="model_dir",
        )
    return weights_digest(files) if "inference.yml" in files else "0" * 64


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def apply(config: PipelineConfig, catalogue: Catalogue) -> Catalogue:
    """Give a catalogue the configuration; the very next answer follows it.

    Raises Conflict when it names another feature model than the catalogue's vectors were made
    with, ModelUnavailable, BadInput.
    """
    from recognition.services import catalogues

    model = catalogue.require_index().feature_model
    digest = _identity(config.recognition)
    if digest != model.digest:
        raise Conflict(
            f"SubModules.Recognition names other weights ({digest[:12]}) than those that made the "
            f"vectors of “{catalogue.name}” ({model.name}, {model.digest[:12]}); re-embed it with "
            "them first (`./manage.py models add`, then `./manage.py reembed ... --switch`), or "
            "give the configuration to a new catalogue",
            field="SubModules.Recognition",
        )
    wanted = options(config)
    del wanted["feature_model"]  # the same, whatever it is called
    return catalogues.change(catalogue, **wanted)


def effective(catalogue: Catalogue | None = None) -> PipelineConfig:
    """What really applies: to a catalogue, or (None) to new ones of this site.

    With it PaddleX loads the same weights. A catalogue without a detector has no counterpart there:
    a detection threshold of 1 makes PaddleX take the whole picture too.
    """
    store = ModelStore(settings.SHITU_MODELS_DIR)
    base = site()
    if catalogue is None:
        chosen = options(base) if base else {}
        detector = chosen.get("detector", settings.SHITU_DETECTOR)
        embedder = chosen.get("feature_model", settings.SHITU_FEATURE_MODEL)
        thresholds = (
            (base.det_threshold, base.rec_threshold, base.rec_topk) if base else (0.5, 0.5, 5)
        )
    else:
        index = catalogue.require_index()
        detector, embedder = catalogue.detector, index.feature_model.name
        threshold = catalogue.rec_threshold
        if threshold is None:
            threshold = Metric(index.metric).default_threshold
        thresholds = (catalogue.det_threshold, threshold, catalogue.top_k)
    return PipelineConfig(
        detection=_part(store, detector or settings.SHITU_DETECTOR or "PP-ShiTuV2_det"),
        recognition=_part(store, embedder),
        index=base.index if base and catalogue is None else None,
        det_threshold=thresholds[0] if detector else 1.0,
        rec_threshold=thresholds[1],
        rec_topk=thresholds[2],
        device=settings.SHITU_DEVICE,
        engine=None if settings.SHITU_ENGINE == "auto" else settings.SHITU_ENGINE,
        threads=settings.SHITU_THREADS or None,
        engine_options=settings.SHITU_ENGINE_OPTIONS,
        visualize=base.visualize if base else True,
    )


def _part(store: ModelStore, name: str) -> ModelConfig:
    """An installed model in PaddleX's words: the directory too, unless PaddleX has it itself.

    PaddleX cannot run an int8 twin, so the float model that it was made from takes its place.
    """
    if name in MODELS and MODELS[name].source == "official" and name not in store.names():
        return ModelConfig(name, None, settings.SHITU_BATCH_SIZE)
    model = store.get(name)
    if model.precision == INT8:
        model = store.get(model.origin.get("quantised", name.removesuffix(INT8_SUFFIX)))
    return ModelConfig(model.paddlex_name, model.directory.resolve(), settings.SHITU_BATCH_SIZE)


def content_digest(directory: Path) -> str:
    """SHA-256 (hex) over the two files of a saved index. Raises BadInput when one is missing."""
    found = hashlib.sha256()
    for name in _INDEX_FILES:
        path = directory / name
        if not path.is_file():
            raise BadInput(
                f"{directory.name} is no saved index: there is no {name} in it", field="index"
            )
        found.update(_sha256(path).encode())
    return found.hexdigest()
