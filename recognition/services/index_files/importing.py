"""The vectors of an index directory go into a catalogue, with or without their pictures."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from django.conf import settings

from recognition.errors import BadInput, Conflict, RecognitionError
from recognition.gallery_list import Entry, Severity, clean_label, read_gallery_list
from recognition.models import Catalogue, CropPolicy, User, VectorIndex
from recognition.services import indexes
from recognition.services.imports.places import Folder
from recognition.services.index_child import LABELS, IndexContent, read
from recognition.services.index_files.adding import Adding, chunks, open_picture
from recognition.services.runtime import get_runtime

SAME_PICTURE: Final = 0.99
"""Cosine of a stored vector and that of its picture embedded now, from which they are the same."""

_SAMPLE: Final = 8
_MEASURED_AT_ONCE: Final = 500
_UNIT_TOLERANCE: Final = 1e-3
_SHOWN: Final = 5

Progress = Callable[[int, int], object]
"""Called with how many vectors are behind and how many there are."""


@contextmanager
def opened(directory: Path) -> Iterator[IndexContent]:
    """The content of an index directory, checked, as long as the block runs.

    Raises BadInput with the reason for whatever is no index of PaddleX, is damaged or has labels
    that cannot be used; TooLarge; SetupError without FAISS.
    """
    with tempfile.TemporaryDirectory(prefix="index-") as scratch:
        content = read(directory, Path(scratch))
        _check_labels(content)
        _check_lengths(content)
        yield content


def _check_labels(content: IndexContent) -> None:
    bad = []
    for number, label in zip(content.ids, content.labels, strict=True):
        try:
            clean_label(label)
        except BadInput as error:
            bad.append(f"id {number}: {error.message}")
    if bad:
        raise BadInput(
            f"{len(bad)} labels in {LABELS} cannot be used ({'; '.join(bad[:_SHOWN])})",
            field="index",
        )


def _check_lengths(content: IndexContent) -> None:
    """PaddleX divides by the length; vectors that are not of length 1 would rank otherwise here."""
    for start in range(0, len(content.ids), _MEASURED_AT_ONCE):
        with np.errstate(over="ignore"):  # damaged numbers may be huge
            lengths = np.linalg.norm(content.vectors[start : start + _MEASURED_AT_ONCE], axis=1)
        wrong = ~(np.abs(lengths - 1) <= _UNIT_TOLERANCE)  # NaN is wrong too
        if wrong.any():
            at = start + int(np.argmax(wrong))
            raise BadInput(
                f"the vector of id {content.ids[at]} has length {lengths[at - start]:.4g} where 1 "
                "is needed: it is no feature of PP-ShiTu, or the file is damaged. Import the "
                "gallery folder instead",
                field="index",
            )


def settings_for(content: IndexContent) -> dict[str, Any]:
    """Options of `catalogues.create` with which a new catalogue answers as the index did."""
    return {
        "metric": content.metric,
        "index_type": content.index_type,
        "crop_policy": CropPolicy.WHOLE,
    }


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of an index: `pictures` came with theirs, `bare` without.

    `duplicates` were there already, `renumbered` could not keep their vector id because the
    catalogue has given it out before. `agreement` is the least cosine between a sample of the
    vectors and their pictures embedded here, None where no picture could tell. `problems` says
    which pictures could not be used; their vectors came without.
    """

    pictures: int
    bare: int
    duplicates: int
    renumbered: int
    agreement: float | None
    problems: tuple[str, ...]


def import_directory(
    catalogue: Catalogue,
    directory: Path,
    *,
    feature_model: str,
    by: User | None,
    pictures: Path | None = None,
    gallery_list: Path | None = None,
    progress: Progress = lambda done, total: None,
) -> Imported:
    """Take an index directory into a catalogue; see `import_content`."""
    with opened(directory) as content:
        return import_content(
            catalogue,
            content,
            feature_model=feature_model,
            by=by,
            pictures=pictures,
            gallery_list=gallery_list,
            progress=progress,
        )


def import_content(
    catalogue: Catalogue,
    content: IndexContent,
    *,
    feature_model: str,
    by: User | None,
    pictures: Path | None = None,
    gallery_list: Path | None = None,
    progress: Progress = lambda done, total: None,
) -> Imported:
    """Add every vector of an index, with its label, to a catalogue whose network made it.

    Nothing in the files says which network that was, so `feature_model` must be told, and must be
    the catalogue's. With `gallery_list` and `pictures`, the list the index was built from and its
    folder, pictures come too: line n of the list is id n - 1, as PaddleX counts. Then a sample of
    them is embedded here, and the import is refused where a vector is not that of its picture.

    Ids are kept where the catalogue has not given them out. Chunks are committed one by one; done
    again after an interruption, it goes on and nothing is added twice.

    Raises BadInput, Conflict; StorageFull when a quota is used up.
    """
    space = _fitting(catalogue, content, feature_model)
    paths: Mapping[int, str] = {}
    place = Folder(pictures) if pictures is not None else None
    agreement = None
    if place is not None:
        if gallery_list is None:
            raise BadInput(
                "pictures need the gallery list the index was built from", field="labels"
            )
        paths = _paired(content, gallery_list)
        agreement = _verify(content, paths, place, feature_model, space.feature_model.digest)
    else:  # nothing but vectors, as fast as they can be written
        indexes.before_load(space.pk, len(content.ids))
    run = Adding(catalogue, space, by)
    done = 0
    for chunk in chunks(content, paths):
        if place is not None and chunk[0].path is not None:
            run.add_pictures(chunk, place)
        else:
            run.add_bare(chunk)
        done += len(chunk)
        progress(done, len(content.ids))
    return Imported(
        run.pictures, run.bare, run.duplicates, run.renumbered, agreement, tuple(run.problems)
    )


def _fitting(catalogue: Catalogue, content: IndexContent, feature_model: str) -> VectorIndex:
    """The catalogue's search space, if these vectors may go there."""
    space = catalogue.require_index()
    model = space.feature_model
    if model.name != feature_model:
        raise Conflict(
            f"the catalogue “{catalogue}” uses {model.name} and the index was made by "
            f"{feature_model}; vectors of two networks cannot be compared. Import into a catalogue "
            "of its own",
            field="feature_model",
        )
    dimension = content.vectors.shape[1]
    if dimension != model.dimension:
        raise BadInput(
            f"the index has {dimension} dimensions and {model.name} makes {model.dimension}: "
            "another network made it; name that one",
            field="feature_model",
        )
    if catalogue.crop_policy != CropPolicy.WHOLE:
        raise Conflict(
            f"the catalogue “{catalogue}” embeds the main body of its pictures, PaddleX the whole "
            "picture; import into a catalogue with the crop policy “whole”, or import the gallery "
            "folder alone",
            field="catalogue",
        )
    return space


def _paired(content: IndexContent, gallery_list: Path) -> dict[int, str]:
    """Path of the picture of each id that the list has a line for. Raises BadInput."""
    labels = dict(zip(content.ids.tolist(), content.labels, strict=True))
    paths: dict[int, str] = {}
    wrong = []
    try:
        with gallery_list.open("rb") as file:
            for line in read_gallery_list(file, allow_absolute=True):
                number = line.line_number - 1
                if isinstance(line, Entry) and number in labels:
                    if clean_label(labels[number]) == line.label:
                        paths[number] = line.path
                    else:
                        wrong.append(
                            f"line {line.line_number} says “{line.label}”, id {number} is "
                            f"“{labels[number]}”"
                        )
                elif not isinstance(line, Entry) and line.severity == Severity.ERROR:
                    wrong.append(f"line {line.line_number}: {line.reason}")
    except OSError as error:
        raise BadInput(
            f"{gallery_list} cannot be read: {error.strerror}", field="labels"
        ) from error
    if wrong:
        raise BadInput(
            f"the index was not built from {gallery_list.name}: {len(wrong)} lines do not fit "
            f"({'; '.join(wrong[:_SHOWN])})",
            field="labels",
        )
    if not paths:
        raise BadInput(
            f"no id of the index belongs to a line of {gallery_list.name} (line n is id n - 1)",
            field="labels",
        )
    return paths


def _verify(
    content: IndexContent, paths: Mapping[int, str], place: Folder, name: str, digest: str
) -> float:
    """The least cosine between stored vectors and their pictures embedded here, of a sample."""
    numbers = sorted(paths)
    positions = np.unique(np.linspace(0, len(numbers) - 1, _SAMPLE).round().astype(int))
    sample, pixels = [], []
    for position in positions:
        try:
            pixels.append(open_picture(place, paths[numbers[position]]).pixels)
        except RecognitionError:  # reported with its line, when it is its turn
            continue
        sample.append(numbers[position])
    if not sample:
        raise BadInput(
            f"not one of {len(positions)} pictures tried can be opened below the folder; is it the "
            "one the gallery list was written for?",
            field="gallery",
        )
    made = get_runtime().embed(
        name, pixels, batch_size=settings.SHITU_BATCH_SIZE, expected_digest=digest
    )
    stored = content.vectors[np.searchsorted(content.ids, sample)]
    cosines = (made * stored).sum(axis=1)
    worst = int(np.argmin(cosines))
    if not cosines[worst] > SAME_PICTURE:
        raise BadInput(
            f"{name} did not make this index of these pictures: the vector of id {sample[worst]} "
            f"and that of {paths[sample[worst]]} have a cosine of {cosines[worst]:.3f}, where more "
            f"than {SAME_PICTURE} is needed. Name the network that made it, or import the gallery "
            "folder alone",
            field="feature_model",
        )
    return float(cosines[worst])
