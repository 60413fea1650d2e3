"""Which engine, and how many threads, run each network fastest here: measured once, then kept."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import structlog
from django.conf import settings
from django.utils import timezone

from recognition.engine import loading, ppshitu
from recognition.engine.devices import Device
from recognition.engine.engines import AUTO, ENGINES, HPI
from recognition.engine.installed import InstalledModel
from recognition.engine.networks import PaddleXDetector
from recognition.engine.trial import disagreement, trial_pictures
from recognition.errors import BadInput, EngineFailed

log = structlog.get_logger(__name__)

BATCHES = (1, 4, 8, 16)
_FEWEST_CALLS = 3
_HOPELESS = 0.5  # an engine that is slower than this part of the best is not looked at further
_PACKAGES = ("openvino", "onnxruntime", "paddlepaddle", "paddlex")


@dataclass(frozen=True, slots=True)
class Measured:
    """How fast a network runs in one way. `digest` is that of its weights."""

    model: str
    digest: str
    role: str
    device: str
    engine: str
    threads: int
    batch: int
    pictures_per_second: float


def path() -> Path:
    """Where the measurements are kept."""
    return Path(settings.SHITU_VAR_DIR) / "tune.json"


def machine() -> dict[str, Any]:
    """What a measurement depends on: processor and versions of the engines."""
    packages = {}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return {"processor": _processor(), "packages": packages}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def measure(
    installed: InstalledModel,
    device: Device,
    threads: Sequence[int],
    *,
    seconds: float,
    say: Callable[[str], object],
) -> Iterator[Measured]:
    """Pictures a second of a network on each engine that suits it.

    `seconds` is spent on each combination; reading and resizing of the pictures counts. An engine
    that does not run, is far behind, or does not answer as the first one does is left out and
    `say` tells.
    """
    best, first = 0.0, None
    for engine in ENGINES:
        if not engine.suits(installed, device):
            continue
        if engine.paddlex == HPI and not ppshitu.has_plugin():
            continue
        for count in threads:
            try:
                network = loading.load(installed, device, threads=count, engine=engine.name)
            except EngineFailed as error:
                say(f"{installed.name}: {engine.name} is left out: {error.message}")
                break
            first = first or network
            if reason := disagreement(first, network):
                say(f"{installed.name}: {engine.name} is left out: {reason}")
                break
            slow = False
            for batch in BATCHES if installed.role == "embedder" else BATCHES[:1]:
                rate = _rate(network, batch, seconds)
                yield Measured(
                    model=installed.name,
                    digest=installed.digest,
                    role=installed.role,
                    device=str(device),
                    engine=engine.name,
                    threads=count,
                    batch=batch,
                    pictures_per_second=round(rate, 2),
                )
                best = max(best, rate)
                if slow := rate < best * _HOPELESS * count / max(threads):
                    break
            if slow:
                break


def _rate(network: Any, batch: int, seconds: float) -> float:
    """Pictures a second: from the median of the calls, so a hiccup counts for nothing."""
    trial = trial_pictures()
    pictures = [trial[number % len(trial)] for number in range(batch)]
    if isinstance(network, PaddleXDetector):
        ask: Callable[[], object] = lambda: network.detect(pictures, threshold=0.5)  # noqa: E731
    else:
        ask = lambda: network.embed(pictures)  # noqa: E731
    ask()
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < _FEWEST_CALLS or time.perf_counter() - started < seconds:
        before = time.perf_counter()
        ask()
        times.append(time.perf_counter() - before)
    return batch / statistics.median(times)


def save(measured: Sequence[Measured]) -> None:
    """Keep measurements, with what they depend on; those of other devices and models stay."""
    known = {(one.device, one.digest) for one in measured}
    rest = [one for one in _read()[0] if (one.device, one.digest) not in known]
    content = {
        "machine": machine(),
        "measured_at": timezone.now().isoformat(timespec="seconds"),
        "rows": [asdict(one) for one in [*rest, *measured]],
    }
    new = path().with_suffix(".new")
    new.write_text(json.dumps(content, indent=1) + "\n")
    new.replace(path())


def _read() -> tuple[list[Measured], str]:
    """The measurements that hold here, or none and the reason."""
    try:
        content = json.loads(path().read_text())
        rows = [Measured(**row) for row in content["rows"]]
        measured_on = content["machine"]
    except FileNotFoundError:
        return [], "nothing has been measured; `./manage.py tune` does"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [], f"{path().name} cannot be read ({error}); run `./manage.py tune` again"
    now = machine()
    for what, before in measured_on.items():
        if before != now.get(what):
            return [], (
                f"it was measured with another {what.removesuffix('s')} ({before}, now "
                f"{now.get(what)}); run `./manage.py tune` again"
            )
    return rows, ""


@dataclass(frozen=True, slots=True)
class Choice:
    """The best of what was measured: threads of this process, and an engine for each digest."""

    threads: int | None = None
    engines: dict[str, str] = field(default_factory=dict)

    def loader(self, load: Callable[..., Any]) -> Callable[..., Any]:
        """`load` (as `loading.load_embedder`) with the measured engine in place of `auto`."""

        def tuned(installed: InstalledModel, device: Device, *, engine: str, **settled: Any) -> Any:
            wanted = self.engines.get(installed.digest)
            if engine != AUTO or wanted is None:
                if self.engines and wanted is None:
                    log.info("not_tuned", model=installed.name, digest=installed.digest[:12])
                return load(installed, device, engine=engine, **settled)
            try:
                return load(installed, device, engine=wanted, **settled)
            except (EngineFailed, BadInput) as error:
                log.warning("tuned_engine_failed", model=installed.name, reason=error.message)
                return load(installed, device, engine=engine, **settled)

        return tuned


def choose(measured: Sequence[Measured], device: str, cores: int) -> Choice:
    """The number of threads, of at most `cores`, with which one picture through every network takes
    least, and the fastest engine of each network with so many."""
    best: dict[int, dict[str, Measured]] = defaultdict(dict)
    for one in measured:
        if one.device == device and one.threads <= cores:
            at = best[one.threads]
            held = at.get(one.digest)
            if held is None or one.pictures_per_second > held.pictures_per_second:
                at[one.digest] = one
    if not best:
        return Choice()
    most = max(map(len, best.values()))  # a slow engine is not measured with every count
    complete = {threads: of for threads, of in best.items() if len(of) == most}
    threads = min(
        complete, key=lambda n: sum(1 / one.pictures_per_second for one in complete[n].values())
    )
    return Choice(threads, {digest: one.engine for digest, one in complete[threads].items()})


def kept_choice(device: str, cores: int) -> Choice:
    """What `manage.py tune` found for this device; empty, with the reason in the log, when there is
    nothing that holds."""
    measured, reason = _read()
    if reason:
        log.info("tuning_not_used", reason=reason)
    return choose(measured, device, cores)
