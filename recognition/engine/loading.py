"""A network loaded: on the engine that was asked for, or the first one that works here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from recognition.engine import ppshitu
from recognition.engine.devices import Device
from recognition.engine.engines import AUTO, Engine, candidates
from recognition.engine.installed import InstalledModel, not_a
from recognition.engine.networks import PaddleXDetector, PaddleXEmbedder
from recognition.engine.registry import Role
from recognition.errors import BadInput, DeviceUnavailable, EngineFailed

logger = logging.getLogger(__name__)

N = TypeVar("N", PaddleXDetector, PaddleXEmbedder)


def load(
    installed: InstalledModel, device: Device, **how: Any
) -> PaddleXDetector | PaddleXEmbedder:
    """Load a model for what it does; `how` as in `load_detector`."""
    load_it = load_detector if installed.role == "detector" else load_embedder
    return load_it(installed, device, **how)


def load_detector(
    installed: InstalledModel,
    device: Device,
    *,
    threads: int = 1,
    engine: str = AUTO,
    options: Mapping[str, Any] | None = None,
) -> PaddleXDetector:
    """Load a detector onto `device` and let it pass the self-test.

    `threads` is the number of CPU threads of this network (PaddleX's own default is 10 on any
    machine). `engine` is a name of `engines.ENGINES` or `auto`. `options` go to PaddleX as they
    are: its `hpi_config` for hpi, else its `engine_config`. Raises BadInput for an engine or option
    that does not exist or does not suit, EngineFailed when none works, DeviceUnavailable.
    """
    return _first_that_works(
        installed, "detector", device, threads, engine, options or {}, PaddleXDetector
    )


def load_embedder(
    installed: InstalledModel,
    device: Device,
    *,
    threads: int = 1,
    engine: str = AUTO,
    options: Mapping[str, Any] | None = None,
) -> PaddleXEmbedder:
    """Load an embedder; everything as `load_detector`."""
    return _first_that_works(
        installed, "embedder", device, threads, engine, options or {}, PaddleXEmbedder
    )


def _first_that_works(
    installed: InstalledModel,
    role: Role,
    device: Device,
    threads: int,
    wanted: str,
    options: Mapping[str, Any],
    network: Callable[[Any, InstalledModel, Engine, Device], N],
) -> N:
    if installed.role != role:
        raise not_a(role, installed)
    reasons: list[str] = []
    if threads < 1:
        raise BadInput(f"{threads} threads: at least 1 is needed.", field="threads")
    if options and wanted == AUTO:
        raise BadInput(
            "Engine options are for one engine: name it with SHITU_ENGINE, or leave "
            "SHITU_ENGINE_OPTIONS out.",
            field="options",
        )
    for engine in candidates(installed, device, wanted):
        ppshitu.check(installed, role, engine, device, options)
        try:
            predictor = ppshitu.predictor(installed, role, engine, device, threads, options)
            loaded = network(predictor, installed, engine, device)
            loaded.self_test()
        except DeviceUnavailable:
            raise
        except Exception as error:  # noqa: BLE001  paddle raises anything; nothing is swallowed
            reason = _first_line(error).replace(str(installed.directory), installed.name)
            reasons.append(f"{engine.name}: {type(error).__name__}: {reason}")
            logger.warning(
                "%s does not run on %s, which is left out: %s",
                installed.name,
                engine.name,
                error,
            )
            continue
        logger.info("%s runs on %s, %s", installed.name, engine.name, device)
        return loaded
    raise EngineFailed(
        f"{installed.name} cannot run on {device}. "
        f"{'; '.join(reasons) or 'Its files suit no engine for that device'}. Choose another "
        "engine with SHITU_ENGINE or install the model again."
    )


def _first_line(error: Exception) -> str:
    if isinstance(error.__cause__, ValidationError):  # an option's value that PaddleX refuses
        return "; ".join(
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.__cause__.errors()
        )
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason")
