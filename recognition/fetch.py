"""The URL guard: gets a picture from the public internet, and from nowhere else.

The host is resolved here, every address of it is judged, and the connection goes to the very
address that was judged; so a name that resolves differently a moment later changes nothing.
Redirects are followed by hand and judged the same way. SHITU_FETCH_ALLOW lets chosen hosts and
networks through.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final

import httpx
from django.conf import settings
from django.utils.translation import gettext as _

from recognition.errors import FetchRefused, SetupError, TooLarge

IPAddress = IPv4Address | IPv6Address

PORTS: Final = frozenset({80, 443, 8080, 8443})
MAX_REDIRECTS: Final = 3
_MAX_URL_LENGTH: Final = 4096
_MAX_ADDRESSES: Final = 3  # tried one after the other, each with an equal share of the time
_REDIRECTS: Final = {301, 302, 303, 307, 308}
_OTHER_CONTENT_TYPES: Final = {"application/octet-stream", "binary/octet-stream"}  # S3 says binary

# `is_global` lets these pass; none of them leads to a public web server.
_NEVER: Final = tuple(
    ip_network(network)
    for network in (
        "168.63.129.16/32",  # Azure's host agent, reachable from every machine there
        "192.0.0.0/24",  # protocol assignments
        "192.88.99.0/24",  # 6to4 relays
        "2001::/23",  # Teredo, ORCHID, benchmarking
        "2002::/16",  # 6to4: an IPv4 address in disguise
        "3fff::/20",  # documentation
    )
)
# Outside this block are all other disguises of IPv4 (mapped, compatible, NAT64) and local kinds.
_IPV6_PUBLIC: Final = ip_network("2000::/3")
_NUMERIC_LABEL: Final = re.compile(r"\d+|0x[0-9a-f]*")
_HOST: Final = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_ENTRY: Final = re.compile(
    r"(\[(?P<ipv6>[^\]]+)\]|(?P<place>[^:\[\]]+))(:(?P<port>\d{1,5}))?"
    r"|(?P<bare_ipv6>[0-9a-f:./]+)"
)

# getaddrinfo cannot be interrupted: its threads are not those that asyncio waits for at the end.
_resolvers: Final = ThreadPoolExecutor(8, thread_name_prefix="fetch-resolve")


def fetch_picture(url: str, *, timeout: float | None = None, max_bytes: int | None = None) -> bytes:
    """The bytes behind `url`, unchecked: they go to `images.check` next.

    Only http and https, without credentials, on ports 80, 443, 8080 and 8443; only hosts all of
    whose addresses are public; at most three redirects, each judged alike; status 200, a picture's
    content type, no content encoding. `timeout` bounds the whole of it in seconds, resolving and
    slow bodies included (SHITU_FETCH_TIMEOUT); `max_bytes` the body (SHITU_MAX_IMAGE_BYTES).
    No proxy, cookie or credential of the environment is used. PaddleX has none of these limits.

    Not to be called from a coroutine. Raises FetchRefused, or TooLarge, with `field="url"`.
    """
    timeout = settings.SHITU_FETCH_TIMEOUT if timeout is None else timeout
    max_bytes = settings.SHITU_MAX_IMAGE_BYTES if max_bytes is None else max_bytes
    return asyncio.run(_fetch(url, timeout, max_bytes))


async def _fetch(url: str, timeout: float, max_bytes: int) -> bytes:
    allowed = [Allowed.parse(entry) for entry in settings.SHITU_FETCH_ALLOW]
    try:
        async with asyncio.timeout(timeout):
            target = _parsed(url)
            for _hop in range(MAX_REDIRECTS + 1):
                answer = await _ask(target, allowed, timeout, max_bytes)
                if isinstance(answer, bytes):
                    return answer
                target = answer
    except TimeoutError as error:
        raise _refused(
            _("the picture did not arrive within %(seconds)s s") % {"seconds": f"{timeout:g}"}
        ) from error
    raise _refused(_("it redirects more than %(most)s times") % {"most": MAX_REDIRECTS})


@dataclass(frozen=True)
class Allowed:
    """An entry of SHITU_FETCH_ALLOW: a host name or a network, and a port or all usual ones.

    `cdn.intern`, `cdn.intern:9000`, `10.1.0.0/16`, `10.1.2.3:9000`, `[fd00::/8]:9000`.
    """

    place: str | IPv4Network | IPv6Network
    port: int | None

    @classmethod
    def parse(cls, entry: str) -> Allowed:
        parts = _ENTRY.fullmatch(entry.strip().lower())
        if parts is None:
            raise _bad_entry(entry)
        port = int(parts["port"]) if parts["port"] else None
        place = parts["ipv6"] or parts["bare_ipv6"] or parts["place"]
        try:
            return cls(ip_network(place, strict=False), port)
        except ValueError as error:
            if not _HOST.fullmatch(place):
                raise _bad_entry(entry) from error
            return cls(place, port)

    def admits(self, host: str, address: IPAddress) -> bool:
        return self.place == host if isinstance(self.place, str) else address in self.place


def is_public(address: IPAddress) -> bool:
    """Whether `address` is plain unicast on the public internet."""
    if isinstance(address, IPv6Address) and address not in _IPV6_PUBLIC:
        return False
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not any(address in network for network in _NEVER)
    )


def _parsed(url: str | httpx.URL) -> httpx.URL:
    if isinstance(url, str) and len(url) > _MAX_URL_LENGTH:
        raise _refused(_("it is longer than %(most)s characters") % {"most": _MAX_URL_LENGTH})
    try:
        parsed = httpx.URL(url)
        host = parsed.raw_host.decode("ascii")
    except (httpx.InvalidURL, ValueError) as error:
        raise _refused(_("it is not a valid URL"), _("Check its spelling.")) from error
    if parsed.scheme not in ("http", "https"):
        raise _refused(_("only http and https URLs are fetched"))
    if not host:
        raise _refused(_("it names no host"), _("Check its spelling."))
    if parsed.userinfo:
        raise _refused(_("it holds a user name or password"), _("Use a URL that needs none."))
    last_label = host.rstrip(".").rpartition(".")[2]
    if ":" not in host and _NUMERIC_LABEL.fullmatch(
        last_label
    ):  # 2130706433, 0x7f.1, 0177.0.0.1: all 127.0.0.1
        try:
            IPv4Address(host)
        except ValueError as error:
            raise _refused(
                _("its host is a number but not an address"), _("Write it as 203.0.113.7.")
            ) from error
    return parsed


async def _resolve(host: str, port: int) -> list[IPAddress]:
    """Every address of `host`, in the order to try them; empty when there is none."""
    try:
        return [ip_address(host)]
    except ValueError:
        pass
    try:
        found = await asyncio.get_running_loop().run_in_executor(
            _resolvers, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(ip_address(where[0]) for *_, where in found))


async def _addresses(url: httpx.URL, allowed: list[Allowed]) -> list[IPAddress]:
    """Where to connect for `url`; refused unless every address of its host may be asked."""
    host = url.raw_host.decode("ascii").rstrip(".").lower()
    port = url.port or (443 if url.scheme == "https" else 80)
    addresses = await _resolve(host, port)
    by_rule = {
        address: [entry for entry in allowed if entry.admits(host, address)]
        for address in addresses
    }
    if not addresses or not all(
        is_public(address) or entries for address, entries in by_rule.items()
    ):
        # One answer for a private address and for no address: neither tells what names we know.
        raise _refused(
            _("the host %(host)s has no address on the public internet") % {"host": repr(host)}
        )
    if port not in PORTS and not all(
        any(entry.port == port for entry in entries) for entries in by_rule.values()
    ):
        raise _refused(
            _("port %(port)s is none of %(ports)s")
            % {"port": port, "ports": ", ".join(map(str, sorted(PORTS)))}
        )
    return addresses[:_MAX_ADDRESSES]


async def _ask(
    url: httpx.URL, allowed: list[Allowed], timeout: float, max_bytes: int
) -> bytes | httpx.URL:
    """One request: the body, or where it redirects to."""
    addresses = await _addresses(url, allowed)
    limits = httpx.Timeout(None, connect=timeout / len(addresses))
    async with httpx.AsyncClient(
        verify=_trusted(), timeout=limits, trust_env=False, follow_redirects=False
    ) as client:
        for address in addresses:
            request = client.build_request(
                "GET",
                url.copy_with(host=str(address)),
                headers={
                    "Host": url.netloc.decode("ascii"),
                    "Accept": "image/*",
                    "Accept-Encoding": "identity",
                    "User-Agent": "shitu",
                },
                # The certificate is checked against the name although we connect to the address.
                extensions={"sni_hostname": url.raw_host.decode("ascii").rstrip(".")},
            )
            try:
                response = await client.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure: httpx.HTTPError = error
                continue
            except httpx.HTTPError as error:
                failure = error
                break
            try:
                return await _body(url, response, max_bytes)
            except httpx.HTTPError as error:
                failure = error
                break
            finally:
                await response.aclose()
    raise _refused(
        _("the host %(host)s did not answer properly (connection, certificate or protocol)")
        % {"host": repr(url.host)}
    ) from failure


async def _body(url: httpx.URL, response: httpx.Response, max_bytes: int) -> bytes | httpx.URL:
    if response.status_code in _REDIRECTS and "Location" in response.headers:
        location = response.headers["Location"]
        try:
            return _parsed(url.join(location))
        except httpx.InvalidURL as error:
            raise _refused(_("it redirects to something that is no URL")) from error
    if response.status_code != 200:
        raise _refused(
            _("the host answered %(status)s where 200 was expected")
            % {"status": response.status_code}
        )
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if not kind.startswith("image/") and kind not in _OTHER_CONTENT_TYPES:
        raise _refused(
            _("the host answered with %(kind)s, not a picture")
            % {"kind": repr(kind[:80] or _("no content type"))}
        )
    if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise _refused(_("the host compressed its answer although asked not to"))
    announced = response.headers.get("Content-Length", "")
    if announced.isascii() and announced.isdigit() and int(announced) > max_bytes:
        raise _too_large(max_bytes)
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
    return bytes(body)


@cache
def _trusted() -> ssl.SSLContext:
    """The authorities we trust: certifi's, or those of SSL_CERT_FILE for an own authority."""
    return httpx.create_ssl_context()


def _refused(why: str, remedy: str = "") -> FetchRefused:
    remedy = remedy or _("Send the picture itself instead.")
    said = _("The URL is not fetched: %(why)s. %(remedy)s") % {"why": why, "remedy": remedy}
    return FetchRefused(said, field="url")


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(
        _("The picture behind the URL has more than %(most)s bytes. Send a smaller one.")
        % {"most": f"{max_bytes:,}"},
        field="url",
    )


def _bad_entry(entry: str) -> SetupError:
    return SetupError(
        f"SHITU_FETCH_ALLOW holds {entry!r}, which is neither a host nor a network. Write "
        "host, host:port, 10.0.0.0/8, 10.0.0.0/8:port or [fd00::/8]:port."
    )
