"""The networks of one process: loaded at first use, on one device."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from threading import RLock
from time import perf_counter
from typing import Any, TypeVar

import numpy as np

from recognition.engine import devices, loading
from recognition.engine.devices import Device, parse_device
from recognition.engine.engines import AUTO
from recognition.engine.installed import InstalledModel, not_a
from recognition.engine.registry import Role
from recognition.engine.store import ModelStore
from recognition.engine.types import Box, Detector, Embedder, Pixels, Vectors
from recognition.errors import BadInput, EngineFailed, ModelUnavailable

logger = logging.getLogger(__name__)

_MOST_PATIENCE = 4096  # batches
EMBED_BATCH = 8  # pictures; on a CPU 8 are as fast as 1 each and 32 are slower

LoadDetector = Callable[..., Detector]
LoadEmbedder = Callable[..., Embedder]
Answer = TypeVar("Answer")

# Each engine raises errors of its own, many of them plain RuntimeErrors; only the words tell. In
# order: Paddle and CUDA; onnxruntime; cuDNN and cuBLAS; CUDA; OpenVINO and OpenCL; C++; OpenCV.
_OUT_OF_MEMORY = re.compile(
    r"out of memory|ResourceExhausted|failed to allocate|BFCArena|_ALLOC_FAILED"
    r"|cudaErrorMemoryAllocation|can ?not allocate|OUT_OF_RESOURCES|MEM_OBJECT_ALLOCATION_FAILURE"
    r"|bad_alloc|insufficient memory",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What is known of a network that is in memory; `seconds` is how long loading took."""

    name: str
    role: Role
    digest: str
    precision: str
    dimension: int | None
    engine: str
    device: str
    threads: int
    seconds: float


def usable_cores() -> int:
    """The number of cores this process may use, which can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def is_out_of_memory(error: Exception) -> bool:
    """Whether an engine says that the memory of its device does not suffice."""
    return isinstance(error, MemoryError) or bool(_OUT_OF_MEMORY.search(str(error)))


@dataclass(slots=True)
class _Room:
    """How many pictures at a time fit the memory of a device, as it turned out.

    Halved when they do not. Memory that somebody else took may come free, so after `patience`
    batches that did fit it is doubled; where that was wrong, patience doubles too, because each
    attempt costs a failed batch.
    """

    pictures: int
    patience: int = 16
    fitted: int = 0
    grown: bool = False

    def too_small_for(self, pictures: int) -> None:
        """That many did not fit."""
        if self.grown:
            self.patience = min(2 * self.patience, _MOST_PATIENCE)
        self.pictures, self.fitted, self.grown = pictures // 2, 0, False

    def fits(self, pictures: int) -> None:
        """That many did fit."""
        if pictures < self.pictures:  # the rest of a list says nothing
            return
        self.fitted, self.grown = self.fitted + 1, False
        if self.fitted >= self.patience:
            self.pictures, self.fitted, self.grown = 2 * self.pictures, 0, True


class Runtime:
    """Detects and embeds with any installed model; each is loaded when it is first asked for.

    `device` is one device in PaddleX's grammar; a worker process has one, so several ids are
    refused. `threads` is the number of CPU threads of a network, None for as many as there are
    cores this process may use. `engine` is `auto` or a name of `engines.ENGINES`, `options` are
    that engine's own, see `loading.load_detector`.
    """

    def __init__(
        self,
        store: ModelStore,
        device: Device | str = "cpu",
        *,
        threads: int | None = None,
        engine: str = AUTO,
        options: Mapping[str, Any] | None = None,
        load_detector: LoadDetector = loading.load_detector,
        load_embedder: LoadEmbedder = loading.load_embedder,
    ) -> None:
        self.store = store
        self.device = parse_device(device) if isinstance(device, str) else device
        if len(self.device.ids) > 1:
            raise BadInput(
                f"{self.device} names several devices, but a process works on one: start one "
                f"worker for each of {', '.join(map(str, self.device.each()))}.",
                field="device",
            )
        self.threads = usable_cores() if threads is None else threads
        self.engine, self.options = engine, dict(options or {})
        self._load_detector, self._load_embedder = load_detector, load_embedder
        self._lock = RLock()
        self._detectors: dict[str, Detector] = {}
        self._embedders: dict[str, Embedder] = {}
        self._loaded: dict[str, Loaded] = {}
        self._room: dict[str, _Room] = {}  # of networks that ran out of memory
        self._probed = False

    def detect(
        self,
        name: str,
        pictures: Sequence[Pixels],
        *,
        threshold: float,
        expected_digest: str | None = None,
    ) -> list[list[Box]]:
        """The boxes of each picture with score > `threshold` (0..1), by the detector `name`.

        Raises ModelUnavailable (not installed, damaged, or another digest than expected),
        DeviceUnavailable, EngineFailed (also for a picture too large for the device's memory; of
        several, the batch is halved until they fit).
        """
        detector = self._detector(name, expected_digest)
        parts = self._in_batches(
            name,
            pictures,
            max(1, len(pictures)),
            lambda part: detector.detect(part, threshold=float(threshold)),
        )
        return [boxes for part in parts for boxes in part]

    def embed(
        self,
        name: str,
        pictures: Sequence[Pixels],
        *,
        batch_size: int = EMBED_BATCH,
        expected_digest: str | None = None,
    ) -> Vectors:
        """One unit vector per picture by the embedder `name`: (N, dimension) float32.

        `batch_size` pictures go to the network together, fewer where the device's memory does not
        suffice. Errors as `detect`.
        """
        if batch_size < 1:
            raise BadInput(f"A batch of {batch_size} pictures: at least 1 is needed.")
        embedder = self._embedder(name, expected_digest)
        parts = self._in_batches(name, pictures, batch_size, embedder.embed)
        return np.concatenate(parts or [np.empty((0, embedder.dimension), np.float32)])

    def _in_batches(
        self,
        name: str,
        pictures: Sequence[Pixels],
        size: int,
        ask: Callable[[Sequence[Pixels]], Answer],
    ) -> list[Answer]:
        """Answers about `size` pictures at a time, fewer for a while after memory ran out."""
        answers: list[Answer] = []
        start = 0
        while start < len(pictures):
            room = self._room.get(name)
            part = pictures[start : start + min(size, room.pictures if room else size)]
            try:
                answers.append(ask(part))
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if len(part) == 1:
                    height, width = part[0].shape[:2]
                    raise EngineFailed(
                        f"The memory of {self.device} does not suffice for {name} on a picture of "
                        f"{width}x{height} pixels. Send a smaller picture, or give the worker a "
                        "device with more memory."
                    ) from error
                reason = str(error)
            else:
                start += len(part)
                if room is not None:
                    room.fits(len(part))
                continue
            # Out here the error is gone, and with its traceback the arrays that it held.
            room = self._room.setdefault(name, _Room(len(part)))
            room.too_small_for(len(part))
            logger.warning(
                "%s ran out of memory on %s with %d pictures, now %d at a time: %s",
                name,
                self.device,
                len(part),
                room.pictures,
                reason,
            )
        return answers

    def warm_up(self, names: Iterable[str]) -> list[Loaded]:
        """Load these models now; the self-test at loading is their first, slow run."""
        for name in names:
            role = self.store.get(name).role
            if role == "detector":
                self._detector(name, None)
            else:
                self._embedder(name, None)
        return self.describe()

    def describe(self) -> list[Loaded]:
        """What is in memory, in the order it was loaded."""
        return list(self._loaded.values())

    def _detector(self, name: str, expected_digest: str | None) -> Detector:
        with self._lock:
            if name not in self._detectors:
                installed = self._checked(name, "detector", expected_digest)
                started = perf_counter()
                network = self._load_detector(
                    installed,
                    self.device,
                    threads=self.threads,
                    engine=self.engine,
                    options=self.options,
                )
                self._detectors[name] = network
                self._remember(installed, network.engine, None, started)
            self._check_digest(name, self._loaded[name].digest, expected_digest)
            return self._detectors[name]

    def _embedder(self, name: str, expected_digest: str | None) -> Embedder:
        with self._lock:
            if name not in self._embedders:
                installed = self._checked(name, "embedder", expected_digest)
                started = perf_counter()
                network = self._load_embedder(
                    installed,
                    self.device,
                    threads=self.threads,
                    engine=self.engine,
                    options=self.options,
                )
                self._embedders[name] = network
                self._remember(installed, network.engine, network.dimension, started)
            self._check_digest(name, self._loaded[name].digest, expected_digest)
            return self._embedders[name]

    def _checked(self, name: str, role: Role, expected_digest: str | None) -> InstalledModel:
        """The installed model, whole and with the digest and role that are wanted."""
        installed = self.store.get(name)
        if installed.role != role:
            raise not_a(role, installed)
        self._check_digest(name, installed.digest, expected_digest)
        installed.verify()
        if not self._probed:
            devices.probe(self.device)
            self._probed = True
        return installed

    def _remember(
        self, installed: InstalledModel, engine: str, dimension: int | None, started: float
    ) -> None:
        self._loaded[installed.name] = Loaded(
            name=installed.name,
            role=installed.role,
            digest=installed.digest,
            precision=installed.precision,
            dimension=dimension,
            engine=engine,
            device=str(self.device),
            threads=self.threads,
            seconds=round(perf_counter() - started, 3),
        )

    @staticmethod
    def _check_digest(name: str, digest: str, expected: str | None) -> None:
        if expected is not None and digest != expected:
            raise ModelUnavailable(
                f"The model {name} on this machine has other weights ({digest[:12]}) than the ones "
                f"asked for ({expected[:12]}), so their vectors cannot be compared. Install those "
                "weights here, or embed again with these."
            )
