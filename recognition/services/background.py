"""Long work in threads of its own, so that a worker of one process goes on answering meanwhile."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import structlog
from django.db import connection

log = structlog.get_logger(__name__)


class Background:
    """A thread of this process that does what it is asked for, one after the other.

    It ends, and starts again, with the work.
    """

    def __init__(self, name: str) -> None:
        self.busy = False
        self._name = name
        self._lock = threading.Lock()
        self._asked: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()

    def run(self, work: Callable[..., object], *args: Any) -> None:
        """Have this done once the thread is free; returns at once.

        Asked for again before it has begun it is done once. What it raises goes to the log.
        """
        with self._lock:
            if (work, args) not in self._asked:
                self._asked.append((work, args))
            if not self.busy:
                threading.Thread(target=self._work, name=self._name, daemon=True).start()
                self.busy = True  # only now: there may have been no more threads

    def _work(self) -> None:
        while (asked := self._next()) is not None:
            work, args = asked
            try:
                work(*args)
            except BaseException:  # even of SystemExit: there may be more to do
                log.exception("background_work_failed", thread=self._name, work=work.__name__)
            finally:
                connection.close()

    def _next(self) -> tuple[Callable[..., object], tuple[Any, ...]] | None:
        with self._lock:
            self.busy = bool(self._asked)
            return self._asked.popleft() if self._asked else None


jobs = Background("jobs")
upkeep = Background("upkeep")
