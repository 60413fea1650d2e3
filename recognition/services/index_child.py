"""Reads a PaddleX index directory that may be damaged or hostile, in a process of its own.

FAISS trusts what it reads. So what can be judged by the first bytes is judged here, FAISS sees only
the three kinds of index PaddleX makes, and it sees them in a child process that has little memory
and no long life: a file that crashes it or fills it costs one error message.

`read` starts `python -m recognition.services.index_child DIRECTORY SCRATCH`. Loads no Django.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml
from numpy.typing import NDArray

from recognition.errors import BadInput, RecognitionError, SetupError, TooLarge

VECTORS: Final = "vector.index"
LABELS: Final = "id_map.yaml"
MOST_INDEX_BYTES: Final = 8 * 2**30
MOST_LABELS_BYTES: Final = 64 * 2**20
MOST_DIMENSIONS: Final = 4_000
MOST_SECONDS: Final = 600
FAISS: Final = "faiss-cpu==1.15.1"

_ROOT: Final = Path(__file__).resolve().parents[2]
_HEADER: Final = struct.Struct(
    "<4siqqq?i"
)  # kind, dimension, vectors, two dummies, trained, metric
# The first four bytes of what PaddleX writes: IndexIDMap2 around one of these.
_OUTER: Final = (b"IxM2", b"IxMp")
_INNER: Final = {b"IxFI": "Flat", b"IxF2": "Flat", b"IwFl": "IVF", b"IHNf": "HNSW32"}
_METRICS: Final = ("IP", "L2")  # by FAISS's number
_OWN_MEMORY: Final = 2**30  # of an interpreter with numpy and faiss, in address space
_DEPTH: Final = 3  # of collections in id_map.yaml: two, and one that a better message refuses
_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class IndexContent:
    """What is in an index directory, by ascending id: ids (n,) int64, vectors (n, D) float32.

    `index_type` and `metric` are PaddleX's words. The vectors are mapped from a file.
    """

    index_type: str
    metric: str
    ids: NDArray[np.int64]
    labels: list[str]
    vectors: NDArray[np.float32]


def read(directory: Path, scratch: Path) -> IndexContent:
    """The content of an index directory; `scratch` is an empty directory that outlives its use.

    Raises BadInput for what is no index of PaddleX or is damaged, TooLarge, SetupError when FAISS
    is not installed.
    """
    size = _size(directory / VECTORS, MOST_INDEX_BYTES)
    size += 40 * _size(directory / LABELS, MOST_LABELS_BYTES)  # as Python objects
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MALLOC_ARENA_MAX")
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, "-m", __name__, str(directory.resolve()), str(scratch), str(size)]
    try:
        done = subprocess.run(  # noqa: S603  our own module, no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=MOST_SECONDS,
            env=os.environ | dict.fromkeys(threads, "1") | {"PYTHONPATH": os.pathsep.join(paths)},
        )
    except subprocess.TimeoutExpired as error:
        raise TooLarge(
            f"{VECTORS} could not be read within {MOST_SECONDS} s: it is damaged, or too large for "
            "this machine",
            field="index",
        ) from error
    answer = scratch / "answer.json"
    if done.returncode or not answer.is_file():
        why = f"exit code {done.returncode}"
        if done.returncode < 0:
            why = signal.Signals(-done.returncode).name
        raise BadInput(
            f"{VECTORS} is damaged: reading it ended the process that tried ({why}); copy the "
            "directory again, or save the index anew with PaddleX",
            field="index",
        )
    told = json.loads(answer.read_text())
    if "error" in told:
        raise _ERRORS[told["error"]](told["message"], field="index")
    return content(told, scratch)


def content(told: dict[str, Any], scratch: Path) -> IndexContent:
    """What the child left in `scratch`, with what it `told`."""
    return IndexContent(
        told["index_type"],
        told["metric"],
        np.load(scratch / "ids.npy", allow_pickle=False),
        told["labels"],
        np.load(scratch / "vectors.npy", mmap_mode="r", allow_pickle=False),
    )


_ERRORS: Final[dict[str, type[RecognitionError]]] = {
    error.__name__: error for error in (BadInput, TooLarge, SetupError)
}


def _size(path: Path, most: int) -> int:
    if not path.is_file():
        raise BadInput(
            f"there is no {path.name} in the directory; an index directory of PaddleX has "
            f"{VECTORS} and {LABELS}",
            field="index",
        )
    size = path.stat().st_size
    if size > most:
        raise TooLarge(
            f"{path.name} has {size:,} bytes, more than {most:,}; import the pictures and their "
            "gallery list instead",
            field="index",
        )
    return size


def _main(directory: Path, scratch: Path, size: int) -> None:
    """Of the child: everything goes to files in `scratch`, good or bad."""
    _limit(size)
    try:
        told = _read(directory, scratch)
    except (BadInput, TooLarge, SetupError) as error:
        told = {"error": type(error).__name__, "message": error.message}
    except (MemoryError, RecursionError):
        told = {
            "error": "TooLarge",
            "message": "reading the index needs far more memory than its size: it is damaged",
        }
    (scratch / "answer.json").write_text(json.dumps(told))


def _limit(size: int) -> None:
    memory = _OWN_MEMORY + 4 * size
    for what, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, MOST_SECONDS),
        (resource.RLIMIT_FSIZE, size + 2**20),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(what)
        resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard),) * 2)


def _read(directory: Path, scratch: Path) -> dict[str, Any]:
    kind, metric, count, dimension = _judged(directory / VECTORS)
    labels, said_kind, said_metric = _labels(directory / LABELS)
    for what, said, found in (
        ("index_type", said_kind, kind),
        ("metric_type", said_metric, metric),
    ):
        if said != found:
            raise BadInput(
                f"{LABELS} says {what} {said!r:.40} and {VECTORS} is {found!r}: the two files are "
                "not of one index, or it is of a type that cannot be imported (Flat, IVF and "
                "HNSW32 with IP or L2 can)"
            )
    if len(labels) != count:
        raise BadInput(
            f"{VECTORS} has {count:,} vectors and {LABELS} {len(labels):,} labels: the two files "
            "are not of one index; PaddleX refuses them too"
        )
    ids, vectors = _vectors(directory / VECTORS, kind, count, dimension)
    if len(np.unique(ids)) != count or ids.min() < 0 or ids.max() >= 2**62:
        raise BadInput(f"ids in {VECTORS} are negative, too large or there twice")
    missing = [int(one) for one in ids if int(one) not in labels][:_SHOWN]
    if missing:
        raise BadInput(
            f"{LABELS} has no label for the ids {', '.join(map(str, missing))} of {VECTORS}: the "
            "two files are not of one index"
        )
    order = np.argsort(ids)
    np.save(scratch / "ids.npy", ids[order])
    np.save(scratch / "vectors.npy", vectors[order])
    return {
        "index_type": kind,
        "metric": metric,
        "labels": [labels[int(one)] for one in ids[order]],
    }


def _judged(path: Path) -> tuple[str, str, int, int]:
    """Type, metric, number of vectors and their dimension, by the first bytes alone.

    All three types hold every vector as 32-bit floats, so a file that promises more of them than
    it has bytes is refused before anybody reserves memory for them.
    """
    with path.open("rb") as file:
        head = file.read(2 * _HEADER.size)
    if len(head) < 2 * _HEADER.size:
        raise BadInput(f"{VECTORS} is cut short; copy the directory again")
    outer, *of_outer = _HEADER.unpack(head[: _HEADER.size])
    inner, *of_inner = _HEADER.unpack(head[_HEADER.size :])
    if outer not in _OUTER or inner not in _INNER:
        raise BadInput(
            f"{VECTORS} is no index as PaddleX saves it: Flat, IVF or HNSW32 with ids (its first "
            f"bytes are {outer!r} and {inner!r})"
        )
    dimension, count, _, _, trained, metric = of_inner
    if of_outer[:2] != [dimension, count] or of_outer[5] != metric or metric not in (0, 1):
        raise BadInput(f"{VECTORS} contradicts itself: it is damaged")
    if count == 0:
        raise BadInput(f"there are no vectors in {VECTORS}")
    if not trained:
        raise BadInput(f"{VECTORS} was never trained, so there is nothing in it to find")
    if not 0 < dimension <= MOST_DIMENSIONS:
        raise BadInput(f"{VECTORS} has {dimension} dimensions; at most {MOST_DIMENSIONS:,} can be")
    if count < 0 or 4 * count * dimension > path.stat().st_size:
        raise BadInput(
            f"{VECTORS} promises {count:,} vectors of {dimension:,} dimensions, which do not fit "
            "into its bytes: it is damaged or cut short"
        )
    return _INNER[inner], _METRICS[metric], count, dimension


def _labels(path: Path) -> tuple[dict[int, str], str, str]:
    """Labels by id, index type and metric, with the meaning PyYAML gives them in PaddleX.

    PaddleX reads with FullLoader and applies `int` and `str`; SafeLoader resolves plain values in
    the same way and makes no objects. Aliases and deep nesting are refused as soon as they come: a
    few hundred bytes of the one unfold to gigabytes, the other takes a parser minutes.
    """
    data = path.read_bytes()
    try:
        depth = 0
        for event in yaml.parse(data, Loader=yaml.CSafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > _DEPTH:
                raise BadInput(
                    f"{LABELS} is more than a list of ids and labels: it nests values, or repeats "
                    "them by aliases"
                )
        info = yaml.load(data, Loader=yaml.CSafeLoader)  # noqa: S506  (a SafeLoader in C)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = "" if line is None else f", line {line + 1}"
        raise BadInput(
            f"{LABELS} is no YAML that can be read{where}; save the index anew"
        ) from error
    absent = [key for key in ("id_map", "index_type", "metric_type") if key not in (info or {})]
    if not isinstance(info, dict) or absent or not isinstance(info["id_map"], dict):
        raise BadInput(f"{LABELS} lacks {', '.join(absent) or 'a list of ids and labels'}")
    labels: dict[int, str] = {}
    for key, label in info["id_map"].items():
        if isinstance(key, bool) or not str(key).isascii() or not str(key).isdigit():
            raise BadInput(f"{LABELS} has the id {key!r:.40}, which is no whole number")
        if isinstance(label, list | dict | set | tuple | bytes):
            raise BadInput(f"the label of id {key} in {LABELS} is no text")
        labels[int(key)] = str(label)
    return labels, str(info["index_type"]), str(info["metric_type"])


def _vectors(
    path: Path, kind: str, count: int, dimension: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """External ids (n,) and vectors (n, D) in the same order."""
    try:
        import faiss
    except ImportError as error:
        raise SetupError(
            f"index files need FAISS, which is not installed: pip install {FAISS}"
        ) from error
    faiss.set_deserialization_vector_byte_limit(path.stat().st_size)
    try:
        index: Any = faiss.read_index(str(path), faiss.IO_FLAG_READ_ONLY)
        ids = faiss.vector_to_array(index.id_map).copy()
        base = faiss.downcast_index(index.index)
        if kind == "IVF":
            vectors = _from_lists(faiss, base, count, dimension)
        else:
            vectors = _from_storage(faiss, base, count, dimension)
    except (RuntimeError, AttributeError, AssertionError) as error:
        raise BadInput(f"{VECTORS} is damaged or cut short; copy the directory again") from error
    if len(ids) != count:
        raise BadInput(f"{VECTORS} has {len(ids):,} ids for {count:,} vectors: it is damaged")
    return ids, vectors


def _from_storage(faiss: Any, base: Any, count: int, dimension: int) -> NDArray[np.float32]:
    """Of Flat, and of the Flat that HNSW keeps its vectors in."""
    flat = faiss.downcast_index(base.storage) if hasattr(base, "storage") else base
    if (
        not isinstance(flat, faiss.IndexFlat)
        or (flat.ntotal, flat.d) != (count, dimension)
        or flat.codes.size() != 4 * count * dimension
    ):
        raise BadInput(f"the vectors in {VECTORS} are not stored as PaddleX stores them")
    return np.asarray(flat.reconstruct_n(0, count), np.float32)


def _from_lists(faiss: Any, base: Any, count: int, dimension: int) -> NDArray[np.float32]:
    """Of IVF: each list has positions and vectors.

    After a removal PaddleX leaves the positions as they were and closes up the ids, so every later
    label stands at the wrong vector (PaddleX itself then answers wrongly); it shows in that the
    positions are no longer 0 .. n - 1.
    """
    lists = faiss.downcast_InvertedLists(base.invlists)
    if not isinstance(lists, faiss.ArrayInvertedLists) or lists.code_size != 4 * dimension:
        raise BadInput(f"the lists in {VECTORS} are not stored as PaddleX stores them")
    vectors = np.empty((count, dimension), np.float32)
    seen = np.zeros(count, bool)
    total = 0
    for number in range(lists.nlist):
        size = lists.list_size(number)
        if not size:
            continue
        total += size
        positions = faiss.rev_swig_ptr(lists.get_ids(number), size)
        if positions.min() < 0 or positions.max() >= count or total > count:
            raise _scrambled()
        codes = faiss.rev_swig_ptr(lists.get_codes(number), size * lists.code_size)
        vectors[positions] = codes.view(np.float32).reshape(size, dimension)
        seen[positions] = True
    if not seen.all():
        raise _scrambled()
    return vectors


def _scrambled() -> BadInput:
    return BadInput(
        f"ids were removed from this IVF index, after which PaddleX no longer knows which label "
        f"belongs to which vector: the labels in {LABELS} cannot be trusted. Build the index anew "
        "from its pictures, or import the gallery folder alone"
    )


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
