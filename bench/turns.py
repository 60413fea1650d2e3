"""Contestants asked in turns, block by block, so that a machine whose speed drifts is fair to all.

A ratio is the median over the blocks. Processor time is of both sides of the connection together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from django.db import connection

from bench.vectors import Vectors

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK = 25

Ask = Callable[[Vectors], Sequence[int]]
"""One question (1, D); the ids of what was found, best first."""


@dataclass(frozen=True)
class Times:
    """`wall` (blocks, BLOCK) milliseconds of each question; `cpu` (blocks,) milliseconds a question
    on both sides of the connection together, NaN when the server is not on this machine.
    """

    wall: NDArray[np.float64]
    cpu: NDArray[np.float64]

    @property
    def p50(self) -> float:
        return float(np.median(self.wall))

    @property
    def p99(self) -> float:
        return float(np.percentile(self.wall, 99))

    @property
    def cpu_ms(self) -> float:
        return float(np.median(self.cpu))

    def ratio(self, peer: Times) -> float:
        """Of the median times, block against block."""
        return float(np.median(np.median(self.wall, axis=1) / np.median(peer.wall, axis=1)))

    def cpu_ratio(self, peer: Times) -> float:
        return float(np.median(self.cpu / peer.cpu))


def duel(contestants: dict[str, Ask], questions: Vectors) -> dict[str, Times]:
    """The times of each contestant with the same questions; blocks of them take turns."""
    return in_turns({name: (ask, questions) for name, ask in contestants.items()})


def in_turns(contestants: dict[str, tuple[Ask, Vectors]]) -> dict[str, Times]:
    """The times of each contestant with questions of its own, as many for each."""
    wall: dict[str, list[list[float]]] = {name: [] for name in contestants}
    cpu: dict[str, list[float]] = {name: [] for name in contestants}
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        server = Path(f"/proc/{cursor.fetchone()[0]}/schedstat")

    def cpu_ms() -> float:
        try:
            nanoseconds = int(server.read_text().split()[0])
        except OSError:
            return float("nan")
        return 1e3 * time.process_time() + nanoseconds / 1e6

    for ask, questions in contestants.values():  # caches and prepared statements
        for row in range(2 * BLOCK):
            ask(questions[row : row + 1])
    count = min(len(questions) for _, questions in contestants.values())
    for start in range(0, count - BLOCK + 1, BLOCK):
        for name, (ask, questions) in contestants.items():
            block = []
            before = cpu_ms()
            for row in range(start, start + BLOCK):
                began = time.perf_counter()
                ask(questions[row : row + 1])
                block.append(1e3 * (time.perf_counter() - began))
            cpu[name].append((cpu_ms() - before) / BLOCK)
            wall[name].append(block)
    return {name: Times(np.array(wall[name]), np.array(cpu[name])) for name in contestants}
