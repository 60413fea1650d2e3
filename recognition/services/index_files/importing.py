"""The vectors of an index directory go into a catalogue, with or without their pictures."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from django.conf import settings
from django.db import transaction

from recognition import images, search
from recognition.engine.types import Vectors
from recognition.errors import BadInput, Conflict, RecognitionError
from recognition.gallery_list import Entry, Severity, clean_label, read_gallery_list
from recognition.models import (
    Action,
    Catalogue,
    CropPolicy,
    GalleryImage,
    Product,
    State,
    User,
    VectorIndex,
    View,
)
from recognition.services import audit, gallery_adding, quotas
from recognition.services.imports.places import Folder
from recognition.services.index_child import LABELS, VECTORS, IndexContent, read
from recognition.services.runtime import get_runtime

SAME_PICTURE: Final = 0.99
"""Cosine of a stored vector and that of its picture embedded now, from which they are the same."""

_SAMPLE: Final = 8
_CHUNK: Final = 500
_CHUNK_PICTURES, _CHUNK_BYTES = 32, 32 * 2**20
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
    for start in range(0, len(content.ids), _CHUNK):
        with np.errstate(over="ignore"):  # damaged numbers may be huge
            lengths = np.linalg.norm(content.vectors[start : start + _CHUNK], axis=1)
        wrong = ~(np.abs(lengths - 1) <= _UNIT_TOLERANCE)  # NaN is wrong too
        if wrong.any():
            at = start + int(np.argmax(wrong))
            raise BadInput(
                f"the vector of id {content.ids[at]} has length {lengths[at - start]:.4g} where 1 "
                "is needed: it is no feature of PP-ShiTu, or the file is damaged. Import the "
                "gallery folder instead",
                field="index",
            )


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
    run = _Import(catalogue, space, by)
    done = 0
    for chunk in _chunks(content, paths):
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
            pixels.append(_picture(place, paths[numbers[position]]).pixels)
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


def _picture(place: Folder, path: str) -> images.Picture:
    with closing(place.open(path)) as file:
        return images.check(file, name=path)


@dataclass(frozen=True, slots=True)
class _Entry:
    """One id of an index on its way into the catalogue."""

    number: int
    label: str
    vector: Vectors
    path: str | None


def _chunks(content: IndexContent, paths: Mapping[int, str]) -> Iterator[list[_Entry]]:
    """By ascending id, with pictures or without, and with pictures only consecutive ids."""
    chunk: list[_Entry] = []
    for at, (number, label) in enumerate(zip(content.ids.tolist(), content.labels, strict=True)):
        entry = _Entry(number, label, content.vectors[at], paths.get(number))
        if chunk and (
            (entry.path is None) != (chunk[0].path is None)
            or (entry.path is not None and entry.number != chunk[-1].number + 1)
            or len(chunk) >= (_CHUNK if entry.path is None else _CHUNK_PICTURES)
        ):
            yield chunk
            chunk = []
        chunk.append(entry)
    if chunk:
        yield chunk


class _Import:
    """Adds chunks, each in a transaction of its own, and counts."""

    def __init__(self, catalogue: Catalogue, space: VectorIndex, by: User | None) -> None:
        self._catalogue, self._space, self._by = catalogue, space, by
        self.pictures = self.bare = self.duplicates = self.renumbered = 0
        self.problems: list[str] = []

    def add_pictures(self, chunk: Sequence[_Entry], place: Folder) -> None:
        """Entries of consecutive ids with their pictures; one that cannot be used comes bare."""
        run: list[tuple[_Entry, images.Picture]] = []
        size = 0
        for entry in chunk:
            try:
                picture = _picture(place, entry.path or "")
            except RecognitionError as error:
                self._add_run(run)
                run, size = [], 0
                self.problems.append(f"id {entry.number}, {entry.path}: {error.message}")
                self.add_bare([entry])
                continue
            run.append((entry, picture))
            size += len(picture.data)
            if size >= _CHUNK_BYTES:
                self._add_run(run)
                run, size = [], 0
        self._add_run(run)

    def _add_run(self, run: Sequence[tuple[_Entry, images.Picture]]) -> None:
        if not run:
            return
        new = [
            gallery_adding.NewImage(entry.label, picture, entry.path or "")
            for entry, picture in run
        ]
        with transaction.atomic():
            self._products([entry for entry, _ in run])
            self._reserve(run[0][0].number)
            added = gallery_adding.add_images(self._catalogue, new, by=self._by)
            created = [
                (entry, one.image)
                for (entry, _), one in zip(run, added, strict=True)
                if one.created
            ]
            if created:
                self._store([image.pk for _, image in created], [entry for entry, _ in created])
                # Embedded already: whom the wake-up calls finds nothing to do.
                GalleryImage.objects.filter(pk__in=[image.pk for _, image in created]).update(
                    state=State.DONE
                )
        self.pictures += len(created)
        self.duplicates += len(run) - len(created)
        self.renumbered += sum(entry.number != image.number for entry, image in created)

    def add_bare(self, chunk: Sequence[_Entry]) -> None:
        """Entries without pictures, by ascending id."""
        with transaction.atomic():
            products = self._products(chunk)
            wanted = {
                (products[clean_label(entry.label)].pk, self._checksum(entry)): entry
                for entry in chunk
            }
            there = set(
                GalleryImage.objects.filter(
                    catalogue=self._catalogue, checksum__in=[checksum for _, checksum in wanted]
                ).values_list("product_id", "checksum")
            )
            new = {pair: entry for pair, entry in wanted.items() if pair not in there}
            if new:
                self._create(new)
        self.bare += len(new)
        self.duplicates += len(chunk) - len(new)

    def _create(self, new: Mapping[tuple[int, str], _Entry]) -> None:
        entries = list(new.values())
        numbers = self._take([entry.number for entry in entries])
        rows = GalleryImage.objects.bulk_create(
            GalleryImage(
                catalogue=self._catalogue,
                product_id=product_id,
                number=number,
                file="",
                source_name=f"{VECTORS}, id {entry.number}",
                checksum=checksum,
                width=0,
                height=0,
                byte_size=0,
                added_by=self._by,
                state=State.DONE,
            )
            for ((product_id, checksum), entry), number in zip(new.items(), numbers, strict=True)
        )
        self._store([row.pk for row in rows], entries)
        quotas.check_stored(self._catalogue)
        audit.record(
            Action.IMAGE_ADD,
            catalogue=self._catalogue,
            by=self._by,
            count=len(rows),
            images=audit.ids(rows),
            without_pictures=True,
        )
        self.renumbered += sum(
            entry.number != number for entry, number in zip(entries, numbers, strict=True)
        )

    def _checksum(self, entry: _Entry) -> str:
        """In the place of a picture's: the same id and vector are added once."""
        digest = hashlib.sha256(f"{self._space.feature_model.digest} {entry.number} ".encode())
        digest.update(np.ascontiguousarray(entry.vector).tobytes())
        return digest.hexdigest()

    def _store(self, image_ids: Sequence[int], entries: Sequence[_Entry]) -> None:
        vectors = np.stack([entry.vector for entry in entries])
        search.store(self._space, image_ids, [View.WHOLE] * len(entries), vectors)

    def _products(self, entries: Sequence[_Entry]) -> dict[str, Product]:
        """The product of each label, made where needed, locked before anybody locks the catalogue.

        Everybody who adds does so in this order, so that nobody waits for each other.
        """
        labels = sorted({clean_label(entry.label) for entry in entries})
        Product.objects.bulk_create(
            [Product(catalogue=self._catalogue, label=label) for label in labels],
            ignore_conflicts=True,
        )
        rows = Product.objects.filter(catalogue=self._catalogue, label__in=labels)
        return {row.label: row for row in rows.order_by("pk").select_for_update(no_key=True)}

    def _take(self, numbers: Sequence[int]) -> Sequence[int]:
        """These ascending ids if the catalogue has given out none of them, else fresh ones."""
        kept = self._reserve(numbers[-1] + 1 - len(numbers), least=numbers[0])
        taken = self._catalogue.take_numbers(len(numbers))
        return numbers if kept else taken

    def _reserve(self, first: int, *, least: int | None = None) -> bool:
        """Have the next id be `first`, if `least` (or `first`) has not been given out."""
        rows = Catalogue.objects.filter(pk=self._catalogue.pk).select_for_update(no_key=True)
        if (first if least is None else least) < rows.get().next_number:
            return False
        rows.update(next_number=first)
        return True
