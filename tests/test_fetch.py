"""What the URL guard fetches, and all it refuses, against a real server let through by name."""

from __future__ import annotations

import contextlib
import datetime
import gzip
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recognition import fetch
from recognition.errors import FetchRefused, SetupError, TooLarge

PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(5000)


class Site(BaseHTTPRequestHandler):
    """Answers by path; `seen` keeps what was asked."""

    seen: list[tuple[str, str, dict[str, str]]] = []

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers["Host"], dict(self.headers)))
        # A client that hangs up, as ours does when it has seen enough, is no fault here.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            getattr(self, self.path.partition("?")[0][1:].replace("-", "_"))()

    def log_message(self, *args: object) -> None:
        pass

    def answer(self, body: bytes = PICTURE, *, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content_Type": "image/png"} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def picture(self) -> None:
        self.answer(Content_Length=str(len(PICTURE)), Set_Cookie="a=b")

    def from_s3(self) -> None:
        self.answer(Content_Type="binary/octet-stream")

    def page(self) -> None:
        self.answer(b"<html>", Content_Type="text/html; charset=utf-8")

    def gone(self) -> None:
        self.answer(status=404)

    def failing(self) -> None:
        self.answer(status=503)

    def to(self) -> None:
        self.answer(b"", status=302, Location=self.path.partition("?")[2])

    def around(self) -> None:
        self.answer(b"", status=307, Location="/around")

    def announced_huge(self) -> None:
        self.answer(b"", Content_Length="99999999999")

    def unannounced_huge(self) -> None:
        self.answer(b"")
        while True:
            self.wfile.write(bytes(65536))

    def squeezed(self) -> None:
        self.answer(gzip.compress(bytes(10_000_000)), Content_Encoding="gzip")

    def short(self) -> None:
        self.answer(b"half", Content_Length="5000")

    def dripping_body(self) -> None:
        self.answer(b"")
        for _ in range(2000):
            self.wfile.write(b"x")
            time.sleep(0.05)

    def dripping_head(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for _ in range(2000):
            self.wfile.write(b"X-Slow: 1\r\n")
            time.sleep(0.05)


@contextlib.contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.daemon_threads = True
    server.handle_error = lambda *_: None
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    Site.seen = []
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def nothing_allowed(settings) -> None:
    settings.SHITU_FETCH_ALLOW = []
    settings.SHITU_FETCH_TIMEOUT = 5.0
    settings.SHITU_MAX_IMAGE_BYTES = 20 * 1024 * 1024


@pytest.fixture
def site(settings) -> Iterator[str]:
    with serving() as port:
        settings.SHITU_FETCH_ALLOW = [f"127.0.0.1:{port}"]
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def names(monkeypatch) -> dict[str, list[str] | Callable[[], list[str]]]:
    """A name server of our own: host -> its addresses, or what says them at each question."""
    table: dict[str, list[str] | Callable[[], list[str]]] = {}

    def getaddrinfo(host, port, *args, **options):
        known = table.get(host)
        if known is None:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [
            (
                socket.AF_INET6 if ":" in address else socket.AF_INET,
                socket.SOCK_STREAM,
                6,
                "",
                (address, port),
            )
            for address in (known() if callable(known) else known)
        ]

    monkeypatch.setattr(fetch.socket, "getaddrinfo", getaddrinfo)
    return table


# Fetched


def test_a_picture_is_fetched(site):
    assert fetch.fetch_picture(f"{site}/picture?a=1#part") == PICTURE
    [(path, host, headers)] = Site.seen
    assert path == "/picture?a=1"
    assert host == site.removeprefix("http://")
    assert headers["Accept-Encoding"] == "identity"


def test_a_bucket_that_says_octet_stream_is_fetched(site):
    assert fetch.fetch_picture(f"{site}/from-s3") == PICTURE


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_three_redirects_are_followed(site, hops):
    url = "/picture"
    for _ in range(hops):
        url = f"/to?{url}"
    assert fetch.fetch_picture(site + url) == PICTURE
    assert len(Site.seen) == hops + 1


def test_nothing_of_the_environment_is_used(site, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    assert fetch.fetch_picture(f"{site}/picture") == PICTURE


def test_the_next_address_is_tried_when_one_does_not_answer(settings, names):
    with serving() as port:
        settings.SHITU_FETCH_ALLOW = [f"pictures.intern:{port}"]
        names["pictures.intern"] = ["127.0.0.2", "127.0.0.1"]
        assert fetch.fetch_picture(f"http://pictures.intern:{port}/picture") == PICTURE
        assert Site.seen[0][1] == f"pictures.intern:{port}"


# Refused addresses


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.8.8.8",
        "localhost",
        "0.0.0.0",  # noqa: S104 - the very thing to refuse
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.9",
        "192.0.2.1",
        "192.88.99.1",
        "198.18.0.1",
        "224.0.0.1",
        "224.0.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "[::]",
        "[::1]",
        "[::127.0.0.1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::ffff:8.8.8.8]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b:1::7f00:1]",
        "[2002:7f00:1::]",
        "[2001:0:7f00:1::]",
        "[100::1]",
        "[2001:db8::1]",
        "[3fff::1]",
        "[5f00::1]",
        "[fc00::1]",
        "[fd12:3456::1]",
        "[fe80::1]",
        "[fec0::1]",
        "[ff02::1]",
    ],
)
def test_what_is_not_public_is_refused(host):
    with pytest.raises(FetchRefused, match="no address on the public internet") as refused:
        fetch.fetch_picture(f"http://{host}/picture")
    assert refused.value.field == "url"


@pytest.mark.parametrize(
    "host",
    ["2130706433", "0x7f000001", "0x7f.1", "017700000001", "127.1", "0177.0.0.1", "1.2.3.4."],
)
def test_other_spellings_of_an_address_are_refused(host):
    with pytest.raises(FetchRefused, match="a number but not an address|not a valid URL"):
        fetch.fetch_picture(f"http://{host}/picture")


def test_the_refusal_does_not_tell_whether_something_listens(site, settings, names):
    port = int(site.rpartition(":")[2])
    settings.SHITU_FETCH_ALLOW = []
    names |= {"db.intern": ["127.0.0.1"]}
    told = set()
    for url in (f"http://db.intern:{port}/", "http://db.intern:1/", "http://none.intern:1/"):
        with pytest.raises(FetchRefused) as refused:
            fetch.fetch_picture(url)
        told.add(refused.value.message.replace("none.intern", "db.intern"))
    assert len(told) == 1
    assert Site.seen == []


def test_one_private_address_among_public_ones_is_enough(names):
    names["mixed.example"] = ["93.184.215.14", "10.0.0.5"]
    with pytest.raises(FetchRefused, match="public internet"):
        fetch.fetch_picture("http://mixed.example/a.png")


def test_a_name_that_changes_between_check_and_use_changes_nothing(site, settings, names):
    """DNS rebinding: an innocent first answer, the loopback from then on."""
    port = int(site.rpartition(":")[2])
    settings.SHITU_FETCH_ALLOW = [f"203.0.113.7:{port}"]  # stands for the public internet
    asked = []

    def rebinding() -> list[str]:
        asked.append(1)
        return ["203.0.113.7"] if len(asked) == 1 else ["127.0.0.1"]

    names["evil.example"] = rebinding
    with pytest.raises(FetchRefused):
        fetch.fetch_picture(f"http://evil.example:{port}/picture", timeout=0.5)
    assert asked == [1]
    assert Site.seen == []
    with pytest.raises(FetchRefused, match="public internet"):
        fetch.fetch_picture(f"http://evil.example:{port}/picture")
    assert Site.seen == []


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.2/picture",
        "http://[::1]/picture",
        "http://169.254.169.254/latest/meta-data/",
        "//10.0.0.1/picture",
        "http://2130706433/",
        "file:///etc/passwd",
        "http://user:secret@127.0.0.1/",
        "gopher://127.0.0.1/",
        "http://[",
    ],
)
def test_a_redirect_is_judged_like_the_first_url(site, target):
    with pytest.raises(FetchRefused):
        fetch.fetch_picture(f"{site}/to?{target}")
    assert len(Site.seen) == 1


def test_endless_redirects_end(site):
    with pytest.raises(FetchRefused, match="more than 3 times"):
        fetch.fetch_picture(f"{site}/around")
    assert len(Site.seen) == 4


@given(st.integers(0, 2**32 - 1))
def test_no_ipv4_address_is_public_in_disguise(number):
    plain = ipaddress.IPv4Address(number)
    disguises = [
        ipaddress.IPv6Address((0xFFFF << 32) | number),  # mapped
        ipaddress.IPv6Address(number),  # compatible
        ipaddress.IPv6Address((0x2002 << 112) | (number << 80) | 1),  # 6to4
        ipaddress.IPv6Address((0x0064FF9B << 96) | number),  # NAT64
        ipaddress.IPv6Address((0x20010000 << 96) | (number ^ 0xFFFFFFFF)),  # Teredo
    ]
    assert not any(fetch.is_public(disguise) for disguise in disguises)
    if plain.is_private or plain.is_multicast or plain.is_reserved or plain.is_loopback:
        assert not fetch.is_public(plain)


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.215.14", "2606:4700::1111", "2a00::1"])
def test_the_public_internet_is_public(address):
    assert fetch.is_public(ipaddress.ip_address(address))


# Refused URLs


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("file:///etc/passwd", "only http and https"),
        ("ftp://example.com/a.png", "only http and https"),
        ("data:image/png;base64,AAAA", "only http and https"),
        ("example.com/a.png", "only http and https"),
        ("http:///a.png", "names no host"),
        ("http://user:secret@example.com/a.png", "user name or password"),
        ("http://example.com\\@127.0.0.1/", "user name or password"),
        ("http://①②⑦.⓪.⓪.①/", "not a valid URL"),
        ("http://example.com:port/", "not a valid URL"),
        ("http://exa\nmple.com/", "not a valid URL"),
        ("", "only http and https"),
        ("http://example.com/" + "a" * 5000, "longer than 4096"),
    ],
)
def test_what_is_no_plain_web_url_is_refused(url, reason):
    with pytest.raises(FetchRefused, match=reason) as refused:
        fetch.fetch_picture(url)
    assert "secret" not in refused.value.message


@pytest.mark.parametrize("port", [22, 25, 6379, 5432, 9000, 99999])
def test_unusual_ports_are_refused(names, port):
    names["pictures.example"] = ["93.184.215.14"]
    with pytest.raises(FetchRefused, match="80, 443, 8080, 8443"):
        fetch.fetch_picture(f"http://pictures.example:{port}/a.png")


# Refused answers


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("page", "'text/html'"),
        ("gone", "answered 404"),
        ("failing", "answered 503"),
        ("squeezed", "compressed its answer"),
        ("short", "did not answer properly"),
    ],
)
def test_an_answer_that_is_no_picture_is_refused(site, path, reason):
    with pytest.raises(FetchRefused, match=reason):
        fetch.fetch_picture(f"{site}/{path}")


@pytest.mark.parametrize("path", ["announced-huge", "unannounced-huge"])
def test_a_huge_body_is_cut_short(site, path):
    started = time.monotonic()
    with pytest.raises(TooLarge, match="more than 100,000 bytes"):
        fetch.fetch_picture(f"{site}/{path}", max_bytes=100_000)
    assert time.monotonic() - started < 30


def test_a_body_of_just_the_limit_is_fetched(site):
    assert len(fetch.fetch_picture(f"{site}/picture", max_bytes=len(PICTURE))) == len(PICTURE)
    with pytest.raises(TooLarge):
        fetch.fetch_picture(f"{site}/from-s3", max_bytes=len(PICTURE) - 1)


@pytest.mark.parametrize("path", ["dripping-body", "dripping-head"])
def test_a_slow_answer_is_given_up_in_all(site, path):
    """Every byte comes in time; the whole does not."""
    started = time.monotonic()
    with pytest.raises(FetchRefused, match=r"within 0\.4 s"):
        fetch.fetch_picture(f"{site}/{path}", timeout=0.4)
    assert time.monotonic() - started < 30  # the whole takes far longer


def test_a_slow_name_server_is_given_up(names):
    given_up = threading.Event()

    def slow() -> list[str]:
        given_up.wait(60)
        return ["93.184.215.14"]

    names["slow.example"] = slow
    started = time.monotonic()
    with pytest.raises(FetchRefused, match="within"):
        fetch.fetch_picture("http://slow.example/a.png", timeout=0.3)
    given_up.set()
    assert time.monotonic() - started < 30


def test_nobody_listening_is_refused(settings):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and nobody else can have it
        port = unused.getsockname()[1]
        settings.SHITU_FETCH_ALLOW = [f"127.0.0.1:{port}"]
        with pytest.raises(FetchRefused, match="did not answer properly"):
            fetch.fetch_picture(f"http://127.0.0.1:{port}/picture")


# https


def certificate_for(name: str, folder) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context with a certificate for `name`, and a client's that trusts it."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / "server.pem").write_bytes(private + pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "server.pem")
    return server, ssl.create_default_context(cadata=pem.decode())


@pytest.mark.parametrize(
    ("host", "fetched"), [("pictures.example", True), ("other.example", False)]
)
def test_the_certificate_is_that_of_the_name(host, fetched, settings, names, tmp_path, monkeypatch):
    server, client = certificate_for("pictures.example", tmp_path)
    monkeypatch.setattr(fetch, "_trusted", lambda: client)
    names[host] = ["127.0.0.1"]
    with serving(server) as port:
        settings.SHITU_FETCH_ALLOW = [f"{host}:{port}"]
        if fetched:
            assert fetch.fetch_picture(f"https://{host}:{port}/picture") == PICTURE
            assert Site.seen[0][1] == f"{host}:{port}"
        else:
            with pytest.raises(FetchRefused, match="certificate"):
                fetch.fetch_picture(f"https://{host}:{port}/picture")
            assert Site.seen == []


# SHITU_FETCH_ALLOW


@pytest.mark.parametrize(
    ("entry", "host", "address", "port"),
    [
        ("cdn.intern", "cdn.intern", "10.0.0.1", None),
        ("CDN.intern:9000", "cdn.intern", "10.0.0.1", 9000),
        ("10.1.0.0/16", "x", "10.1.2.3", None),
        ("10.1.2.3/16:81", "x", "10.1.9.9", 81),
        ("10.1.2.3", "x", "10.1.2.3", None),
        ("fd00::/8", "x", "fd00::5", None),
        ("[fd00::/8]:81", "x", "fd00::5", 81),
        ("[::1]", "x", "::1", None),
        ("::1", "x", "::1", None),
    ],
)
def test_an_entry_is_a_host_or_a_network_and_perhaps_a_port(entry, host, address, port):
    allowed = fetch.Allowed.parse(entry)
    assert allowed.port == port
    assert allowed.admits(host, ipaddress.ip_address(address))
    assert not allowed.admits("other.intern", ipaddress.ip_address("10.77.0.1"))
    assert not allowed.admits("other.intern", ipaddress.ip_address("fe80::1"))


@pytest.mark.parametrize("entry", ["", "http://cdn.intern", "10.0.0.0/99", "cdn:port", "a b", "["])
def test_an_entry_that_is_neither_is_a_set_up_error(settings, entry):
    settings.SHITU_FETCH_ALLOW = [entry]
    with pytest.raises(SetupError, match="SHITU_FETCH_ALLOW"):
        fetch.fetch_picture("http://example.com/a.png")


def test_an_entry_for_one_port_opens_no_other(site, settings):
    settings.SHITU_FETCH_ALLOW = ["127.0.0.1:9"]
    with pytest.raises(FetchRefused, match="port"):
        fetch.fetch_picture(f"{site}/picture")
    settings.SHITU_FETCH_ALLOW = ["127.0.0.1"]
    with pytest.raises(FetchRefused, match="port"):
        fetch.fetch_picture(f"{site}/picture")
    assert Site.seen == []
