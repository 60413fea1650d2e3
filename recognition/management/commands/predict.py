"""PaddleX's `predict`, answered by the workers."""

from __future__ import annotations

import io
import json
from argparse import ArgumentParser
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePath, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from django.core.management.base import BaseCommand, CommandError
from PIL import Image

from recognition import drawing, images, inputs
from recognition.errors import BadInput
from recognition.fetch import fetch_picture
from recognition.images import Picture
from recognition.inputs import Item
from recognition.management import progress
from recognition.management.workers import worker_running
from recognition.models import RecognitionQuery
from recognition.services import pictures, queries
from recognition.services.imports.lines import printable

_JPEG = {".jpg", ".jpeg"}
_WRITABLE = {".bmp", ".dib", ".png", ".webp", ".pbm", ".pgm", ".ppm", ".pnm", ".tif", ".tiff"}


class Command(BaseCommand):
    help = (
        "Recognise pictures: files (of TIFF and PDF every page), directories (all pictures below "
        "them) or URLs. Prints "
        'PaddleX\'s {"res": {"input_path", "boxes"}} for each. Exit code 0: all are answered, '
        "1: some failed, 2: none could be answered."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("input", nargs="+", metavar="INPUT", help="file, directory or URL")
        parser.add_argument("--catalogue", required=True, help="name or key")
        parser.add_argument("--user", help="on whose behalf (default: the first superuser)")
        parser.add_argument(
            "--save", type=Path, metavar="DIR", help="write STEM.json and the picture with boxes"
        )
        parser.add_argument("--json", action="store_true", help="one line of JSON for each input")
        parser.add_argument("--det-threshold", type=float)
        parser.add_argument("--rec-threshold", type=float)
        parser.add_argument("--topk", type=int)

    def handle(self, **options: Any) -> None:
        with progress.in_words():
            catalogue = progress.find_catalogue(options["catalogue"], options["user"])
            user = progress.find_user(options["user"])
        asked = queries.Options(
            det_threshold=options["det_threshold"],
            rec_threshold=options["rec_threshold"],
            top_k=options["topk"],
            per_product=False,  # PaddleX's answer names every reference picture
        )
        save = Saver(options["save"]) if options["save"] else None
        names: deque[str] = deque()
        answered = failed = 0

        def named() -> Iterator[tuple[str, Callable[[], Picture]]]:
            for name, load in _inputs(options["input"]):
                names.append(name)
                yield printable(name), load

        with worker_running(self.stderr):
            for answer in queries.ask_all(catalogue, named(), by=user, options=asked):
                name = names.popleft()
                if answer.query is None:
                    failed += 1
                    reason = answer.error.message if answer.error else "no answer"
                    self.stderr.write(f"{printable(name)}: {reason}")
                    continue
                answered += 1
                result = queries.paddlex_result(answer.query, input_path=printable(name))
                indent = None if options["json"] else 4
                self.stdout.write(json.dumps(result, ensure_ascii=False, indent=indent))
                if save:
                    save(name, answer.query, result)
        if failed:
            raise CommandError(
                f"{failed} of {failed + answered} inputs could not be answered",
                returncode=progress.SOME_FAILED if answered else progress.NOTHING_DONE,
            )


class Saver:
    """Writes results as PaddleX names them. Inputs of one name do not overwrite each other."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._used: set[str] = set()
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CommandError(
                f"{directory} cannot be made: {error.strerror}", returncode=progress.NOTHING_DONE
            ) from error

    def __call__(self, name: str, query: RecognitionQuery, result: dict[str, Any]) -> None:
        path = self._unique(_file_name(name))
        (self._directory / drawing.saved_json_name(path)).write_text(
            json.dumps(result["res"], ensure_ascii=False, indent=4) + "\n", encoding="utf-8"
        )
        target = self._directory / drawing.saved_picture_name(path)
        jpeg = pictures.annotated(query, shown=query.catalogue.shown_label)
        if target.suffix.lower() in _JPEG:
            target.write_bytes(jpeg)
        elif target.suffix.lower() in _WRITABLE:
            Image.open(io.BytesIO(jpeg)).save(target)
        else:
            Image.open(io.BytesIO(jpeg)).save(target.with_suffix(".png"))

    def _unique(self, name: PurePath) -> PurePath:
        stem, number = name.stem, 1
        while stem in self._used:
            number += 1
            stem = f"{name.stem}-{number}"
        self._used.add(stem)
        return name.with_stem(stem)


def _inputs(given: list[str]) -> Iterator[tuple[str, Callable[[], Picture]]]:
    """Every input with what loads and checks it; URLs are fetched through the guard."""
    for item in inputs.items(given):
        name = str(item.path)
        yield name, partial(_fetch, name) if inputs.is_url(name) else partial(_read, item)


def _read(item: Item) -> Picture:
    try:
        data = item.load()
    except OSError as error:
        raise BadInput(f"it cannot be read: {error.strerror or error}", field="input") from error
    return images.check(io.BytesIO(data))


def _fetch(url: str) -> Picture:
    return images.check(fetch_picture(url))


def _file_name(name: str) -> PurePath:
    """Of a path or URL, what the results are called after."""
    if inputs.is_url(name):
        name = unquote(PurePosixPath(urlsplit(name).path).name).replace("/", "_") or "url"
    return PurePath(printable(PurePath(name).name) or "input")
