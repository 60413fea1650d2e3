"""Requests that do not give up at the first obstacle, and errors in the server's own words."""

from __future__ import annotations

import asyncio
import random
import sys
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import unquote

import httpx

from recognition.errors import BadInput, RecognitionError

_RETRIED: Final = {429, 503}
_TRIES: Final = 8
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0
_CONNECT_SECONDS: Final = 10.0


class ServerError(RecognitionError):
    """The server answered with an error, or not at all.

    `status` is the HTTP status (0 without an answer), `log_id` names the request in its log.
    """

    code = "server_error"

    def __init__(self, message: str, *, status: int = 0, log_id: str = "") -> None:
        super().__init__(message)
        self.status, self.log_id = status, log_id


class Transport:
    """One connection pool to one server.

    429, 503 and a refused connection are tried again: after Retry-After where the server names it,
    else after 0.5, 1, 2 ... 30 s, each a little off so that many clients do not come back at once.
    A connection that breaks after the request went out is tried again only where sending twice does
    no harm. That a server cannot be reached is said once on standard error.
    """

    def __init__(self, url: str, token: str | None, *, timeout: float, connections: int) -> None:
        base, token = _without_token(url, token)
        self.base = base
        self._said = False
        self._http = httpx.AsyncClient(
            base_url=base,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=httpx.Timeout(timeout, connect=_CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=connections),
            follow_redirects=True,
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def paddlex(self, operation: str, body: dict[str, Any], *, again: bool = True) -> Any:
        """The `result` of one of PaddleX's operations. Raises ServerError with its errorMsg."""
        response = await self.request("POST", f"/{operation}", again=again, json=body)
        return response.json()["result"]

    async def native(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The answer of the site's own API below `/api/v1`, which wants a token even where
        PaddleX's operations need none. Raises ServerError."""
        try:
            return await self.request(method, path, **options)
        except ServerError as error:
            if error.status != httpx.codes.UNAUTHORIZED:
                raise
            raise ServerError(
                f"{self.base} wants a token for this ({error.message}): make one on the server "
                "with `./manage.py create_token USER --name NAME` and "
                "write create_pipeline(url, token=...)",
                status=error.status,
                log_id=error.log_id,
            ) from error

    async def request(
        self, method: str, path: str, *, again: bool = True, **options: Any
    ) -> httpx.Response:
        """The answer to a request, a successful one. Raises ServerError."""
        for number in range(_TRIES):
            last = number == _TRIES - 1
            try:
                response = await self._http.request(method, path, **options)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                if last:
                    raise ServerError(f"{self.base} cannot be reached: {error}") from error
                self._say_once(f"{self.base} cannot be reached ({error}); trying for a minute")
                await asyncio.sleep(_wait(number, None))
                continue
            except httpx.HTTPError as error:
                what = f"{type(error).__name__}: {error}".rstrip(": ")
                if last or not again or isinstance(error, httpx.TimeoutException):
                    raise ServerError(f"{self.base} did not answer ({what})") from error
                self._say_once(f"{self.base} did not answer ({what}); trying for a minute")
                await asyncio.sleep(_wait(number, None))
                continue
            if response.status_code in _RETRIED and not last:
                await asyncio.sleep(_wait(number, response.headers.get("Retry-After")))
                continue
            if response.is_success:
                return response
            raise _error(response)
        raise AssertionError("the last try returns or raises")

    def _say_once(self, text: str) -> None:
        if not self._said:
            self._said = True
            sys.stderr.write(f"{text}\n")


def _without_token(url: str, token: str | None) -> tuple[str, str | None]:
    """A base URL like `http://host/paddlex/<token>` is taken apart: here we can send a header."""
    address = httpx.URL(url)
    if address.scheme not in ("http", "https") or not address.host:
        raise BadInput(
            f"{url!r} is not the address of a server; write http://host:port", field="pipeline"
        )
    before, found, inside = address.path.rstrip("/").rpartition("/paddlex/")
    if found and inside and "/" not in inside:
        address, token = address.copy_with(path=before or "/"), token or unquote(inside)
    return str(address).rstrip("/"), token


def _wait(number: int, retry_after: str | None) -> float:
    """Seconds until try `number + 1`."""
    if retry_after is not None and (asked := _seconds(retry_after)) is not None:
        return asked + random.uniform(0, 0.5)  # noqa: S311  (spreads clients, guards nothing)
    longest = min(_LONGEST_WAIT, _FIRST_WAIT * 2**number)
    return random.uniform(longest / 2, longest)  # noqa: S311


def _seconds(text: str) -> float | None:
    """Retry-After as seconds: a number, or a date."""
    if text.strip().isdigit():
        return float(text)
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (when.astimezone(UTC) - datetime.now(UTC)).total_seconds())


def _error(response: httpx.Response) -> ServerError:
    """The reason, from PaddleX's envelope or the native API's."""
    try:
        body = response.json()
    except ValueError:
        body = {}
    body = body if isinstance(body, dict) else {}
    native = body.get("error") if isinstance(body.get("error"), dict) else {}
    message = body.get("errorMsg") or (native or {}).get("message") or response.reason_phrase
    log_id = body.get("logId") or (native or {}).get("request_id") or ""
    return ServerError(str(message), status=response.status_code, log_id=str(log_id))
