"""A bucket on this machine: the part of S3 that the site uses, with every signature checked.

Signatures are computed here from what arrived, as Amazon describes it (Signature Version 4), not by
the library under test. https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-authenticating-requests.html
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape

ACCESS_KEY, SECRET_KEY = "AKTEST", "a-secret-of-the-tests"
REGION = "eu-test-1"
_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass
class S3:
    """What the server holds; `later` moves its clock, `failing` makes it answer 500."""

    bucket: str
    address: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)
    later: timedelta = timedelta()
    failing: bool = False

    def settings(self) -> dict[str, str]:
        """The site's settings for it."""
        return {
            "SHITU_MEDIA_STORAGE": "s3",
            "SHITU_S3_BUCKET": self.bucket,
            "SHITU_S3_REGION": REGION,
            "SHITU_S3_ENDPOINT": self.address,
            "SHITU_S3_ACCESS_KEY": ACCESS_KEY,
            "SHITU_S3_SECRET_KEY": SECRET_KEY,
            "SHITU_S3_PREFIX": "shop/",
        }


class Refused(Exception):
    def __init__(self, status: int, code: str, message: str = "") -> None:
        self.status, self.code, self.message = status, code, message


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    s3: S3  # set on the class made for one server

    def log_message(self, *_: object) -> None:
        pass

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        address = urlsplit(self.path)
        self.query = dict(parse_qsl(address.query, keep_blank_values=True))
        _, bucket, *rest = unquote(address.path).split("/", 2)
        key = rest[0] if rest else ""
        self.s3.asked.append((self.command, key))
        try:
            if self.s3.failing:
                raise Refused(500, "InternalError")
            self._check_signature(address.path, address.query, body)
            if bucket != self.s3.bucket:
                raise Refused(404, "NoSuchBucket")
            getattr(self, f"_{self.command.lower()}")(key, body)
        except Refused as refused:
            text = f"<Error><Code>{refused.code}</Code><Message>{refused.message}</Message></Error>"
            self._send(refused.status, text.encode(), {"Content-Type": "application/xml"})

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer

    def _send(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _get(self, key: str, body: bytes) -> None:
        if key not in self.s3.objects:
            raise Refused(404, "NoSuchKey")
        data = self.s3.objects[key]
        headers = {
            "Content-Type": self.query.get("response-content-type", self.s3.kinds[key]),
            "ETag": f'"{hashlib.md5(data).hexdigest()}"',  # noqa: S324  S3 itself does so
        }
        for name in ("cache-control", "content-disposition"):
            if value := self.query.get(f"response-{name}"):
                headers[name.title()] = value
        self._send(200, data, headers)

    def _head(self, key: str, body: bytes) -> None:
        if key:
            self._get(key, body)
        else:
            self._send(200)

    def _put(self, key: str, body: bytes) -> None:
        headers = {"ETag": f'"{hashlib.md5(body).hexdigest()}"'}  # noqa: S324
        if upload := self.query.get("uploadId"):
            self.s3.uploads[upload][int(self.query["partNumber"])] = body
        else:
            self._store(key, body)
        self._send(200, b"", headers)

    def _post(self, key: str, body: bytes) -> None:
        if "uploads" in self.query:
            upload = f"upload-{len(self.s3.uploads)}"
            self.s3.uploads[upload] = {}
            self.s3.kinds[key] = self.headers.get("Content-Type", "")
            inside = f"<UploadId>{upload}</UploadId>"
            text = f"<InitiateMultipartUploadResult>{inside}</InitiateMultipartUploadResult>"
        else:
            parts = self.s3.uploads.pop(self.query["uploadId"])
            self.s3.objects[key] = b"".join(parts[number] for number in sorted(parts))
            inside = f"<Key>{escape(key)}</Key><ETag>&quot;whole&quot;</ETag>"
            text = f"<CompleteMultipartUploadResult>{inside}</CompleteMultipartUploadResult>"
        self._send(200, text.encode(), {"Content-Type": "application/xml"})

    def _delete(self, key: str, body: bytes) -> None:
        self.s3.objects.pop(key, None)
        self._send(204)

    def _store(self, key: str, body: bytes) -> None:
        if "chunked" in self.headers.get("Content-Encoding", ""):
            raise Refused(501, "NotImplemented", "a service that knows no trailing checksums")
        self.s3.objects[key] = body
        self.s3.kinds[key] = self.headers.get("Content-Type", "")

    def _check_signature(self, path: str, query: str, body: bytes) -> None:
        if "X-Amz-Signature" in self.query:
            signed = self.query | {"hash": "UNSIGNED-PAYLOAD"}
            until = _moment(signed["X-Amz-Date"]) + timedelta(seconds=int(signed["X-Amz-Expires"]))
            if datetime.now(UTC) + self.s3.later > until:
                raise Refused(403, "AccessDenied", "Request has expired")
        else:
            signed = _header(self.headers.get("Authorization", "")) | {
                "X-Amz-Date": self.headers.get("X-Amz-Date", ""),
                "hash": self.headers.get("X-Amz-Content-SHA256", ""),
            }
            if signed["hash"] != hashlib.sha256(body).hexdigest():
                raise Refused(400, "XAmzContentSHA256Mismatch")
        names = signed["X-Amz-SignedHeaders"].split(";")
        pairs = [pair for pair in query.split("&") if pair and "X-Amz-Signature=" not in pair]
        request = "\n".join(
            [
                self.command,
                path,
                "&".join(sorted(pair if "=" in pair else f"{pair}=" for pair in pairs)),
                *(f"{name}:{' '.join((self.headers[name] or '').split())}" for name in names),
                "",
                ";".join(names),
                signed["hash"],
            ]
        )
        access_key, *scope = signed["X-Amz-Credential"].split("/")
        if access_key != ACCESS_KEY or scope[1:] != [REGION, "s3", "aws4_request"]:
            raise Refused(403, "InvalidAccessKeyId")
        key = f"AWS4{SECRET_KEY}".encode()
        for part in scope:
            key = _keyed(key, part)
        digest = hashlib.sha256(request.encode()).hexdigest()
        text = "\n".join([_ALGORITHM, signed["X-Amz-Date"], "/".join(scope), digest])
        if not hmac.compare_digest(_keyed(key, text).hex(), signed["X-Amz-Signature"]):
            raise Refused(403, "SignatureDoesNotMatch")


def _header(text: str) -> dict[str, str]:
    """`Credential=..., SignedHeaders=..., Signature=...` under the names that a query has."""
    algorithm, _, rest = text.partition(" ")
    if algorithm != _ALGORITHM:
        raise Refused(403, "AccessDenied", "neither signed nor public")
    return {
        f"X-Amz-{k}": v for k, _, v in (part.strip().partition("=") for part in rest.split(","))
    }


def _moment(text: str) -> datetime:
    return datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


def _keyed(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


@contextlib.contextmanager
def serving(bucket: str = "pictures") -> Iterator[S3]:
    """A server with one empty bucket."""
    s3 = S3(bucket)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"s3": s3}))
    server.daemon_threads = True
    s3.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield s3
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
