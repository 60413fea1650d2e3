from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recognition.engine import child, devices
from recognition.engine.devices import KINDS, Device, parse_device, probe
from recognition.errors import BadInput, DeviceUnavailable

ids = st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True).map(tuple)


@given(st.sampled_from(KINDS[1:]), ids)
def test_a_device_reads_as_it_is_written(kind, numbers):
    device = Device(kind, numbers)
    assert parse_device(str(device)) == device
    assert parse_device(f" {str(device).upper()} ") == device
    assert device.first_id == numbers[0]
    assert [one.ids for one in device.each()] == [(number,) for number in numbers]


def test_without_ids_it_is_the_first_one():
    assert parse_device("npu") == Device("npu")
    assert Device("npu").first_id == 0
    assert Device("npu").each() == [Device("npu")]
    assert parse_device("CPU").first_id is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not a device"),
        ("auto", "is not a device"),
        ("cuda:0", "called gpu"),
        ("cpu:0", "cpu takes no ids"),
        ("gpu:", "whole numbers"),
        ("gpu:a", "whole numbers"),
        ("gpu:-1", "whole numbers"),
        ("gpu:0,", "whole numbers"),
        ("gpu:0:1", "whole numbers"),
        ("gpu:²", "whole numbers"),
    ],
)
def test_what_is_no_device_is_refused_by_name(text, says):
    with pytest.raises(BadInput, match=says) as error:
        parse_device(text)
    assert repr(text) in error.value.message


@given(st.text())
def test_no_text_makes_it_fail_otherwise(text):
    with suppress(BadInput):
        assert parse_device(text).kind in KINDS


def test_the_cpu_is_there():
    probe(Device("cpu"))


@pytest.mark.parametrize(("asked", "missing"), [("gpu:0,7", "gpu:7"), ("npu", "npu:0")])
def test_an_absent_device_is_an_error_that_says_what_was_found(monkeypatch, asked, missing):
    monkeypatch.setattr(child, "run", lambda *_: {"devices": ["cpu", "gpu:0"]})
    with pytest.raises(DeviceUnavailable, match=f"does not offer {missing}; found: cpu, gpu:0"):
        probe(parse_device(asked))


def test_a_present_device_is_accepted(monkeypatch):
    monkeypatch.setattr(child, "run", lambda *_: {"devices": ["cpu", "gpu:0", "gpu:1"]})
    probe(parse_device("gpu:1"))
    probe(parse_device("gpu"))


def test_the_real_probe_looks_in_a_child_process():
    """A machine with 99 NPUs would pass; this one says what it has."""
    with pytest.raises(DeviceUnavailable, match="found: cpu"):
        probe(Device("npu", (98,)))


def test_a_child_that_aborts_is_an_error_with_the_signal(monkeypatch):
    monkeypatch.setattr(devices.child, "run", child.run)
    with pytest.raises(child.ChildFailed, match="KeyError"):
        child.run("no such function", [])

    def aborted(*_, **__):
        return child.subprocess.CompletedProcess([], -6, "", "No allocator found for the place\n")

    monkeypatch.setattr(child.subprocess, "run", aborted)
    with pytest.raises(DeviceUnavailable, match="SIGABRT.*No allocator found"):
        probe(Device("npu"))
