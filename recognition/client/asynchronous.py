"""The pipeline for programs that use asyncio; `pipeline.py` is the same for all others."""

from __future__ import annotations

import asyncio
import base64
import io
import sys
import warnings
import zipfile
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

from recognition import inputs
from recognition.client.progress import Bar
from recognition.client.results import ShiTuResult
from recognition.client.transport import ServerError, Transport
from recognition.errors import BadInput, RecognitionError
from recognition.inputs import Input, Item, Picture

# A request of so much is checked by the server in about a second.
_CHUNK_PICTURES, _CHUNK_BYTES = 32, 8 * 2**20
_LOOK_EVERY, _LOOK_SELDOM = 0.2, 2.0
_PAGE: Final = 200
_SHOWN: Final = 3

# What PaddleX's create_pipeline takes besides, and where it is decided here.
_AT_THE_SERVER: Final = {
    "config": "./manage.py pipeline_config FILE --catalogue NAME",
    "device": "SHITU_DEVICE",
    "engine": "SHITU_ENGINE",
    "engine_config": "SHITU_ENGINE_OPTIONS",
    "pp_option": "SHITU_ENGINE",
    "use_hpip": "SHITU_ENGINE=hpi",
    "hpi_config": "SHITU_ENGINE_OPTIONS",
}

OnError = Literal["raise", "skip"]


class AsyncIndex:
    """An index on the server. `key` finds it again; `save` writes PaddleX's files."""

    def __init__(self, pipeline: AsyncPipeline, key: str) -> None:
        self._pipeline = pipeline
        self.key = key

    def __repr__(self) -> str:
        return f"<index {self.key}>"

    async def save(self, save_path: str | Path) -> None:
        """Write `vector.index` and `id_map.yaml` into a directory, as PaddleX does."""
        answer = await self._pipeline.transport.native(
            "GET", f"/api/v1/catalogues/{self.key}/paddlex-index"
        )
        directory = Path(save_path)
        directory.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            for name in ("vector.index", "id_map.yaml"):
                (directory / name).write_bytes(archive.read(name))

    async def id_map(self) -> dict[int, str]:
        """Label of every vector id."""
        found: dict[int, str] = {}
        path: str | None = (
            f"/api/v1/catalogues/{self.key}/images?fields=number,label&ordering=number&limit={_PAGE}"
        )
        while path:
            page = (await self._pipeline.transport.native("GET", path)).json()
            found.update({row["number"]: row["label"] for row in page["results"]})
            path = page["next"]
        return found


class AsyncPipeline:
    """PaddleX's `ShiTuV2Pipeline` whose networks are on a server. Use it as `async with`."""

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        in_flight: int = 32,
        timeout: float = 330.0,
        progress: bool | None = None,
    ) -> None:
        """`in_flight` pictures are asked about at a time (32: two batches of a worker, which keeps
        it busy); `timeout` is seconds for one answer; `progress` shows a bar while a gallery goes
        up (default: on a terminal). Raises BadInput for an address that is none."""
        if in_flight < 1:
            raise BadInput("in_flight must be 1 or more", field="in_flight")
        self.transport = Transport(url, token, timeout=timeout, connections=in_flight + 4)
        self._in_flight = in_flight
        self._progress = sys.stderr.isatty() if progress is None else progress
        self._uploaded: dict[tuple[str, int], str] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Give the connections back."""
        await self.transport.close()

    async def build_index(
        self,
        gallery_imgs: str | Path | Sequence[Picture],
        gallery_label: str | Path | Sequence[Any],
        metric_type: str = "IP",
        index_type: str = "HNSW32",
        *,
        name: str | None = None,
    ) -> AsyncIndex:
        """A new index of pictures and labels; vector ids are 0, 1, 2 ... in their order.

        Folder and list, or two lists, as in PaddleX. `name` is what the site calls the catalogue.
        All or nothing. Raises ServerError, at once where the server wants a token; BadInput.
        """
        pairs = inputs.gallery(gallery_imgs, gallery_label)
        if not pairs:
            raise BadInput("the gallery is empty", field="gallery_imgs")
        await self._signed_in()
        body: dict[str, Any] = {"metricType": metric_type, "indexType": index_type}
        if name is not None:
            body["catalogue"] = name
        bar = Bar("build", len(pairs), shown=self._progress)
        key = ""
        ids: list[int] = []
        try:
            async for chunk in _chunks(pairs):
                if not key:
                    body |= {"imageLabelPairs": chunk, "wait": False}
                    # Sent again after a broken connection it might make two indexes.
                    answer = await self.transport.paddlex("shitu-index-build", body, again=False)
                    key = answer["indexKey"]
                else:
                    answer = await self._add(key, chunk)
                ids += answer["ids"]
            await self._embedded(key, ids, bar)
        except BaseException as error:
            if key:
                await _undone(error, self._forget(key), f"the index {key} is left on the server")
            raise
        finally:
            bar.end()
        return AsyncIndex(self, key)

    async def append_index(
        self,
        gallery_imgs: str | Path | Sequence[Picture],
        gallery_label: str | Path | Sequence[Any],
        index: AsyncIndex | str | Path,
    ) -> AsyncIndex:
        """More pictures into an index; all of them or none. Raises ServerError, BadInput."""
        pairs = inputs.gallery(gallery_imgs, gallery_label)
        await self._signed_in()
        key = await self.key_of(index)
        bar = Bar("append", len(pairs), shown=self._progress)
        ids: list[int] = []
        new: list[int] = []
        try:
            async for chunk in _chunks(pairs):
                answer = await self._add(key, chunk)
                ids += answer["ids"]
                new += answer["newIds"]
            await self._embedded(key, ids, bar)
        except BaseException as error:
            if new:
                left = f"{len(new)} pictures are left in the index {key}"
                await _undone(error, self._remove(key, new), left)
            raise
        finally:
            bar.end()
        return AsyncIndex(self, key)

    async def remove_index(
        self, remove_ids: str | Path | Iterable[int], index: AsyncIndex | str | Path
    ) -> AsyncIndex:
        """Remove vector ids, from a list or a file of one id a line; unknown ones are no error."""
        key = await self.key_of(index)
        await self._remove(key, inputs.ids(remove_ids))
        return AsyncIndex(self, key)

    async def predict(
        self,
        input: Input,
        index: AsyncIndex | str | Path | None = None,
        *,
        det_threshold: float | None = None,
        rec_threshold: float | None = None,
        rec_topk: int | None = None,
        hamming_radius: float | None = None,
        on_error: OnError = "raise",
    ) -> AsyncIterator[ShiTuResult]:
        """A result for each picture of `input`, in order, as soon as it is there.

        `index` is one that was built here, its key, a saved directory, or None for the server's
        default. What a threshold leaves open is the catalogue's own. A picture that cannot be used
        or answered raises BadInput, OSError or ServerError with its name once those before it are
        out; with `on_error` "skip" it is reported on standard error and left out.
        """
        options = {
            "indexKey": None if index is None else await self.key_of(index),
            "detThreshold": det_threshold,
            "recThreshold": rec_threshold,
            "topk": rec_topk,
            "hammingRadius": hamming_radius,
            "visualize": False,
        }
        given = {name: value for name, value in options.items() if value is not None}
        asked: deque[asyncio.Task[ShiTuResult]] = deque()
        try:
            for item in inputs.items(input):
                asked.append(asyncio.create_task(self._ask(item, given)))
                if len(asked) >= self._in_flight:
                    async for result in _next(asked, on_error):
                        yield result
            while asked:
                async for result in _next(asked, on_error):
                    yield result
        finally:
            for task in asked:
                task.cancel()

    async def _ask(self, item: Item, options: dict[str, Any]) -> ShiTuResult:
        name = item.path or "the picture"
        try:
            data = await asyncio.to_thread(item.load)
            body = {"image": base64.b64encode(data).decode(), **options}
            result = await self.transport.paddlex("shitu-infer", body)
        except ServerError as error:
            raise ServerError(
                f"{name}: {error.message}", status=error.status, log_id=error.log_id
            ) from error
        boxes = []
        for found in result["detectedObjects"]:
            matches = found["recResults"]
            boxes.append(
                {
                    "labels": [match["label"] for match in matches] or [None],
                    "rec_scores": [match["score"] for match in matches] or [None],
                    "det_score": found["score"],
                    "coordinate": found["bbox"],
                }
            )
        return ShiTuResult(item.path, boxes, lambda: data, page=item.page)

    async def key_of(self, index: AsyncIndex | str | Path) -> str:
        """The key of an index; a directory is uploaded at first use and whenever it changed."""
        if isinstance(index, AsyncIndex):
            return index.key
        directory = Path(index)
        if not (directory / "vector.index").is_file():
            if isinstance(index, Path) or directory.is_dir():
                raise BadInput(f"{index} is no saved index: it has no vector.index", field="index")
            return str(index)
        changed = max(
            (directory / name).stat().st_mtime_ns for name in ("vector.index", "id_map.yaml")
        )
        known = (str(directory.resolve()), changed)
        if known not in self._uploaded:
            await self._signed_in()
            data = await asyncio.to_thread(_zipped, directory)
            answer = await self.transport.native(
                "POST", "/api/v1/paddlex-indexes", files={"file": ("index.zip", data)}
            )
            self._uploaded[known] = answer.json()["indexKey"]
        return self._uploaded[known]

    async def _signed_in(self) -> None:
        """Find out before anything goes up that the native API lets us in. Raises ServerError."""
        await self.transport.native("GET", "/api/v1/catalogues?fields=key&limit=1")

    async def _add(self, key: str, chunk: list[dict[str, str]]) -> dict[str, Any]:
        # Sent again after a broken connection it stores nothing twice. What the lost answer called
        # new is not called so then, and so is left where it is should the rest fail.
        body = {"imageLabelPairs": chunk, "indexKey": key, "wait": False}
        answer: dict[str, Any] = await self.transport.paddlex("shitu-index-add", body)
        return answer

    async def _remove(self, key: str, ids: Sequence[int]) -> None:
        await self.transport.paddlex("shitu-index-remove", {"ids": list(ids), "indexKey": key})

    async def _forget(self, key: str) -> None:
        await self.transport.native("DELETE", f"/api/v1/catalogues/{key}")

    async def _embedded(self, key: str, ids: Sequence[int], bar: Bar) -> None:
        """Wait until the workers are through with these; raises ServerError naming what they could
        not do. Workers take the oldest first, so one page of them is looked at until it is done."""
        left, pause = list(dict.fromkeys(ids)), _LOOK_EVERY
        failed: list[str] = []
        while left:
            page, later = left[:_PAGE], left[_PAGE:]
            rows = await self._not_embedded(key, page)
            waiting = [row["number"] for row in rows if row["state"] != "failed"]
            failed += [
                f"id {row['number']}: {row['error']}" for row in rows if row["state"] == "failed"
            ]
            left = waiting + later
            bar.at(len(ids) - len(left))
            if waiting:
                await asyncio.sleep(pause)
                pause = min(pause * 1.2, _LOOK_SELDOM)
        if failed:
            raise ServerError(
                f"{len(failed)} pictures could not be embedded ({'; '.join(failed[:_SHOWN])})"
            )

    async def _not_embedded(self, key: str, ids: Sequence[int]) -> list[dict[str, Any]]:
        """Those of at most a page of ids that failed, or have not been embedded yet."""
        path = (
            f"/api/v1/catalogues/{key}/images?number={','.join(map(str, ids))}"
            "&state=pending&state=running&state=failed"
            f"&fields=number,state,error&ordering=number&limit={_PAGE}"
        )
        answer = await self.transport.native("GET", path)
        return list(answer.json()["results"])


async def _undone(error: BaseException, undo: Coroutine[Any, Any, None], left: str) -> None:
    """Take back what went up; that this fails too is a note on `error`, which it never hides."""
    try:
        await undo
    except RecognitionError as also:
        error.add_note(f"{left}, because taking it back failed too: {also}")


async def _next(
    asked: deque[asyncio.Task[ShiTuResult]], on_error: OnError
) -> AsyncIterator[ShiTuResult]:
    task = asked.popleft()
    try:
        yield await task
    except (RecognitionError, OSError) as error:
        if on_error == "raise":
            raise
        sys.stderr.write(f"skipped: {error}\n")


async def _chunks(
    pairs: Sequence[tuple[Callable[[], bytes], str]],
) -> AsyncIterator[list[dict[str, str]]]:
    """The pairs as they go out, read when their turn comes."""
    chunk: list[dict[str, str]] = []
    size = 0
    for load, label in pairs:
        image = base64.b64encode(await asyncio.to_thread(load)).decode()
        if chunk and (len(chunk) >= _CHUNK_PICTURES or size + len(image) > _CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append({"image": image, "label": label})
        size += len(image)
    if chunk:
        yield chunk


def _zipped(directory: Path) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in ("vector.index", "id_map.yaml"):
            archive.write(directory / name, name)
    return out.getvalue()


def create_async_pipeline(
    pipeline: str, *, token: str | None = None, **options: Any
) -> AsyncPipeline:
    """The pipeline of the server at the address `pipeline`, for asyncio; see AsyncPipeline."""
    return AsyncPipeline(pipeline, token=token, **without_the_server_s(options))


def without_the_server_s(options: dict[str, Any]) -> dict[str, Any]:
    """The options without those of PaddleX's create_pipeline that its server decides here.

    Each that is given is warned of, at the line that called our caller.
    """
    for name in _AT_THE_SERVER.keys() & options.keys():
        if options[name] is not None:
            warnings.warn(
                f"{name} changes nothing at a client; on the server: {_AT_THE_SERVER[name]}",
                stacklevel=3,
            )
    return {name: value for name, value in options.items() if name not in _AT_THE_SERVER}
