"""Clients that ask over HTTP, each the next question as soon as the last one is answered."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Target:
    """A server and what is asked of it: JSON bodies, taken in turn."""

    port: int
    path: str
    bodies: Sequence[bytes]
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Block:
    """Milliseconds of each answer, and the answers a second, of one stretch of time."""

    milliseconds: list[float]
    per_second: float


def ask(target: Target, clients: int, seconds: float) -> Block:
    """Let `clients` ask for `seconds`; raises when an answer is no success."""
    times: list[float] = []
    errors: list[str] = []
    began = time.perf_counter()

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=120)
        turn = number
        while time.perf_counter() - began < seconds and not errors:
            before = time.perf_counter()
            try:
                connection.request(
                    "POST", target.path, target.bodies[turn % len(target.bodies)], target.headers
                )
                response = connection.getresponse()
                content = response.read()
            except (OSError, http.client.HTTPException):  # a kept connection was closed meanwhile
                connection.close()
                continue
            if response.status not in (200, 201):
                errors.append(f"{response.status}: {content[:300]!r}")
                return
            times.append(1e3 * (time.perf_counter() - before))
            turn += 1
        connection.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise SystemExit(f"{target.path} answered {errors[0]}")
    return Block(times, len(times) / (time.perf_counter() - began))


def percentile(blocks: Sequence[Block], percent: float) -> float:
    """Of all answers of some blocks, in milliseconds."""
    return round(float(np.percentile(np.concatenate([b.milliseconds for b in blocks]), percent)), 1)
