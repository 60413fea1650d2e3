"""One line on the terminal that says how far a gallery is."""

from __future__ import annotations

import sys
import time
from typing import Final

_WIDTH: Final = 30
_EVERY_SECONDS: Final = 0.1


class Bar:
    """`build  [######----] 120/300  45/s`; silent unless it is `shown`."""

    def __init__(self, what: str, total: int, *, shown: bool) -> None:
        self._what, self._total, self._shown = what, total, shown and total > 0
        self._started = self._written = time.monotonic()

    def at(self, done: int) -> None:
        """So many are done."""
        now = time.monotonic()
        if self._shown and (done >= self._total or now - self._written > _EVERY_SECONDS):
            self._written = now
            full = _WIDTH * done // self._total
            rate = done / max(now - self._started, 1e-6)
            bar = "#" * full + "-" * (_WIDTH - full)
            sys.stderr.write(f"\r{self._what}  [{bar}] {done}/{self._total}  {rate:.0f}/s ")
            sys.stderr.flush()

    def end(self) -> None:
        if self._shown:
            sys.stderr.write("\n")
