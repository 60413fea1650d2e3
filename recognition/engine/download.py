"""Downloading one big file, resumably."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import httpx

from recognition.errors import BadInput, ModelUnavailable, TooLarge

Progress = Callable[[int, int | None], None]
"""Called with the bytes there so far and the bytes in all (None when the server does not say)."""

ATTEMPTS = 3
TIMEOUT = httpx.Timeout(30, connect=10)  # seconds; a dead network is told from a slow one in 10 s


def silent(done: int, total: int | None) -> None:
    """A Progress that shows nothing."""


def download(
    url: str, target: Path, *, max_bytes: int, progress: Progress = silent, otherwise: str = ""
) -> Path:
    """Download `url` to `target`; what an interrupted call left is used, if it is the same file.

    The part is kept as `<target>.part` with the server's validator beside it, and only resumed
    (Range with If-Range) while that validator holds. Raises BadInput for what is no http(s)
    address, TooLarge beyond `max_bytes`, ModelUnavailable when it cannot be had; that message
    ends with `otherwise`.
    """
    if not url.startswith(("https://", "http://")):
        raise BadInput(f"{url} is not an http or https address.", field="url")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _continue(url, part, max_bytes, progress)
            part.replace(target)
            return target
        except httpx.HTTPStatusError as error:
            reason = f"the server answered {error.response.status_code}"
            raise ModelUnavailable(f"{url} cannot be had: {reason}. {otherwise}") from error
        except (httpx.TransportError, httpx.InvalidURL) as error:
            unreachable = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            if unreachable or attempt == ATTEMPTS or isinstance(error, httpx.InvalidURL):
                raise ModelUnavailable(
                    f"{url} cannot be had: {error or type(error).__name__}. {otherwise}"
                ) from error
    raise AssertionError("unreachable: the last attempt returns or raises")


def _continue(url: str, part: Path, max_bytes: int, progress: Progress) -> None:
    about = part.with_name(part.name + ".json")
    headers = {"Accept-Encoding": "identity"}  # byte ranges count what is on the wire
    start = 0
    if part.is_file() and about.is_file():
        known = json.loads(about.read_text(encoding="utf-8"))
        if known["url"] == url:
            start = part.stat().st_size
            headers |= {"Range": f"bytes={start}-", "If-Range": known["validator"]}
    with httpx.stream(
        "GET", url, headers=headers, follow_redirects=True, timeout=TIMEOUT
    ) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink()
            raise httpx.ReadError("the part left over does not fit the file", request=None)
        response.raise_for_status()
        if response.status_code != httpx.codes.PARTIAL_CONTENT:
            start = 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        validator = response.headers.get("ETag") or response.headers.get("Last-Modified")
        if validator and not validator.startswith("W/"):
            about.write_text(json.dumps({"url": url, "validator": validator}), encoding="utf-8")
        else:
            about.unlink(missing_ok=True)
        done = start
        with part.open("ab" if start else "wb") as file:
            for chunk in response.iter_raw():  # as it comes: nothing is lost when it breaks
                done += len(chunk)
                if max(done, total or 0) > max_bytes:
                    raise TooLarge(f"{url} is larger than {max_bytes >> 20} MiB.", field="url")
                file.write(chunk)
                progress(done, total)
    if total is not None and done != total:
        raise httpx.RemoteProtocolError(f"the transfer ended after {done} of {total} bytes")
    about.unlink(missing_ok=True)
