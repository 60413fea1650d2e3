"""Index files that are damaged, mismatched, huge or hostile: an error says why, nothing else
happens.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from recognition.errors import BadInput, RecognitionError, SetupError, TooLarge
from recognition.services import index_child, index_files
from recognition.services.index_files import importing
from tests.paddlex_files.conftest import unit_vectors

pytestmark = pytest.mark.usefixtures("read_here")

LABELS = [f"p{n}" for n in range(24)]


@pytest.fixture
def in_child(monkeypatch):
    """For files that may harm whoever reads them: in the child process, as it really is."""
    monkeypatch.setattr(importing, "read", index_child.read)


def refused(directory, says: str, kind: type[Exception] = BadInput) -> None:
    with pytest.raises(kind, match=says), index_files.opened(directory):
        pass


def change(directory, **said) -> None:
    path = directory / "id_map.yaml"
    path.write_text(yaml.dump(yaml.safe_load(path.read_text()) | said))


@pytest.fixture
def flat(index_directory):
    return index_directory(unit_vectors(24), LABELS)


@pytest.mark.parametrize("name", ["vector.index", "id_map.yaml"])
def test_a_file_is_missing(flat, name):
    (flat / name).unlink()
    refused(flat, f"there is no {name}")


def test_labels_of_another_index(flat, index_directory):
    other = index_directory(unit_vectors(23), LABELS[:23], name="other")
    shutil.copy(other / "id_map.yaml", flat)
    refused(flat, "24 vectors and id_map.yaml 23 labels")


def test_other_ids_than_labels(flat):
    change(flat, id_map={n + 1: "x" for n in range(24)})
    refused(flat, "no label for the ids 0 of")


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"index_type": "IVF"}, "says index_type 'IVF' and vector.index is 'Flat'"),
        ({"metric_type": "L2"}, "says metric_type 'L2' and vector.index is 'IP'"),
        ({"metric_type": "hamming"}, "says metric_type 'hamming'"),
        ({"id_map": [1, 2]}, "lacks a list of ids and labels"),
        ({"id_map": {"x": "tea"}}, "has the id 'x'"),
        ({"id_map": {-1: "tea"}}, "has the id -1"),
        ({"id_map": {True: "tea"}}, "has the id True"),
        ({"id_map": {0: ["tea"]}}, "label of id 0 .* is no text"),
        ({"id_map": dict.fromkeys(range(24), "a\tb")}, "24 labels .* cannot be used .*control"),
        ({"id_map": dict.fromkeys(range(24), "")}, "the label is empty"),
    ],
)
def test_labels_that_say_something_else(flat, said, says):
    change(flat, **said)
    refused(flat, says)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "lacks id_map, index_type, metric_type"),
        ("[1, 2]", "lacks id_map"),
        ("id_map: {0: a", "no YAML that can be read"),
        ("\x00\x01", "no YAML that can be read"),
        ("id_map: !!python/object/apply:os.system ['touch /tmp/x']", "no YAML that can be read"),
    ],
)
def test_labels_that_are_no_labels(flat, text, says):
    (flat / "id_map.yaml").write_text(text)
    refused(flat, says)


def test_a_yaml_bomb_is_refused_before_it_unfolds(flat):
    bomb = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    for name, before in zip("bcdefghij", "abcdefghi", strict=True):
        bomb.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]")
    (flat / "id_map.yaml").write_text("\n".join(bomb))
    refused(flat, "repeats them by aliases")


def test_deep_yaml_is_refused_as_soon_as_it_is_deep(flat):
    (flat / "id_map.yaml").write_text("[" * 1_000_000)
    started = time.monotonic()
    refused(flat, "it nests values")
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("scale", [0.5, np.nan, np.inf])
def test_vectors_that_are_no_features(index_directory, scale):
    vectors = unit_vectors(24)
    vectors[7] *= scale
    refused(index_directory(vectors, LABELS), "vector of id 7 has length")


def test_an_ivf_index_after_a_removal_has_scrambled_labels(index_directory):
    directory = index_directory(unit_vectors(24), LABELS, index_type="IVF", removed=[3])
    refused(directory, "ids were removed from this IVF index")


def test_an_empty_index(index_directory):
    directory = index_directory(unit_vectors(2), ["a", "b"], removed=[0, 1])
    refused(directory, "there are no vectors")


@pytest.mark.parametrize("factory", ["SQ8", "IVF4,SQ8", "HNSW32,SQ8", "LSH", "RaBitQ"])
def test_kinds_of_index_that_paddlex_does_not_make_never_reach_faiss(flat, factory):
    import faiss

    base = faiss.index_factory(64, factory)
    base.train(unit_vectors(300))
    index = faiss.IndexIDMap2(base)
    index.add_with_ids(unit_vectors(24), np.arange(24))
    faiss.write_index(index, str(flat / "vector.index"))
    refused(flat, "no index as PaddleX saves it")


def test_an_index_without_ids(flat):
    import faiss

    faiss.write_index(faiss.IndexFlatIP(64), str(flat / "vector.index"))
    refused(flat, "no index as PaddleX saves it|cut short")


@pytest.mark.parametrize("content", [b"", b"IxM2", b"\x80\x05" + b"pickle" * 30])
def test_files_that_are_no_index(flat, content):
    (flat / "vector.index").write_bytes(content)
    refused(flat, "cut short|no index as PaddleX saves it")


@pytest.mark.parametrize("index_type", ["Flat", "IVF", "HNSW32"])
def test_a_file_that_is_cut_short(in_child, index_directory, index_type, share=0.95):
    directory = index_directory(unit_vectors(24), LABELS, index_type=index_type)
    data = (directory / "vector.index").read_bytes()
    (directory / "vector.index").write_bytes(data[: int(len(data) * share)])
    refused(directory, "cut short|damaged")


@pytest.mark.parametrize(("count", "dimension"), [(2**40, 64), (24, 4000), (2**62, 2), (-1, 64)])
def test_a_header_that_promises_more_than_there_is_reserves_nothing(flat, count, dimension):
    data = bytearray((flat / "vector.index").read_bytes())
    for start in (4, 41):
        data[start : start + 12] = struct.pack("<iq", dimension, count)
    (flat / "vector.index").write_bytes(data)
    started = time.monotonic()
    refused(flat, "do not fit into its bytes|damaged")
    assert time.monotonic() - started < 60


def test_a_vector_inside_that_promises_more_than_there_is(flat, in_child):
    data = bytearray((flat / "vector.index").read_bytes())
    assert struct.unpack_from("<q", data, 74) == (24 * 64,)
    struct.pack_into("<q", data, 74, 2**50)
    (flat / "vector.index").write_bytes(data)
    refused(flat, "damaged")


def test_files_that_are_too_large_are_not_opened(flat, monkeypatch):
    monkeypatch.setattr(index_child, "MOST_INDEX_BYTES", 1000)
    refused(flat, "more than 1,000", TooLarge)
    monkeypatch.setattr(index_child, "MOST_INDEX_BYTES", 10**9)
    monkeypatch.setattr(index_child, "MOST_LABELS_BYTES", 100)
    refused(flat, "id_map.yaml has", TooLarge)


def test_a_child_that_wants_too_much_memory_is_stopped_alone():
    code = (
        "from recognition.services import index_child; index_child._limit(1000);"
        "import numpy; numpy.ones(2**32, numpy.uint8)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "MemoryError" in done.stderr


def test_without_faiss_it_says_what_to_install(flat, in_child, monkeypatch, tmp_path):
    (tmp_path / "shadow").mkdir()
    (tmp_path / "shadow" / "faiss.py").write_text("raise ImportError('not installed')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "shadow"))
    refused(flat, r"pip install faiss-cpu==1\.15\.1", SetupError)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """One good directory of each type, as bytes."""
    import faiss

    found = {}
    vectors = unit_vectors(9, 8)
    for index_type, factory in {"Flat": "Flat", "IVF": "IVF1,Flat", "HNSW32": "HNSW32"}.items():
        index = faiss.IndexIDMap2(faiss.index_factory(8, factory, faiss.METRIC_INNER_PRODUCT))
        index.train(vectors)
        index.add_with_ids(vectors, np.arange(9))
        labels = dict.fromkeys(range(9), "p")
        info = {"id_map": labels, "index_type": index_type, "metric_type": "IP"}
        found[index_type] = faiss.serialize_index(index).tobytes(), yaml.dump(info)
    return found


@settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    index_type=st.sampled_from(["Flat", "IVF", "HNSW32"]),
    at=st.integers(0, 10**6),
    garbage=st.binary(min_size=1, max_size=9),
)
@example("HNSW32", 90, b"\xff" * 8)
@example("IVF", 90, b"\xff" * 8)
def test_changed_bytes_give_an_error_or_an_index_of_features(
    small, in_child, tmp_path, index_type, at, garbage
):
    data, labels = small[index_type]
    at %= len(data)
    changed = data[:at] + garbage + data[at + len(garbage) :]
    (tmp_path / "vector.index").write_bytes(changed)
    (tmp_path / "id_map.yaml").write_text(labels)
    try:
        with index_files.opened(tmp_path) as content:
            assert content.vectors.shape == (9, 8)
            assert np.abs(np.linalg.norm(content.vectors, axis=1) - 1).max() < 2e-3
    except RecognitionError as error:
        assert len(error.message) < 700
