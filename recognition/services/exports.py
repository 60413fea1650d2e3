"""A catalogue as one ZIP: what PaddleX reads, and what this platform needs to restore all of it.

    gallery.txt       `images/12.jpg label`, as PaddleX has it
    images/           the pictures, named by their vector ids
    catalogue.json    settings, products, images (boxes, ids); one object a line
    embeddings.npy    if asked for: (N, D) float16, as the database keeps them
    embeddings.json   what made them: model, weights hash, preprocessing

`recognition/services/imports/site_archive.py` reads it.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import IO, Any, BinaryIO, Final

import numpy as np
import structlog
from django.core.files.base import File
from django.core.files.storage import default_storage
from django.core.serializers.json import DjangoJSONEncoder
from django.db import transaction
from django.db.models import QuerySet
from django.forms.models import model_to_dict

from recognition.gallery_list import write_gallery_list
from recognition.models import Catalogue, Embedding, GalleryImage, Job, Product, State, User
from recognition.models.job import job_path
from recognition.services import files, jobs, product_fields
from recognition.services.imports.site_archive import (
    CATALOGUE,
    CATALOGUE_FIELDS,
    EMBEDDINGS,
    FORMAT,
    SPACE_FIELDS,
    VECTORS,
    VERSION,
)
from recognition.services.jobs import Lease, Progress

log = structlog.get_logger(__name__)

_BATCH: Final = 500
_COPIED_AT_ONCE: Final = 1 << 20
Written = Callable[[int, int], object]
"""Called with how many images are written and how many there are."""
Alive = Callable[[], object]
"""Called again and again, never minutes apart; what it raises ends the writing."""


def start(catalogue: Catalogue, *, by: User | None, embeddings: bool = False) -> Job:
    """Queue an export; when the job is done its `file` is the ZIP.

    Raises LimitReached when too many jobs run.
    """
    job = Job(
        catalogue=catalogue,
        kind=Job.Kind.EXPORT,
        started_by=by,
        source_name=f"{catalogue.name}.zip",
        options={"embeddings": embeddings},
    )
    with transaction.atomic():
        return jobs.queue(job)


def run(job: Job, lease: Lease, progress: Progress) -> None:
    """Write the ZIP of an export job. One that was killed begins again; only the end counts."""
    came_before = job.done

    def written(done: int, total: int) -> None:
        job.done, job.total = done, total
        # What an earlier run wrote too is no progress: this one may be killed where that was.
        renew = lease.advance if done > came_before else lease.renew
        renew(done=done, total=total)
        progress(job)

    with tempfile.TemporaryFile() as file, files.storing() as stored:
        embeddings = job.options["embeddings"]
        write(job.catalogue, file, embeddings=embeddings, written=written, alive=lease.renew_if_old)
        file.seek(0)
        with lease.kept(lambda: None):  # a storage elsewhere takes its time, and no word from us
            name = default_storage.save(job_path(job, "x.zip"), File(file))
        stored.append(name)
        lease.renew(file=name)


def write(
    catalogue: Catalogue,
    target: BinaryIO,
    *,
    embeddings: bool = False,
    written: Written = lambda done, total: None,
    alive: Alive = lambda: None,
) -> int:
    """Write the ZIP into `target` (a seekable file); returns how many images.

    In bounded memory, but for the label of every product.

    Products are as they were at the start: every image is of a product that is in it, by the same
    label. What is removed before it was written is left out everywhere; what is added meanwhile may
    be in it or not. Vectors are only those that the network and settings of `catalogue`, as given,
    made of the box that is written; an image that waits for another one is without.
    """
    with ExitStack() as stack:
        archive = stack.enter_context(zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED))
        parts = _Parts(stack, embeddings, alive)
        parts.add_products(catalogue.products.order_by("pk"))
        total = catalogue.images.count()
        for batch in _batches(catalogue):
            vectors = _vectors(catalogue, batch) if embeddings else {}
            for image in batch:
                alive()
                path = f"images/{image.number}{PurePosixPath(str(image.file)).suffix}"
                if parts.has_product(image) and _copy_picture(image, path, archive):
                    parts.add(image, path, vectors.get(image.pk, {}))
            written(parts.images, max(total, parts.images))
        written(parts.images, parts.images)  # some went meanwhile, or came without a picture
        parts.finish(catalogue, archive)
    return parts.images


@dataclass
class _Parts:
    """The lists that grow with the pictures, on disk until the pictures are in the archive."""

    stack: ExitStack
    with_vectors: bool
    alive: Alive
    images: int = 0
    rows: int = 0
    without: int = 0
    labels: dict[int, str] = field(default_factory=dict)
    products: IO[bytes] = field(init=False)
    gallery: IO[bytes] = field(init=False)
    described: IO[bytes] = field(init=False)
    vectors: IO[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.products, self.gallery, self.described, self.vectors = (
            self._on_disk() for _ in range(4)
        )

    def _on_disk(self) -> IO[bytes]:
        return self.stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115

    def add_products(self, rows: QuerySet[Product]) -> None:
        columns = rows.values("pk", *product_fields.FIELDS)
        for product in columns.iterator(chunk_size=1000):
            self.alive()
            self.products.write(b",\n" if self.labels else b"\n")
            self.labels[product.pop("pk")] = product["label"]
            self.products.write(_json(product))

    def has_product(self, image: GalleryImage) -> bool:
        """Whether the image's product is written; one that was made meanwhile is, now."""
        if image.product_id not in self.labels:
            mine = Product.objects.filter(catalogue=image.catalogue_id)  # it may have moved
            self.add_products(mine.filter(pk=image.product_id))
        return image.product_id in self.labels

    def add(self, image: GalleryImage, path: str, vectors: dict[int, Any]) -> None:
        label = self.labels[image.product_id]
        self.gallery.writelines(write_gallery_list([(path, label)]))
        self.described.write(b",\n" if self.images else b"\n")
        self.described.write(
            _json(
                {
                    "path": path,
                    "label": label,
                    "external_id": image.external_id,
                    "number": image.number,
                    "box": image.box,
                    "box_source": image.box_source,
                    "source_name": image.source_name,
                    "checksum": image.checksum,
                    "vectors": sorted(vectors),
                }
            )
        )
        for view in sorted(vectors):
            self.vectors.write(vectors[view].tobytes())
            self.rows += 1
        self.without += not vectors
        self.images += 1

    def finish(self, catalogue: Catalogue, archive: zipfile.ZipFile) -> None:
        with archive.open("gallery.txt", "w", force_zip64=True) as out:
            self._copy(self.gallery, out)
        with archive.open(CATALOGUE, "w", force_zip64=True) as out:
            out.write(_head(catalogue, {"products": len(self.labels), "images": self.images}))
            self._copy(self.products, out)
            out.write(b'\n],\n"images": [')
            self._copy(self.described, out)
            out.write(b"\n]}\n")
        if self.with_vectors:
            if self.without:
                log.warning(
                    "exported_without_vectors",
                    catalogue=catalogue.pk,
                    images=self.without,
                    reason="they are not embedded, or by other settings than at the start",
                )
            manifest = _manifest(catalogue, self.rows, self.without)
            archive.writestr(EMBEDDINGS, json.dumps(manifest, indent=2, ensure_ascii=False))
            with archive.open(VECTORS, "w", force_zip64=True) as out:
                shape = (self.rows, manifest["dimension"])
                np.lib.format.write_array_header_1_0(
                    out, {"descr": "<f2", "fortran_order": False, "shape": shape}
                )
                self._copy(self.vectors, out)

    def _copy(self, part: IO[bytes], out: IO[bytes]) -> None:
        part.seek(0)
        while data := part.read(_COPIED_AT_ONCE):
            out.write(data)
            self.alive()


def _batches(catalogue: Catalogue) -> Iterator[list[GalleryImage]]:
    """All images by vector id, a batch at a time; no transaction is held between them."""
    last = -1
    rows = GalleryImage.objects.filter(catalogue=catalogue)
    while batch := list(rows.filter(number__gt=last).order_by("number")[:_BATCH]):
        yield batch
        last = batch[-1].number


def _vectors(catalogue: Catalogue, batch: Sequence[GalleryImage]) -> dict[int, dict[int, Any]]:
    """Image id -> view -> its vector as float16 (D,), bit by bit as stored.

    None for an image that is not embedded, or has another box by now than in `batch`; none at all
    once the catalogue sees or answers otherwise. One statement, so all of that is of one moment.
    """
    boxes = {image.pk: (image.box, image.box_source) for image in batch}
    space = catalogue.require_index()
    rows = Embedding.objects.filter(
        space=space,
        image__in=boxes,
        image__state=State.DONE,
        image__catalogue__index=space,
        image__catalogue__crop_policy=catalogue.crop_policy,
        image__catalogue__detector=catalogue.detector,
    ).values_list("image_id", "view", "emb", "image__box", "image__box_source")
    found: dict[int, dict[int, Any]] = {}
    for image_id, view, vector, *box in rows:
        if tuple(box) == boxes[image_id]:
            found.setdefault(image_id, {})[view] = np.asarray(vector, dtype="<f2")
    return found


def _copy_picture(image: GalleryImage, path: str, archive: zipfile.ZipFile) -> bool:
    """Put the picture into the archive; False when there is none: the image was removed meanwhile,
    or came as a vector only, which index files carry."""
    if not image.file:
        return False
    try:
        data = files.read(str(image.file))
    except FileNotFoundError:
        if GalleryImage.objects.filter(pk=image.pk).exists():
            raise  # its row promises a file
        return False
    info = zipfile.ZipInfo(path, image.created_at.timetuple()[:6])
    info.external_attr = 0o644 << 16
    archive.writestr(info, data, zipfile.ZIP_STORED)  # pictures do not shrink
    return True


def _head(catalogue: Catalogue, counts: dict[str, int]) -> bytes:
    """Everything of catalogue.json before the products."""
    space = catalogue.require_index()
    own = model_to_dict(catalogue, CATALOGUE_FIELDS)
    own |= {name: getattr(space, name) for name in SPACE_FIELDS}
    own |= {"feature_model": space.feature_model.name, "digest": space.feature_model.digest}
    return b'{"format": %b, "version": %d,\n"catalogue": %b,\n"counts": %b,\n"products": [' % (
        _json(FORMAT), VERSION, _json(own), _json(counts),
    )  # fmt: skip


def _manifest(catalogue: Catalogue, rows: int, without: int) -> dict[str, Any]:
    model = catalogue.require_index().feature_model
    return {
        "model": model.name,
        "digest": model.digest,
        "dimension": model.dimension,
        "preprocessing": model.preprocessing,
        "crop_policy": catalogue.crop_policy,
        "detector": catalogue.detector,
        "rows": rows,
        "images_without": without,
        "order": "as the images in catalogue.json, and their “vectors” (0 whole, 1 main body)",
    }


def _json(value: Any) -> bytes:
    return json.dumps(value, cls=DjangoJSONEncoder, ensure_ascii=False).encode()
