"""Whatever PaddleX's `predict` and `build_index` take, as pictures that can be sent."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar, Final, TypeAlias
from urllib.parse import urlsplit

import httpx
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from recognition.errors import BadInput
from recognition.gallery_list import Entry, Severity, read_gallery_list, read_ids

Picture: TypeAlias = "str | Path | npt.NDArray[np.uint8] | Image.Image"
Input: TypeAlias = "Picture | Iterable[Input]"

# paddlex/inference/common/batch_sampler/image_batch_sampler.py, and what we read besides.
SUFFIXES: Final = frozenset(
    ("bmp", "dib", "jpeg", "jpg", "png", "webp", "pbm", "pgm", "ppm", "pnm", "sr", "ras", "tiff",
     "tif", "pdf", "gif", "avif")
)  # fmt: skip
_PAGED: Final = {"tif", "tiff", "pdf"}
_PDF_SCALE: Final = 2.0  # pixels a point: paddlex/inference/utils/io/readers.py, PDFReader
_URL_SECONDS: Final = 15.0
_SHOWN: Final = 5


@dataclass(frozen=True)
class Item:
    """One picture to ask about.

    `path` is what the result calls it (None: it has no name), `page` counts from 1 in a file of
    several. `load` gives the bytes of the picture's file; it raises BadInput or OSError, naming the
    picture, for what cannot be used.
    """

    path: str | None
    load: Callable[[], bytes]
    page: int | None = None


def items(source: Input) -> Iterator[Item]:
    """Every picture of an input, in order: a path, a URL, a directory (with all below it, sorted),
    an array (BGR or grey, uint8, as OpenCV has it), a PIL image, or a list of such.

    A TIFF or PDF of several pages gives one item a page, as in PaddleX. What is no picture is an
    item too, whose `load` says why: PaddleX leaves it out without a word, and an error here would
    take those before it along.
    """
    if isinstance(source, (np.ndarray, Image.Image)):
        given = source
        yield Item(
            None, lambda: from_array(given) if isinstance(given, np.ndarray) else from_pil(given)
        )
    elif isinstance(source, (str, Path)):
        yield from _named(source)
    elif isinstance(source, Iterable) and not isinstance(source, (bytes, dict)):
        for one in source:
            yield from items(one)
    else:
        yield _unusable(None, _no_picture(source))


def picture(source: Picture, root: Path | None = None) -> Callable[[], bytes]:
    """How to get the file of one gallery picture; a relative path starts at `root`. Raises BadInput
    for what can be none."""
    if isinstance(source, (str, Path)) and not is_url(source):
        return (Path(source) if root is None else root / source).read_bytes
    if isinstance(source, np.ndarray):
        _checked(source)
    elif not isinstance(source, (str, Image.Image)):
        raise _no_picture(source)
    [item] = items(source)
    return item.load


def from_array(pixels: npt.NDArray[np.uint8]) -> bytes:
    """PNG of a BGR (H, W, 3), BGRA (H, W, 4) or grey (H, W) uint8 array; alpha is dropped."""
    pixels = _checked(pixels)
    rgb = pixels if pixels.ndim == 2 else pixels[:, :, 2::-1]
    return from_pil(Image.fromarray(np.ascontiguousarray(rgb)))


def from_pil(image: Image.Image) -> bytes:
    """PNG of an image, as it is."""
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    return out.getvalue()


def to_array(data: bytes) -> npt.NDArray[np.uint8]:
    """The upright picture as PaddleX holds it: BGR uint8 (H, W, 3)."""
    with Image.open(io.BytesIO(data)) as image:
        rgb = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    return np.ascontiguousarray(rgb[:, :, ::-1])


def gallery(
    gallery_imgs: str | Path | Sequence[Picture], gallery_label: str | Path | Sequence[Any]
) -> list[tuple[Callable[[], bytes], str]]:
    """Pictures and labels of PaddleX's two ways: a folder with a gallery list, or two lists.

    Raises BadInput naming the lines of the list that cannot be used.
    """
    if isinstance(gallery_label, (str, Path)):
        if not isinstance(gallery_imgs, (str, Path)):
            raise BadInput(
                "with a gallery list, gallery_imgs is the folder of its pictures",
                field="gallery_imgs",
            )
        root, found, bad = Path(gallery_imgs), [], []
        with Path(gallery_label).open("rb") as file:
            for line in read_gallery_list(file, allow_absolute=True):
                if isinstance(line, Entry):
                    found.append((picture(line.path, root), line.label))
                elif line.severity == Severity.ERROR:
                    bad.append(f"line {line.line_number}: {line.reason}")
        if bad:
            raise BadInput(
                f"{Path(gallery_label).name}: {len(bad)} lines cannot be used "
                f"({'; '.join(bad[:_SHOWN])})",
                field="gallery_label",
            )
        return found
    if isinstance(gallery_imgs, (str, Path)):
        raise BadInput(
            "with a list of labels, gallery_imgs is the list of their pictures",
            field="gallery_imgs",
        )
    if len(gallery_imgs) != len(gallery_label):
        raise BadInput(
            f"{len(gallery_imgs)} pictures and {len(gallery_label)} labels; each picture needs one",
            field="gallery_label",
        )
    return [
        (picture(one), str(label)) for one, label in zip(gallery_imgs, gallery_label, strict=True)
    ]


def is_url(source: Any) -> bool:
    """Whether it is the address of a picture rather than a path."""
    return isinstance(source, str) and urlsplit(source).scheme in ("http", "https")


def ids(remove_ids: str | Path | Iterable[int]) -> list[int]:
    """Vector ids from a list, or from PaddleX's file of one id a line. Raises BadInput."""
    if not isinstance(remove_ids, (str, Path)):
        return [int(number) for number in remove_ids]
    found, bad = [], []
    with Path(remove_ids).open("rb") as file:
        for line in read_ids(file):
            if hasattr(line, "id"):
                found.append(line.id)
            elif line.severity == Severity.ERROR:
                bad.append(f"line {line.line_number}: {line.reason}")
    if bad:
        raise BadInput(f"{Path(remove_ids).name}: {'; '.join(bad[:_SHOWN])}", field="remove_ids")
    return found


def _named(source: str | Path) -> Iterator[Item]:
    text = str(source)
    if is_url(source):
        yield Item(text, lambda: _fetched(text))
        return
    path = Path(source)
    try:
        folder = path.is_dir()
    except OSError as error:  # a name that is too long
        yield _unusable(text, error)
        return
    if folder:
        files = sorted(file for file in path.rglob("*") if _suffix(file) in SUFFIXES)
        if not files:
            yield _unusable(text, BadInput(f"there is no picture in {path}", field="input"))
        for file in files:
            yield from _file(file, str(file))
    else:
        yield from _file(path, text)


def _no_picture(source: object) -> BadInput:
    return BadInput(
        f"a {type(source).__name__} is no picture; give a path, URL, directory, uint8 array (BGR), "
        "PIL image, or a list of them",
        field="input",
    )


def _unusable(name: str | None, error: Exception) -> Item:
    def load() -> bytes:
        raise error

    return Item(name, load)


def _file(path: Path, name: str) -> Iterator[Item]:
    if _suffix(path) not in _PAGED:
        yield Item(name, path.read_bytes)
        return
    document = _Pdf(path) if _suffix(path) == "pdf" else _Tiff(path)
    try:
        pages = document.pages()
    except (BadInput, OSError) as error:
        yield _unusable(name, error)
        return
    if pages == 1 and isinstance(document, _Tiff):
        yield Item(name, path.read_bytes)
        return
    for page in range(pages):
        yield Item(name, partial(document.page, page), page + 1 if pages > 1 else None)


@dataclass(frozen=True)
class _Tiff:
    path: Path

    def pages(self) -> int:
        try:
            with Image.open(self.path) as image:
                return getattr(image, "n_frames", 1)
        except UnidentifiedImageError:  # the server will say what is wrong with it
            return 1

    def page(self, number: int) -> bytes:
        with Image.open(self.path) as image:
            image.seek(number)
            return from_pil(image)


@dataclass(frozen=True)
class _Pdf:
    """Opened anew for each page: PDFium may be used by one thread at a time."""

    path: Path
    _turn: ClassVar[Lock] = Lock()

    def pages(self) -> int:
        with self._opened() as document:
            return len(document)

    def page(self, number: int) -> bytes:
        with self._opened() as document:
            return from_pil(document[number].render(scale=_PDF_SCALE).to_pil())

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        try:
            import pypdfium2
        except ImportError as error:
            raise BadInput(
                f"{self.path} is a PDF; install pypdfium2 to have its pages rendered",
                field="input",
            ) from error
        with self._turn:
            try:
                document = pypdfium2.PdfDocument(self.path.read_bytes())
            except pypdfium2.PdfiumError as error:
                raise BadInput(
                    f"{self.path} cannot be read as a PDF: {error}", field="input"
                ) from error
            with closing(document):
                yield document


def _suffix(path: Path) -> str:
    return path.suffix.lower().removeprefix(".")


def _fetched(url: str) -> bytes:
    """The picture behind a URL, got from here as PaddleX's library does."""
    try:
        response = httpx.get(url, timeout=_URL_SECONDS, follow_redirects=True)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise BadInput(f"{url} cannot be fetched: {error}", field="input") from error
    if not response.is_success:
        raise BadInput(f"{url} answered {response.status_code}", field="input")
    return response.content


def _checked(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    grey = pixels.ndim == 2
    colour = pixels.ndim == 3 and pixels.shape[2] in (3, 4)
    if pixels.dtype != np.uint8 or not (grey or colour):
        raise BadInput(
            f"an array of shape {pixels.shape} and type {pixels.dtype} is no picture; give uint8 "
            "of shape (H, W, 3) in BGR order, as cv2.imread does",
            field="input",
        )
    return pixels
