"""Entries of an index become rows of a catalogue, chunk by chunk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Final

import numpy as np
from django.db import transaction

from recognition import images, search
from recognition.engine.types import Vectors
from recognition.errors import Conflict, RecognitionError
from recognition.gallery_list import clean_label
from recognition.models import (
    Action,
    Catalogue,
    GalleryImage,
    Product,
    State,
    User,
    VectorIndex,
    View,
)
from recognition.services import audit, gallery_adding, products, quotas
from recognition.services.imports.places import Folder
from recognition.services.index_child import VECTORS, IndexContent

_CHUNK: Final = 500
_CHUNK_PICTURES, _CHUNK_BYTES = 32, 32 * 2**20


def open_picture(place: Folder, path: str) -> images.Picture:
    """The checked picture at `path` of a gallery list; raises RecognitionError."""
    with closing(place.open(path)) as file:
        return images.check(file, name=path)


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One id of an index on its way into the catalogue."""

    number: int
    label: str
    vector: Vectors
    path: str | None


_Pictured = tuple[IndexEntry, images.Picture]


def chunks(content: IndexContent, paths: Mapping[int, str]) -> Iterator[list[IndexEntry]]:
    """By ascending id, with pictures or without, and with pictures only consecutive ids."""
    chunk: list[IndexEntry] = []
    for at, (number, label) in enumerate(zip(content.ids.tolist(), content.labels, strict=True)):
        entry = IndexEntry(number, label, content.vectors[at], paths.get(number))
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


class Adding:
    """Adds chunks to a catalogue, each in a transaction of its own, and counts."""

    def __init__(self, catalogue: Catalogue, space: VectorIndex, by: User | None) -> None:
        self._catalogue, self._space, self._by = catalogue, space, by
        self.pictures = self.bare = self.duplicates = self.renumbered = 0
        self.problems: list[str] = []

    def add_pictures(self, chunk: Sequence[IndexEntry], place: Folder) -> None:
        """Entries of consecutive ids with their pictures; one that cannot be used comes bare."""
        run: list[_Pictured] = []
        size = 0
        for entry in chunk:
            try:
                picture = open_picture(place, entry.path or "")
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

    def _add_run(self, run: Sequence[_Pictured]) -> None:
        """Without what its product has already: that takes no id, and all behind it would move."""
        there = set(
            GalleryImage.objects.filter(
                catalogue=self._catalogue, checksum__in=[picture.checksum for _, picture in run]
            ).values_list("product__label", "checksum")
        )
        part: list[_Pictured] = []
        for entry, picture in run:
            pair = (clean_label(entry.label), picture.checksum)
            if pair in there:
                self.duplicates += 1
                self._add_part(part)
                part = []
            else:
                there.add(pair)
                part.append((entry, picture))
        self._add_part(part)

    def _add_part(self, run: Sequence[_Pictured]) -> None:
        if not run:
            return
        new = [
            gallery_adding.NewImage(entry.label, picture, entry.path or "")
            for entry, picture in run
        ]
        with transaction.atomic():  # apart: pictures may take long to store
            self._reserve(run[0][0].number)
        with transaction.atomic():
            added = gallery_adding.add_images(self._catalogue, new, by=self._by)
            created = [
                (entry, one.image)
                for (entry, _), one in zip(run, added, strict=True)
                if one.created
            ]
            if created and gallery_adding.embeds_as_before(self._catalogue):
                self._store([image.pk for _, image in created], [entry for entry, _ in created])
                # Embedded already: whom the wake-up calls finds nothing to do.
                GalleryImage.objects.filter(pk__in=[image.pk for _, image in created]).update(
                    state=State.DONE
                )
        self.pictures += len(created)
        self.duplicates += len(run) - len(created)
        self.renumbered += sum(entry.number != image.number for entry, image in created)

    def add_bare(self, chunk: Sequence[IndexEntry]) -> None:
        """Entries without pictures, by ascending id."""
        with transaction.atomic():
            found = self._products(chunk)
            wanted = {
                (found[clean_label(entry.label)].pk, self._checksum(entry)): entry
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

    def _create(self, new: Mapping[tuple[int, str], IndexEntry]) -> None:
        entries = list(new.values())
        numbers = self._take([entry.number for entry in entries])
        if not gallery_adding.embeds_as_before(self._catalogue):
            raise Conflict(
                f"the catalogue “{self._catalogue}” was given another network or crop policy "
                "meanwhile, and vectors without pictures cannot be made anew; what came before "
                "stays. Import the index into a catalogue of its own",
                field="catalogue",
            )
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

    def _checksum(self, entry: IndexEntry) -> str:
        """In the place of a picture's: the same id and vector are added once."""
        digest = hashlib.sha256(f"{self._space.feature_model.digest} {entry.number} ".encode())
        digest.update(np.ascontiguousarray(entry.vector).tobytes())
        return digest.hexdigest()

    def _store(self, image_ids: Sequence[int], entries: Sequence[IndexEntry]) -> None:
        vectors = np.stack([entry.vector for entry in entries])
        search.store(self._space, image_ids, [View.WHOLE] * len(entries), vectors)

    def _products(self, entries: Sequence[IndexEntry]) -> dict[str, Product]:
        """The product of each label, made where needed, locked before anybody locks the catalogue.

        Everybody who adds does so in this order, so that nobody waits for each other.
        """
        return products.labelled(self._catalogue, [clean_label(entry.label) for entry in entries])

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
