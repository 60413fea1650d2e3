"""A catalogue becomes an index directory that PaddleX loads."""

from __future__ import annotations

import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import yaml

from recognition.engine.types import Vectors
from recognition.errors import BadInput, Conflict, SetupError
from recognition.models import Catalogue, CropPolicy, IndexType, Metric, VectorIndex, View
from recognition.search import export
from recognition.services.index_child import FAISS, LABELS, VECTORS

_MOST_LISTS: Final = 65_536
_VECTORS_PER_LIST: Final = 8  # PaddleX's rule for IVF


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, in PaddleX's words."""

    vectors: int
    dimension: int
    index_type: str
    metric: str


def export_directory(
    catalogue: Catalogue,
    directory: Path,
    *,
    index_type: str | None = None,
    metric: str | None = None,
) -> Exported:
    """Write the catalogue as an index directory that PaddleX loads; all of it or nothing.

    Of every image of an active product it has one vector under the image's number: that of the
    whole picture, which is what PaddleX embeds, or of the main body where the catalogue has no
    other. Type and metric default to the catalogue's (cosine is IP, as vectors have length 1). An
    index directory that is there already is replaced.

    Raises BadInput for an unknown type or metric, when there is nothing to write, or too little
    for IVF; Conflict when `directory` holds something else; SetupError without FAISS.
    """
    _refuse_other_content(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".index-", dir=directory.parent) as scratch:
        written = _write(catalogue, Path(scratch, "new"), index_type, metric)
        if directory.exists():
            directory.rename(Path(scratch, "old"))  # and goes with the scratch directory
        Path(scratch, "new").rename(directory)
    return written


def write_zip(
    catalogue: Catalogue,
    file: BinaryIO,
    *,
    index_type: str | None = None,
    metric: str | None = None,
) -> Exported:
    """The same two files as a ZIP, written into `file`. Raises as `export_directory`."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch, "index")
        written = _write(catalogue, directory, index_type, metric)
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name, packed in ((VECTORS, zipfile.ZIP_STORED), (LABELS, zipfile.ZIP_DEFLATED)):
                archive.write(directory / name, name, compress_type=packed)
    return written


def _refuse_other_content(directory: Path) -> None:
    if not directory.exists():
        return
    content = {path.name for path in directory.iterdir()} if directory.is_dir() else {"a file"}
    if content - {VECTORS, LABELS}:
        raise Conflict(
            f"{directory} holds {sorted(content)[0]}, so it is no index directory to be replaced; "
            "choose another name",
            field="directory",
        )


def _write(
    catalogue: Catalogue, directory: Path, index_type: str | None, metric: str | None
) -> Exported:
    space = catalogue.require_index()
    index_type = index_type or space.index_type
    metric = metric or space.metric
    if index_type not in IndexType.values:
        raise BadInput(
            f"index_type “{index_type}” is not one of {', '.join(IndexType.values)}",
            field="index_type",
        )
    if metric not in Metric.values:
        raise BadInput(
            f"metric “{metric}” is not one of {', '.join(Metric.values)}", field="metric"
        )
    if metric == Metric.COSINE:
        metric = Metric.IP
    numbers, labels, vectors = _collected(catalogue, space)
    index = _index(str(index_type), str(metric), vectors)
    index.add_with_ids(vectors, np.asarray(numbers, np.int64))
    directory.mkdir(mode=0o755)
    _faiss().write_index(index, str(directory / VECTORS))
    info = {
        "id_map": dict(zip(numbers, labels, strict=True)),
        "index_type": str(index_type),
        "metric_type": str(metric),
    }
    with (directory / LABELS).open("w", encoding="utf-8") as file:
        yaml.dump(info, file, Dumper=yaml.CSafeDumper, default_flow_style=False, allow_unicode=True)
    return Exported(len(numbers), vectors.shape[1], str(index_type), str(metric))


def _view(catalogue: Catalogue) -> View:
    """Which vector of an image an index file gets: it has room for one."""
    return View.MAIN_BODY if catalogue.crop_policy == CropPolicy.MAIN_BODY else View.WHOLE


def _collected(catalogue: Catalogue, space: VectorIndex) -> tuple[list[int], list[str], Vectors]:
    view = _view(catalogue)
    parts = list(export.fetch(space, view))
    if not parts:
        raise BadInput(
            f"the catalogue “{catalogue}” has no embedded image of an active product, and PaddleX "
            "knows no empty index; add pictures, or wait until they are embedded",
            field="catalogue",
        )
    numbers = [number for part in parts for number in part.numbers]
    labels = [label for part in parts for label in part.labels]
    return numbers, labels, np.concatenate([part.vectors for part in parts])


def _index(index_type: str, metric: str, vectors: Vectors) -> Any:
    """An empty, trained index as PaddleX's `build_index` makes it for these vectors."""
    faiss = _faiss()
    count, dimension = vectors.shape
    factory = index_type
    if index_type == IndexType.IVF:
        lists = min(count // _VECTORS_PER_LIST, _MOST_LISTS)
        if lists == 0:
            raise BadInput(
                f"an IVF index of {count} vectors cannot be searched: PaddleX makes a list for "
                f"every {_VECTORS_PER_LIST} vectors, so that there would be none; take Flat or "
                "HNSW32",
                field="index_type",
            )
        factory = f"IVF{lists},Flat"
    number = faiss.METRIC_L2 if metric == Metric.L2 else faiss.METRIC_INNER_PRODUCT
    base = faiss.index_factory(dimension, factory, number)
    if index_type == IndexType.IVF:
        # PaddleX's eight vectors a list are too few for FAISS's taste, and it would say so.
        faiss.downcast_index(base).cp.min_points_per_centroid = 1
        base.train(vectors)
    return faiss.IndexIDMap2(base)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise SetupError(
            f"index files need FAISS, which is not installed: pip install {FAISS}"
        ) from error
    return faiss
