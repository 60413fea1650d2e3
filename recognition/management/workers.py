"""Worker processes: one for each device, restarted when they die; or one for a command."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from django.conf import settings
from django.core.management.base import CommandError, OutputWrapper

from recognition.engine.devices import Device, parse_device
from recognition.errors import BadInput
from recognition.models import Worker

CANNOT_START = 2  # exit code of a worker that would fail at every start

_START_SECONDS = 120
_STOP_SECONDS = 20
_STEADY_SECONDS = 60.0  # who ran for so long starts again at once
_LONGEST_PAUSE = 60.0
_PR_SET_PDEATHSIG = 1


def devices_of(text: str) -> list[Device]:
    """One device for each worker: `gpu:0,gpu:1`, or `gpu:0,1` for the same, `gpu:0,npu:1`.

    PaddleX's grammar (`parse_device`) with commas between several; a bare number is one more id of
    the device before it. Raises BadInput, also for a device that is named twice.
    """
    found: list[Device] = []
    for one in re.split(r",(?!\s*\d+\s*(?:,|$))", text):
        found += parse_device(re.sub(r"\s", "", one)).each()
    for number, device in enumerate(found):
        if (device.kind, device.first_id) in [(o.kind, o.first_id) for o in found[:number]]:
            raise BadInput(
                f"{text!r} names {device} twice. Name each device once; --processes starts several "
                "workers on each.",
                field="device",
            )
    return found


def share_cores(cores: Sequence[int], processes: int) -> list[list[int]]:
    """As equal a part of `cores` for each process as it goes; shared when they are too few."""
    if processes >= len(cores):
        return [[cores[number % len(cores)]] for number in range(processes)]
    size, more = divmod(len(cores), processes)
    shares, start = [], 0
    for number in range(processes):
        end = start + size + (number < more)
        shares.append(list(cores[start:end]))
        start = end
    return shares


def usable_cores() -> list[int]:
    """Numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


@dataclass(slots=True)
class _Member:
    """One worker process of a crew, through all its restarts."""

    command: list[str]
    cores: list[int]
    name: str
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    starts: int = 0
    failures: int = 0
    again_at: float | None = 0.0  # None: it is not to be started (again)


@dataclass(slots=True)
class Crew:
    """Worker processes side by side, each on its own device and cores.

    One that dies is started again, after a pause that doubles while it keeps dying. A signal
    reaches all of them, and the crew ends when they have ended. One that cannot start at all
    (exit code `CANNOT_START` at the first start) ends the crew.
    """

    say: Callable[[str], object]
    members: list[_Member] = field(default_factory=list)
    _stopping: bool = False
    _deadline: float = 0.0

    def add(self, name: str, command: list[str], cores: list[int]) -> None:
        """One more worker: `command` on `cores`; `name` is what it is called in messages."""
        self.members.append(_Member(command, cores, name))

    def run(self) -> int:
        """Until all have ended; 0, or 1 when one could not start."""
        previous = {
            number: signal.signal(number, self._forward)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)
        }
        code = 0
        try:
            while True:
                now = time.monotonic()
                for member in self.members:
                    code = self._look(member, now) or code
                if all(m.process is None and m.again_at is None for m in self.members):
                    return code
                if self._stopping and now > self._deadline:
                    self._signal(signal.SIGKILL)
                time.sleep(0.1)
        finally:
            self._signal(signal.SIGKILL)
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _look(self, member: _Member, now: float) -> int:
        """Start the member if it is time, take note if it has ended; 1 to end the crew."""
        if member.process is None:
            if member.again_at is not None and now >= member.again_at:
                self._start(member)
            return 0
        ended = member.process.poll()
        if ended is None:
            return 0
        member.process, member.again_at = None, None
        if self._stopping or ended == 0:  # it was asked to
            return 0
        how = f"ended with {ended}" if ended > 0 else f"was ended by {_signal_name(-ended)}"
        if ended == CANNOT_START and member.starts == 1:
            self.say(f"{member.name} cannot start, stopping the others")
            self._stop(signal.SIGTERM)
            return 1
        steady = now - member.started >= _STEADY_SECONDS
        member.failures = 0 if steady else member.failures + 1
        pause = min(2.0 ** (member.failures - 1), _LONGEST_PAUSE) if member.failures else 0.0
        member.again_at = now + pause
        self.say(f"{member.name} {how}, starting it again in {pause:.0f} s")
        return 0

    def _start(self, member: _Member) -> None:
        # numpy's, OpenCV's and Paddle's own threads, beside those a network is given.
        threads = str(len(member.cores))
        pools = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        member.process = subprocess.Popen(  # noqa: S603
            member.command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches us alone, and we pass it on once
            preexec_fn=lambda: _settle(member.cores),  # noqa: PLW1509  (two system calls)
            env={**dict.fromkeys(pools, threads), **os.environ},
        )
        member.started, member.again_at = time.monotonic(), None
        member.starts += 1

    def _forward(self, number: int, frame: FrameType | None) -> None:
        self._stop(signal.Signals(number))

    def _stop(self, number: signal.Signals) -> None:
        if not self._stopping:
            self._stopping, self._deadline = True, time.monotonic() + _STOP_SECONDS
        for member in self.members:
            member.again_at = None
        self._signal(number)

    def _signal(self, number: signal.Signals) -> None:
        for member in self.members:
            if member.process is not None and member.process.poll() is None:
                member.process.send_signal(number)


def _settle(cores: Sequence[int]) -> None:
    """In the child: only these cores, and no orphans."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    die_with_parent()


def die_with_parent() -> None:
    """In the child, on Linux: end when the parent is killed in a way it cannot see."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


@contextmanager
def worker_running(stdout: OutputWrapper) -> Iterator[None]:
    """A worker answers inside the block: an existing one, else one started here and stopped after.

    Raises CommandError with the worker's last words when it does not start.
    """
    if Worker.objects.alive().exists():
        yield
        return
    log_path = settings.SHITU_VAR_DIR / "worker.log"
    stdout.write(f"no worker is running: starting one for this command (log: {log_path})")
    with log_path.open("ab") as log:
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, str(settings.BASE_DIR / "manage.py"), "worker"],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches the command first, which then stops the worker
            preexec_fn=die_with_parent,  # noqa: PLW1509  (one system call)
            env={**os.environ, "SHITU_LOG_FORMAT": "console"},
        )
    try:
        _wait_until_ready(process, log_path)
        yield
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], log_path: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not Worker.objects.alive().filter(name__endswith=f":{process.pid}").exists():
        if process.poll() is not None or time.monotonic() > deadline:
            words = log_path.read_text(errors="replace").strip().splitlines()[-5:]
            raise CommandError("the worker did not start:\n" + "\n".join(words))
        time.sleep(0.1)
