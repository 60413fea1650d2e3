"""What `manage.py tune` measured decides where nobody else does, as long as it holds."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from django.core.management import CommandError, call_command

from recognition.engine.devices import Device
from recognition.errors import EngineFailed
from recognition.services import runtime, tuning
from recognition.services.tuning import Choice, Measured, choose


def row(engine: str, threads: int, rate: float, *, digest: str = "a" * 64, batch: int = 1):
    return Measured("net", digest, "embedder", "cpu", engine, threads, batch, rate)


@pytest.fixture(autouse=True)
def own_directory(settings, tmp_path):
    settings.SHITU_VAR_DIR = tmp_path
    return tmp_path


def test_the_fastest_engine_of_each_network_is_chosen():
    rows = [
        row("openvino", 2, 80),
        row("onnxruntime", 2, 100),
        row("openvino", 2, 50, digest="b"),
        row("paddle", 2, 20, digest="b"),
    ]
    assert choose(rows, "cpu", 2) == Choice(2, {"a" * 64: "onnxruntime", "b": "openvino"})


def test_threads_are_those_with_which_all_networks_together_are_fastest():
    rows = [
        row("openvino", 1, 100),
        row("openvino", 2, 110),
        row("openvino", 1, 10, digest="b"),
        row("openvino", 2, 8, digest="b"),
    ]
    assert choose(rows, "cpu", 2).threads == 1


def test_a_process_with_fewer_cores_takes_what_was_measured_with_so_many():
    rows = [row("openvino", 2, 100), row("openvino", 1, 40), row("onnxruntime", 1, 60)]
    assert choose(rows, "cpu", 1) == Choice(1, {"a" * 64: "onnxruntime"})
    assert choose(rows, "cpu", 8) == Choice(2, {"a" * 64: "openvino"})


def test_a_thread_count_that_not_all_networks_were_measured_with_is_not_chosen():
    rows = [row("openvino", 1, 500), row("openvino", 2, 100), row("openvino", 2, 100, digest="b")]
    assert choose(rows, "cpu", 2).threads == 2


def test_another_device_is_another_matter():
    assert choose([row("openvino", 1, 100)], "gpu:0", 4) == Choice()


def test_it_is_kept_and_another_network_adds_to_it():
    tuning.save([row("openvino", 2, 100)])
    tuning.save([row("onnxruntime", 2, 100, digest="b")])
    tuning.save([row("paddle", 2, 300, digest="b")])
    assert tuning.kept_choice("cpu", 2).engines == {"a" * 64: "openvino", "b": "paddle"}


@pytest.mark.parametrize(
    ("stale", "reason"),
    [
        ({"processor": "another one"}, "another processor"),
        ({"packages": {"openvino": "0.1"}}, "another package"),
    ],
)
def test_what_was_measured_under_other_conditions_is_ignored_with_the_reason(
    monkeypatch, stale, reason
):
    tuning.save([row("paddle", 2, 100)])
    now = tuning.machine() | stale
    monkeypatch.setattr(tuning, "machine", lambda: now)
    assert tuning.kept_choice("cpu", 2) == Choice()
    assert reason in tuning._read()[1] and "manage.py tune" in tuning._read()[1]


@pytest.mark.parametrize("text", ["", "{}", '{"rows": [{}], "machine": {}}', "[]"])
def test_a_damaged_file_is_ignored_with_the_reason(text):
    tuning.path().write_text(text)
    assert tuning.kept_choice("cpu", 2) == Choice()
    assert "cannot be read" in tuning._read()[1]


class Load:
    """Remembers which engine was asked for; some do not run."""

    def __init__(self, broken: str = "") -> None:
        self.broken, self.asked = broken, []

    def __call__(self, installed, device, *, threads, engine):
        self.asked.append(engine)
        if engine == self.broken:
            raise EngineFailed("it does not run")
        return engine


@pytest.fixture
def stub():
    from recognition.engine.stub import StubStore

    return StubStore().get("stub_rec")


def ask(choice: Choice, load: Load, installed, engine: str = "auto") -> str:
    return choice.loader(load)(installed, Device("cpu"), threads=1, engine=engine)


def test_auto_means_the_measured_engine(stub):
    choice = Choice(2, {stub.digest: "onnxruntime"})
    assert ask(choice, Load(), stub) == "onnxruntime"
    assert ask(choice, Load(), stub, "paddle") == "paddle"
    assert ask(choice, Load(), replace(stub, digest="other weights")) == "auto"
    assert ask(Choice(), Load(), stub) == "auto"


def test_a_measured_engine_that_fails_now_gives_way_to_auto(stub):
    load = Load(broken="onnxruntime")
    assert ask(Choice(2, {stub.digest: "onnxruntime"}), load, stub) == "auto"
    assert load.asked == ["onnxruntime", "auto"]


def test_the_command_measures_and_the_next_worker_follows(db, starter_models, settings, capsys):
    settings.SHITU_DETECTOR, settings.SHITU_FEATURE_MODEL = "", "starter_rec"
    call_command("tune", "--seconds", "0.01")
    shown = capsys.readouterr().out
    assert "openvino" in shown and "pictures/s" in shown
    content = json.loads(tuning.path().read_text())
    digest = starter_models.get("starter_rec").digest
    assert {one["digest"] for one in content["rows"]} == {digest}
    assert {one["batch"] for one in content["rows"]} >= {1, 4}

    # Pretend that another engine was fastest: a process that starts now runs it.
    one = Measured(**content["rows"][0])
    tuning.save([replace(one, engine="onnxruntime", threads=1, pictures_per_second=1e6)])
    runtime.get_runtime.cache_clear()
    try:
        [loaded] = runtime.get_runtime().warm_up(["starter_rec"])
    finally:
        runtime.get_runtime.cache_clear()
    assert (loaded.engine, loaded.threads) == ("onnxruntime", 1)


def test_a_network_that_is_not_installed_is_named(db):
    with pytest.raises(CommandError, match="nonsense"):
        call_command("tune", "--model", "nonsense")
