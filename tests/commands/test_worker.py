"""Worker processes: one for each device, each with its own cores, started again when they die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from hypothesis import given
from hypothesis import strategies as st

from recognition.engine import child
from recognition.errors import BadInput
from recognition.management import workers
from recognition.management.commands import worker as command
from recognition.management.workers import CANNOT_START, Crew, devices_of, share_cores
from recognition.models import Worker
from tests.processes import environment


@pytest.mark.parametrize(
    ("text", "devices"),
    [
        ("cpu", ["cpu"]),
        ("gpu", ["gpu"]),
        ("gpu:0,gpu:1", ["gpu:0", "gpu:1"]),
        ("gpu:0,1", ["gpu:0", "gpu:1"]),
        ("gpu:0, 1 ,2", ["gpu:0", "gpu:1", "gpu:2"]),
        (" NPU:3 , xpu:0,2 ", ["npu:3", "xpu:0", "xpu:2"]),
        ("cpu,gpu:0", ["cpu", "gpu:0"]),
        ("iluvatar_gpu:1,metax_gpu", ["iluvatar_gpu:1", "metax_gpu"]),
    ],
)
def test_each_device_gets_a_worker(text, devices):
    assert [str(one) for one in devices_of(text)] == devices


@pytest.mark.parametrize("text", ["", "gpu:0,", "0,1", "cpu,1", "gpu:0,cuda:1", "gpu:0 1:2"])
def test_what_is_no_list_of_devices_is_refused(text):
    with pytest.raises(BadInput):
        devices_of(text)


@pytest.mark.parametrize("text", ["gpu:0,gpu:0", "cpu,cpu", "gpu,gpu:0"])
def test_a_device_is_named_once(text):
    with pytest.raises(BadInput, match="twice"):
        devices_of(text)


@given(st.integers(1, 64), st.integers(1, 64))
def test_cores_are_shared_out_evenly_and_nobody_goes_without(cores, processes):
    shares = share_cores(list(range(cores)), processes)
    assert len(shares) == processes and all(shares)
    assert {core for share in shares for core in share} == set(range(cores))
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1
    if processes <= cores:
        assert sum(sizes) == cores


@pytest.fixture
def crew_of(monkeypatch, settings):
    """`crew_of(arguments)` is the (name, command, cores) of each worker that would be started."""

    def planned(*arguments: str, found=("cpu", "gpu:0", "gpu:1"), cores=(0, 1, 2, 3)):
        monkeypatch.setattr(child, "run", lambda *_: {"devices": list(found)})
        monkeypatch.setattr(command, "usable_cores", lambda: list(cores))
        members = []
        monkeypatch.setattr(Crew, "run", lambda self: members.extend(self.members))
        with pytest.raises(SystemExit):
            call_command("worker", *arguments, stdout=open(os.devnull, "w"))  # noqa: SIM115, PTH123
        return [(m.command[m.command.index("--device") + 1], m.cores) for m in members]

    return planned


def test_several_devices_are_as_many_processes(crew_of, settings):
    assert crew_of("--device", "gpu:0,1") == [("gpu:0", [0, 1]), ("gpu:1", [2, 3])]
    settings.SHITU_DEVICES = "gpu:1,cpu"
    assert crew_of() == [("gpu:1", [0, 1]), ("cpu", [2, 3])]
    assert crew_of("--device", "cpu", "--processes", "2") == [("cpu", [0, 1]), ("cpu", [2, 3])]


def test_a_device_that_is_absent_is_an_error_before_anything_starts(monkeypatch, settings):
    monkeypatch.setattr(child, "run", lambda *_: {"devices": ["cpu", "gpu:0"]})
    with pytest.raises(CommandError, match="gpu:7; found: cpu, gpu:0") as caught:
        call_command("worker", "--device", "gpu:0,7")
    assert caught.value.returncode == CANNOT_START


@pytest.mark.parametrize("arguments", [["--queues", "fast"], ["--processes", "0"]])
def test_options_that_make_no_sense_are_refused(arguments):
    with pytest.raises(CommandError):
        call_command("worker", *arguments)


@pytest.fixture
def crew(tmp_path: Path, monkeypatch):
    """`crew(program, ...)` runs Python programs as workers; they write to `tmp_path/log`."""
    monkeypatch.setattr(workers, "_STOP_SECONDS", 5)
    said: list[str] = []

    def run(*programs: str) -> tuple[int, list[str], str]:
        log = tmp_path / "log"
        log.touch()
        made = Crew(said.append)
        for number, program in enumerate(programs):
            start = f"import os, sys, time, signal\nlog = open({str(log)!r}, 'a', buffering=1)\n"
            made.add(f"worker {number}", [sys.executable, "-c", start + program], [0])
        return made.run(), said, log.read_text()

    run.log = tmp_path / "log"
    return run


def test_one_that_dies_is_started_again_after_a_pause_that_grows(crew, monkeypatch):
    pauses = []

    class Now:
        """Pauses cost nothing."""

        skipped = 0.0

        def monotonic(self):
            return time.monotonic() + self.skipped

        def sleep(self, seconds):
            time.sleep(0.01)

    clock = Now()
    monkeypatch.setattr(workers, "time", clock)
    look = Crew._look

    def looking(self, member, now):
        code = look(self, member, now)
        if member.process is None and member.again_at:
            pauses.append(round(member.again_at - now))
            clock.skipped += member.again_at - now
        return code

    monkeypatch.setattr(Crew, "_look", looking)
    program = "log.write('x'); log.flush(); sys.exit(0 if len(open(log.name).read()) == 4 else 1)"
    code, said, log = crew(program)
    assert (code, log) == (0, "xxxx")
    assert [pause for pause in pauses if pause] == [1, 2, 4]
    assert said[0] == "worker 0 ended with 1, starting it again in 1 s"


def test_one_that_cannot_start_stops_the_others(crew):
    other = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\ntime.sleep(300)"
    started = time.monotonic()
    code, said, _ = crew(f"time.sleep(1); sys.exit({CANNOT_START})", other)
    assert code == 1 and time.monotonic() - started < 200
    assert said == ["worker 0 cannot start, stopping the others"]


def test_a_signal_reaches_every_worker_and_the_crew_ends_with_them(crew):
    program = (
        "def end(*_):\n    log.write('ended\\n'); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\nlog.write('ready\\n')\ntime.sleep(60)"
    )

    def ask_to_stop():
        while crew.log.read_text().count("ready") < 2:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    crew.log.touch()
    threading.Thread(target=ask_to_stop, daemon=True).start()
    code, said, log = crew(program, program)
    assert (code, log.count("ended"), said) == (0, 2, [])


def test_two_real_workers_have_a_core_each_and_one_that_is_killed_comes_back(
    transactional_db, settings, starter_models, tmp_path
):
    if len(workers.usable_cores()) < 2:
        pytest.skip("this machine lets the tests use one core only")
    log = tmp_path / "log"
    with log.open("wb") as out:
        parent = subprocess.Popen(
            [sys.executable, "manage.py", "worker", "--processes", "2"],
            cwd=settings.BASE_DIR,
            env=environment(settings),
            stdout=out,
            stderr=subprocess.STDOUT,
        )

    def ready(count: int, but: int = 0) -> list[int]:
        deadline = time.monotonic() + 120
        while True:
            pids = [int(one.name.split(":")[1]) for one in Worker.objects.all()]
            there = [pid for pid in pids if pid != but]
            if len(there) == count:
                return there
            assert parent.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)

    try:
        first, second = ready(2)
        cores = [os.sched_getaffinity(pid) for pid in (first, second)]
        assert not cores[0] & cores[1]
        threads = {n["threads"] for one in Worker.objects.all() for n in one.networks}
        assert threads == {min(map(len, cores)), max(map(len, cores))}
        os.kill(first, signal.SIGKILL)
        assert second in ready(2, but=first)
    finally:
        parent.terminate()
        assert parent.wait(120) == 0, log.read_text()
    left = {one.name.split(":")[1] for one in Worker.objects.all()}
    assert left <= {str(first)}, "who is stopped in order takes itself off the list"
