"""The pipeline for ordinary programs: the asynchronous one on an event loop of its own."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from recognition.client.asynchronous import (
    AsyncIndex,
    AsyncPipeline,
    OnError,
    without_the_server_s,
)
from recognition.client.results import ShiTuResult
from recognition.inputs import Input, Picture

T = TypeVar("T")


class _Loop:
    """An event loop in a thread of its own, so that pictures are asked about while the caller
    looks at the results before."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="shitu-client", daemon=True
        )
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:  # Ctrl-C: nothing goes on behind the caller's back
            future.cancel()
            raise

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)


class Index:
    """An index on the server (PaddleX's IndexData). `key` finds it again."""

    def __init__(self, pipeline: Pipeline, inner: AsyncIndex) -> None:
        self._pipeline, self._inner = pipeline, inner

    def __repr__(self) -> str:
        return repr(self._inner)

    @property
    def key(self) -> str:
        """PaddleX's indexKey, the key of the catalogue."""
        return self._inner.key

    @property
    def id_map(self) -> dict[int, str]:
        """Label of every vector id, asked for now."""
        return self._pipeline._run(self._inner.id_map())

    def save(self, save_path: str | Path) -> None:
        """Write `vector.index` and `id_map.yaml` into a directory, as PaddleX does."""
        self._pipeline._run(self._inner.save(save_path))


class Pipeline:
    """PaddleX's `ShiTuV2Pipeline` whose networks are on a server."""

    def __init__(self, url: str, *, token: str | None = None, **options: Any) -> None:
        """`options` are those of AsyncPipeline: in_flight, timeout, progress."""
        self._loop = _Loop()
        self._finalizer = weakref.finalize(self, _Loop.stop, self._loop)
        try:
            self._inner = self._run(_made(url, token, options))
        except BaseException:
            self._finalizer()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back; the pipeline is of no use afterwards."""
        if self._finalizer.alive:
            self._run(self._inner.close())
            self._finalizer()

    def build_index(
        self,
        gallery_imgs: str | Path | Sequence[Picture],
        gallery_label: str | Path | Sequence[Any],
        metric_type: str = "IP",
        index_type: str = "HNSW32",
        *,
        name: str | None = None,
    ) -> Index:
        """As `AsyncPipeline.build_index`."""
        made = self._inner.build_index(
            gallery_imgs, gallery_label, metric_type, index_type, name=name
        )
        return Index(self, self._run(made))

    def append_index(
        self,
        gallery_imgs: str | Path | Sequence[Picture],
        gallery_label: str | Path | Sequence[Any],
        index: Index | str | Path,
    ) -> Index:
        """As `AsyncPipeline.append_index`."""
        work = self._inner.append_index(gallery_imgs, gallery_label, _plain(index))
        return Index(self, self._run(work))

    def remove_index(
        self, remove_ids: str | Path | Iterable[int], index: Index | str | Path
    ) -> Index:
        """As `AsyncPipeline.remove_index`."""
        return Index(self, self._run(self._inner.remove_index(remove_ids, _plain(index))))

    def predict(
        self,
        input: Input,
        index: Index | str | Path | None = None,
        *,
        det_threshold: float | None = None,
        rec_threshold: float | None = None,
        rec_topk: int | None = None,
        hamming_radius: float | None = None,
        on_error: OnError = "raise",
    ) -> Iterator[ShiTuResult]:
        """As `AsyncPipeline.predict`: a generator; nothing is asked before the first `next`."""
        results = self._inner.predict(
            input,
            None if index is None else _plain(index),
            det_threshold=det_threshold,
            rec_threshold=rec_threshold,
            rec_topk=rec_topk,
            hamming_radius=hamming_radius,
            on_error=on_error,
        )
        try:
            while (result := self._run(_first(results))) is not None:
                yield result
        finally:
            self._run(_closed(results))

    __call__ = predict

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run(work)


async def _made(url: str, token: str | None, options: dict[str, Any]) -> AsyncPipeline:
    return AsyncPipeline(url, token=token, **options)


async def _first(results: Any) -> ShiTuResult | None:
    return await anext(results, None)


async def _closed(results: Any) -> None:
    await results.aclose()


def _plain(index: Index | str | Path) -> AsyncIndex | str | Path:
    return index._inner if isinstance(index, Index) else index


def create_pipeline(pipeline: str, *, token: str | None = None, **options: Any) -> Pipeline:
    """The pipeline of the server at the address `pipeline`, such as `http://host:8000`.

    `token` is an API token of that site; where it has an anonymous user, `predict` and
    `remove_index` go without. An address `http://host/paddlex/<token>` works as well. `options`:
    `in_flight` (32), `timeout` (330 s), `progress` (a bar, on a terminal). PaddleX's `device`,
    `config`, `use_hpip` ... are decided on the server, and warned of here. Raises BadInput.
    """
    return Pipeline(pipeline, token=token, **without_the_server_s(options))
