"""Two teams at one site through HTTP, at once, and whoever looks through all they are answered.

Each team writes its name into every text it sends and its colour into its pictures; some pictures,
words and ids both use. So whatever of one team is in an answer to the other can be told.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import queue
import re
import threading
import traceback
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Any
from uuid import UUID

import httpx
import numpy as np
from django.conf import settings
from django.db import connections, transaction
from django.test import Client
from django.urls import reverse
from PIL import Image

from recognition.models import Catalogue, Invitation, Product, Role, User
from recognition.services import members, tokens
from tests import factories
from tests.api.test_access import ROUTES, _pattern, _sent

WORDS = ["tea", "coffee", "红牛"]
EXTERNAL_IDS = ["1", "2", "3"]
PICTURES = range(5)
API = "/api/v1"
_IDS = re.compile(r"[0-9a-f-]{36}|\d+")
_UUID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_RED, _BLUE = 0, 2
_MOST_CATALOGUES = 5


class Leak(AssertionError):
    """Something of one team was in an answer to the other."""


@cache
def picture(channel: int | None, n: int) -> bytes:
    """A picture of a team, by its colour; None: one that both have, byte by byte the same."""
    green = np.random.default_rng(n).integers(0, 4, (3, 4), dtype=np.uint8) * 64 + 20
    pixels = np.full((96, 128, 3), 20, np.uint8)
    pixels[:, :, 1] = np.kron(green, np.ones((32, 32), np.uint8))
    if channel is not None:
        pixels[:, :, channel] = 240
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


@dataclass
class Team:
    """One team: its people, and everything it was ever told."""

    name: str
    channel: int
    boss: User
    client: httpx.Client
    pages: httpx.Client
    told: set[bytes] = field(default_factory=set)  # every UUID
    answers: int = 0
    other: Team = field(init=False, repr=False)

    @property
    def catalogues(self) -> list[Catalogue]:
        return list(Catalogue.objects.filter(owner=self.boss).order_by("pk"))

    def picture(self, pick: Random) -> bytes:
        return picture(pick.choice([None, self.channel]), pick.choice(PICTURES))

    def label(self, pick: Random) -> str:
        return pick.choice(["", f"{self.name} "]) + pick.choice(WORDS)

    def ask(self, method: str, path: str, **sent: Any) -> Any:
        """Send, look through the answer, and return it: its JSON, or None where it is no JSON."""
        response = self.client.request(method, path, **sent)
        self.look_through(response)
        is_json = response.headers.get("content-type", "").startswith("application/json")
        return response.json() if is_json and response.is_success else None

    def some(self, pick: Random, path: str, **params: Any) -> Any:
        """One of what is listed there, or None."""
        found = self.ask("GET", path, params=params)
        return pick.choice(found["results"]) if found and found["results"] else None

    def look_through(self, response: httpx.Response) -> None:
        """Raises Leak when anything of the other team is in it, AssertionError for a 5xx."""
        request = response.request
        what = f"{self.name}: {request.method} {request.url} -> {response.status_code}"
        assert response.status_code < 500, f"{what}\n{response.text[:2000]}"
        self.answers += 1
        kind = response.headers.get("content-type", "")
        for part in _parts(response.content, kind):
            if kind.startswith("image/"):
                self._look_at(part, what)
                continue
            for text in (part, repr(response.headers).encode()):
                if self.other.name.encode() in text.lower():
                    raise Leak(f"{what}: the name of the other team\n{_around(text, self.other)}")
            self._note(set(_UUID.findall(part)), what)
            if b'"detectedObjects"' in part:
                drawn = json.loads(part).get("result", {}).get("image")
                if drawn:
                    self._look_at(base64.b64decode(drawn), what)

    def _note(self, uuids: set[bytes], what: str) -> None:
        with _noting:
            if both := uuids & self.other.told:
                raise Leak(f"{what}: {both.pop().decode()}, which the other team was told too")
            self.told |= uuids

    def _look_at(self, data: bytes, what: str) -> None:
        if any(data == picture(self.other.channel, n) for n in PICTURES):
            raise Leak(f"{what}: a picture of the other team")
        pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), float)
        mean = pixels.reshape(-1, 3).mean(axis=0)
        if mean[self.other.channel] - mean[self.channel] > 40:
            raise Leak(f"{what}: a picture in the other team's colour")


_noting = threading.Lock()


def _parts(content: bytes, kind: str) -> Iterator[bytes]:
    """The answer itself, or what is packed in it."""
    if kind != "application/zip":
        yield content
        return
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for name in archive.namelist():
            if not name.startswith("images/"):
                yield archive.read(name)


def _around(text: bytes, team: Team) -> str:
    at = text.lower().index(team.name.encode())
    return text[max(0, at - 200) : at + 200].decode(errors="replace")


def two_teams(application: Any) -> tuple[Team, Team]:
    """A manager, somebody else, and two catalogues each; they know nothing of each other."""
    made = []
    for name, channel in (("crimson", _RED), ("azure", _BLUE)):
        boss, helper = factories.user(f"{name} boss"), factories.user(f"{name} helper")
        for n in range(2):
            catalogue = factories.catalogue(boss, f"{name} {n}", rec_threshold=0.0)
            members.add(catalogue, helper, Role.VIEWER)
        signed_in = Client()
        signed_in.force_login(boss)
        cookie = {
            settings.SESSION_COOKIE_NAME: signed_in.cookies[settings.SESSION_COOKIE_NAME].value
        }
        site = {"transport": httpx.WSGITransport(app=application), "base_url": "http://127.0.0.1"}
        bearer = {"Authorization": f"Bearer {tokens.create(boss, f'{name} token')[1]}"}
        made.append(
            Team(
                name,
                channel,
                boss,
                httpx.Client(**site, headers=bearer),
                httpx.Client(**site, cookies=cookie),
            )
        )
    made[0].other, made[1].other = made[1], made[0]
    return made[0], made[1]


# --- What they do ---------------------------------------------------------------------------------


def _shelf(team: Team, pick: Random) -> str:
    """The address of one of the team's catalogues."""
    return f"{API}/catalogues/{pick.choice(team.catalogues).key}"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def look_around(team: Team, pick: Random) -> None:
    here = _shelf(team, pick)
    team.ask("GET", f"{API}/catalogues", params=pick.choice([{}, {"search": "1"}]))
    team.ask("GET", here + pick.choice(["", "/statistics", "/quotas", "/index", "/members"]))


def change_catalogue(team: Team, pick: Random) -> None:
    team.ask("PATCH", _shelf(team, pick), json={"description": f"of {team.name}", "top_k": 5})


def make_catalogue(team: Team, pick: Random) -> None:
    if len(team.catalogues) < _MOST_CATALOGUES:
        name = f"{team.name} {pick.randrange(100)}"
        team.ask("POST", f"{API}/catalogues", json={"name": name, "rec_threshold": 0.0})
    else:
        team.ask("DELETE", f"{API}/catalogues/{team.catalogues[-1].key}")


def upload(team: Team, pick: Random) -> None:
    items = [
        {
            "label": team.label(pick),
            "image": _base64(team.picture(pick)),
            "name": f"{team.name}.png",
        }
        for _ in range(3)
    ]
    items[0]["external_id"] = pick.choice(EXTERNAL_IDS)
    team.ask("POST", f"{_shelf(team, pick)}/images", json={"images": items})


def upload_files(team: Team, pick: Random) -> None:
    files = [("images", (f"{team.name}.png", team.picture(pick))) for _ in range(2)]
    team.ask("POST", f"{_shelf(team, pick)}/images", data={"label": team.label(pick)}, files=files)


def find_images(team: Team, pick: Random) -> None:
    params = pick.choice(
        [
            {"checksum": hashlib.sha256(picture(None, pick.choice(PICTURES))).hexdigest()},
            {"label": pick.choice(WORDS)},
            {"external_id": pick.choice(EXTERNAL_IDS)},
            {"state": "done", "limit": 2},
            {},
            {},
        ]
    )
    if image := team.some(pick, f"{_shelf(team, pick)}/images", **params):
        team.ask("GET", image[pick.choice(["picture", "thumbnail"])])


def change_image(team: Team, pick: Random) -> None:
    here = _shelf(team, pick)
    if image := team.some(pick, f"{here}/images"):
        change = pick.choice([{"label": team.label(pick)}, {"external_id": ""}, {"box": None}])
        team.ask("PATCH", f"{here}/images/{image['number']}", json=change)
        numbers = {"numbers": [image["number"]]}
        team.ask("POST", f"{here}/images/move", json=numbers | {"label": team.label(pick)})


def remove_image(team: Team, pick: Random) -> None:
    here = _shelf(team, pick)
    if image := team.some(pick, f"{here}/images"):
        if pick.random() < 0.5:
            team.ask("DELETE", f"{here}/images/{image['number']}")
        else:
            team.ask("POST", f"{here}/images/remove", json={"numbers": [image["number"]]})


def more_like_this(team: Team, pick: Random) -> None:
    here = _shelf(team, pick)
    if image := team.some(pick, f"{here}/images", state="done"):
        params = {"catalogue": [str(one.key) for one in team.catalogues], "per_product": "false"}
        team.ask("GET", f"{here}/images/{image['number']}/similar", params=params)
        team.ask("GET", f"{here}/index/explain", params={"image": image["number"]})


def find_products(team: Team, pick: Random) -> None:
    here = _shelf(team, pick)
    params = pick.choice(
        [
            {"search": pick.choice(WORDS)},
            {"category": "drinks"},
            {"external_id": pick.choice(EXTERNAL_IDS)},
            {"label": pick.choice(WORDS), "limit": 1},
        ]
    )
    if product := team.some(pick, f"{here}/products", **params):
        team.ask("GET", f"{here}/products/{product['id']}")


def make_products(team: Team, pick: Random) -> None:
    rows = [
        {
            "external_id": one,
            "label": f"{team.name} {one}",
            "category": f"drinks/{team.name}",
            "attributes": {"team": team.name},
            "names": {"en": f"{team.name} in English"},
        }
        for one in pick.sample(EXTERNAL_IDS, 2)
    ]
    team.ask("POST", f"{_shelf(team, pick)}/products/upsert", json={"products": rows})


def change_product(team: Team, pick: Random) -> None:
    here = _shelf(team, pick)
    if product := team.some(pick, f"{here}/products"):
        change = pick.choice([{"sku": f"{team.name}-1"}, {"label": team.label(pick)}])
        team.ask("PATCH", f"{here}/products/{product['id']}", json=change)
        body = {"products": [product["id"]], "category": f"drinks/{team.name}"}
        team.ask("POST", f"{here}/products/change", json=body)


def merge_or_split(team: Team, pick: Random) -> None:
    here = _shelf(team, pick)
    one, two = (team.some(pick, f"{here}/products") for _ in range(2))
    if one and two and pick.random() < 0.5:
        path = f"{here}/products/{one['id']}/merge"
        team.ask("POST", path, json={"products": [two["id"]]})
    elif image := team.some(pick, f"{here}/images"):
        body = {"label": f"{team.name} split {pick.randrange(99)}", "images": [image["number"]]}
        team.ask("POST", f"{here}/products/{image['product']}/split", json=body)


def move_product(team: Team, pick: Random) -> None:
    here, to = _shelf(team, pick), pick.choice(team.catalogues)
    if product := team.some(pick, f"{here}/products"):
        body = {"products": [product["id"]], "catalogue": str(to.key)}
        team.ask("POST", f"{here}/products/move", json=body)


def use_the_trash(team: Team, pick: Random) -> None:
    here = _shelf(team, pick)
    if pick.random() < 0.5 and (product := team.some(pick, f"{here}/products")):
        team.ask("DELETE", f"{here}/products/{product['id']}")
    if product := team.some(pick, f"{here}/trash"):
        if pick.random() < 0.7:
            team.ask("POST", f"{here}/trash/{product['id']}/restore", json={})
        else:
            team.ask("DELETE", f"{here}/trash/{product['id']}")


def recognise(team: Team, pick: Random) -> None:
    body: dict[str, Any] = {"image": _base64(team.picture(pick)), "name": f"{team.name}.png"}
    body["per_product"] = pick.random() < 0.5
    if pick.random() < 0.3:
        body["catalogues"] = [str(pick.choice(team.catalogues).key)]
    path = f"{_shelf(team, pick)}/recognitions"
    if answer := team.ask("POST", path, json=body, params={"wait": 10}):
        team.ask("GET", answer[pick.choice(["picture", "annotated", "url"])])


def look_back(team: Team, pick: Random) -> None:
    path = f"{_shelf(team, pick)}/recognitions"
    if query := team.some(pick, path, **pick.choice([{}, {"label": "tea"}, {"status": "match"}])):
        team.ask("GET", query[pick.choice(["url", "picture", "annotated"])])
        if pick.random() < 0.2:
            team.ask("DELETE", query["url"])
        elif query["detections"]:
            path = f"{query['url']}/detections/0/feedback"
            team.ask("PUT", path, json={"verdict": pick.choice(["confirmed", "unknown"])})


def people(team: Team, pick: Random) -> None:
    here = _shelf(team, pick)
    member = team.some(pick, f"{here}/members", role="viewer")
    if member:
        team.ask("PATCH", f"{here}/members/{member['id']}", json={"role": "viewer"})
        if pick.random() < 0.3:
            team.ask("DELETE", f"{here}/members/{member['id']}")
    else:
        body = {"user": f"{team.name} helper", "role": "viewer"}
        team.ask("POST", f"{here}/members", json=body)
    if pick.random() < 0.5:
        team.ask("POST", f"{here}/invitations", json={"email": f"{team.name}@example.com"})
    elif invitation := team.some(pick, f"{here}/invitations"):
        team.ask("DELETE", f"{here}/invitations/{invitation['id']}")


def use_tokens(team: Team, pick: Random) -> None:
    if pick.random() < 0.5:
        team.ask("POST", f"{API}/tokens", json={"name": f"{team.name} till"})
    else:
        team.ask("GET", f"{API}/tokens")


def look_who_did_what(team: Team, pick: Random) -> None:
    team.ask("GET", _shelf(team, pick) + pick.choice(["/audit", "/audit.csv"]))


def import_pictures(team: Team, pick: Random) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("gallery.txt", f"a.png {team.label(pick)}\nb.png {team.name} b\nc.png c\n")
        archive.writestr("a.png", team.picture(pick))
        archive.writestr("b.png", team.picture(pick))
    file = {"file": (f"{team.name}.zip", out.getvalue())}
    team.ask("POST", f"{_shelf(team, pick)}/imports", files=file)


def export(team: Team, pick: Random) -> None:
    team.ask("POST", f"{_shelf(team, pick)}/exports", json={"embeddings": pick.random() < 0.5})


def watch_jobs(team: Team, pick: Random) -> None:
    here = _shelf(team, pick)
    if pick.random() < 0.2:
        team.ask("POST", f"{here}/index/rebuild")
    if job := team.some(pick, f"{here}/jobs", **pick.choice([{}, {"kind": "export"}])):
        team.ask("GET", f"{job['url']}{pick.choice(['', '/lines', '/report'])}")
        if job["file"]:
            team.ask("GET", job["file"])
        elif pick.random() < 0.5:
            team.ask("POST", f"{job['url']}/{pick.choice(['retry', 'cancel'])}")


def as_paddlex(team: Team, pick: Random) -> None:
    pairs = [{"image": _base64(team.picture(pick)), "label": team.label(pick)} for _ in range(2)]
    key = str(pick.choice(team.catalogues).key)
    act = pick.choice(["build", "add", "remove", "infer", "infer"])
    if act == "build" and len(team.catalogues) < _MOST_CATALOGUES:
        body = {"imageLabelPairs": pairs, "catalogue": f"{team.name} index {pick.randrange(99)}"}
        team.ask("POST", "/shitu-index-build", json=body)
    elif act == "remove":
        team.ask("POST", "/shitu-index-remove", json={"ids": [pick.randrange(9)], "indexKey": key})
    elif act == "infer":
        body = {"image": pairs[0]["image"], "indexKey": key, "topk": 9}
        team.ask("POST", "/shitu-infer", json=body)
    else:
        team.ask("POST", "/shitu-index-add", json={"imageLabelPairs": pairs, "indexKey": key})


def read_pages(team: Team, pick: Random) -> None:
    key = pick.choice(team.catalogues).key
    path = pick.choice(["/", f"/c/{key}/", f"/c/{key}/gallery/", f"/c/{key}/gallery/?q=tea"])
    team.look_through(team.pages.get(path))


# --- What they try --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Request:
    method: str
    path: str
    sent: Mapping[str, Any] = field(default_factory=dict)


def _same_as_nothing(team: Team, theirs: _Request, nobodys: _Request) -> None:
    """What is the other team's is answered as what nobody has: 404, or 400 where a body names it.

    Raises Leak for any other answer, or another text but for the ids in it.
    """
    answers = []
    for one in (theirs, nobodys):
        response = team.client.request(one.method, one.path, **one.sent)
        answers.append((response.status_code, _IDS.sub("…", response.text)))
    addresses = {one.path.partition("?")[0] for one in (theirs, nobodys)}
    refused = (404,) if len(addresses) == 2 else (400, 404)
    if answers[0][0] not in refused or answers[0] != answers[1]:
        raise Leak(f"{team.name}: {theirs} -> {answers[0]}, and for nobody's ids {answers[1]}")


def _is_about_a_query(route: str) -> bool:
    return str(_pattern(route).pattern).startswith("v1/recognitions/")


def pry(team: Team, pick: Random) -> None:
    """Any address of the API with ids of the other team, all of them or all but the catalogue's."""
    name, method = pick.choice(_WITH_IDS)
    places = _pattern(name).pattern.converters.keys()
    assert places <= _PLACES, f"say in `_ids_of` what {places - _PLACES} of the route {name} are"
    theirs = _ids_of(team.other, pick, name)
    if not places <= theirs.keys():
        return  # they have no such thing yet
    given = {place: theirs[place] for place in places}
    nothing = {place: _nobodys(value) for place, value in given.items()}
    # A number is that of an image in any catalogue.
    in_catalogue = "key" in places and not _is_about_a_query(name)
    if in_catalogue and places - {"key", "number"} and pick.random() < 0.5:
        given["key"] = nothing["key"] = pick.choice(team.catalogues).key

    def request(ids: Mapping[str, Any]) -> _Request:
        access = ROUTES[name, method]
        sent = _sent(access.body)
        body = {"json": sent["data"]} if sent["format"] == "json" else {"files": sent["data"]}
        return _Request(method, reverse(f"api:{name}", kwargs=ids) + access.query, body)

    _same_as_nothing(team, request(given), request(nothing))


def pry_in_bodies(team: Team, pick: Random) -> None:
    """An own address, and ids of the other team in what is sent there."""
    theirs = _ids_of(team.other, pick, "product")
    mine = _ids_of(team, pick, "product")
    if not {"product", "number"} <= theirs.keys() & mine.keys():
        return
    here = f"{API}/catalogues/{mine['key']}"
    number, product = mine["number"], mine["product"]
    shown = _base64(picture(None, 0))
    bodies: list[tuple[str, str, Callable[[Mapping[str, Any]], Any]]] = [
        ("POST", f"{here}/products/{product}/merge", lambda of: {"products": [of["product"]]}),
        ("POST", f"{here}/products/change", lambda of: {"products": [of["product"]]}),
        ("POST", f"{here}/products/remove", lambda of: {"products": [of["product"]]}),
        (
            "POST",
            f"{here}/products/move",
            lambda of: {"products": [product], "catalogue": str(of["key"])},
        ),
        ("POST", f"{here}/images/move", lambda of: {"numbers": [number], "product": of["product"]}),
        ("PATCH", f"{here}/images/{number}", lambda of: {"product": of["product"]}),
        (
            "POST",
            f"{here}/recognitions",
            lambda of: {"image": shown, "catalogues": [str(of["key"])]},
        ),
        ("POST", "/shitu-infer", lambda of: {"image": shown, "indexKey": str(of["key"])}),
        ("POST", "/shitu-index-remove", lambda of: {"ids": [0], "indexKey": str(of["key"])}),
        (
            "POST",
            "/shitu-index-add",
            lambda of: {
                "imageLabelPairs": [{"image": shown, "label": "tea"}],
                "indexKey": str(of["key"]),
            },
        ),
    ]
    method, path, body = pick.choice(bodies)
    nothing = {place: _nobodys(value) for place, value in theirs.items()}
    both = (_Request(method, path, {"json": body(of)}) for of in (theirs, nothing))
    _same_as_nothing(team, *both)
    similar = f"{here}/images/{number}/similar?catalogue="
    for address in (similar + "{key}", f"{API}/catalogues/{{key}}/paddlex-index"):
        both = (_Request("GET", address.format(**of)) for of in (theirs, nothing))
        _same_as_nothing(team, *both)


def pry_on_pages(team: Team, pick: Random) -> None:
    """The pages, with ids of the other team."""
    for of in ("product", "recognition"):
        theirs = _ids_of(team.other, pick, of)
        for address in (
            "/c/{key}/", "/c/{key}/gallery/", "/c/{key}/gallery/{product}/",
            "/c/{key}/images/{number}/", "/c/{key}/images/{number}/256/",
            "/r/{key}/", "/r/{key}/picture/",
        ):  # fmt: skip
            if ("/r/" in address) == (of == "recognition"):
                try:
                    response = team.pages.get(address.format(**theirs))
                except KeyError:  # they have no such thing yet
                    continue
                if response.status_code != 404:
                    raise Leak(f"{team.name}: {response.request.url} -> {response.status_code}")


def search_for_them(team: Team, pick: Random) -> None:
    """What the other team calls its things finds nothing."""
    here, name = _shelf(team, pick), team.other.name
    for path in (
        f"{API}/catalogues?search={name}",
        f"{here}/products?search={name}",
        f"{here}/products?category=drinks/{name}",
        f"{here}/trash?search={name}",
        f"{here}/members?user={name}%20boss",
        f"{here}/audit?user={name}%20boss",
    ):
        response = team.client.get(path)
        if response.status_code == 200 and response.json()["results"]:
            raise Leak(f"{team.name}: {path} found {response.text[:500]}")


_WITH_IDS = [
    (name, method)
    for name, method in ROUTES
    if _pattern(name).pattern.converters and name != "invited"  # whoever has that link may look
]


def _nobodys(value: Any) -> Any:
    if isinstance(value, UUID):
        return UUID(int=value.int ^ 1)
    return 2**40 if isinstance(value, int) else "of-nobody"


_PLACES = {"key", "product", "number", "job", "member", "invitation", "token", "position"}


def _ids_of(team: Team, pick: Random, route: str) -> dict[str, Any]:
    """Ids of what a team has, by what the address of that route calls them."""
    catalogue = pick.choice(team.catalogues)
    in_trash = "trash" in route
    rows: dict[str, tuple[Any, str]] = {
        "product": (
            Product.everything.filter(catalogue=catalogue, removed_at__isnull=not in_trash),
            "pk",
        ),
        "number": (catalogue.images, "number"),
        "job": (catalogue.jobs, "key"),
        "member": (catalogue.memberships, "pk"),
        "invitation": (Invitation.objects.filter(catalogue=catalogue), "pk"),
        "token": (team.boss.auth_token_set, "token_key"),
    }
    found: dict[str, Any] = {"key": catalogue.key}
    if _is_about_a_query(route):
        found = {"position": 0}
        rows["key"] = (catalogue.queries, "key")
    for place, (queryset, name) in rows.items():
        if values := list(queryset.order_by("pk").values_list(name, flat=True)[:20]):
            found[place] = pick.choice(values)
    return found


Act = Callable[[Team, Random], None]
ACTS: list[Act] = [
    look_around, change_catalogue, make_catalogue, upload, upload, upload, upload_files,
    find_images, find_images, change_image, remove_image, more_like_this, more_like_this,
    find_products, make_products, change_product, merge_or_split, move_product, use_the_trash,
    recognise, recognise, recognise, look_back, look_back, people, use_tokens, look_who_did_what,
    import_pictures, export, watch_jobs, watch_jobs, as_paddlex, as_paddlex, read_pages,
    pry, pry, pry, pry, pry_in_bodies, pry_in_bodies, pry_on_pages, search_for_them,
]  # fmt: skip


# --- How it is run --------------------------------------------------------------------------------


class Desk:
    """A worker in a thread: takes wake-ups one after the other, of both teams."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[tuple[Any, tuple[Any, ...]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="worker")
        self.failures: list[str] = []

    def wake(self, task: Any, *args: Any) -> None:
        """In the place of `tasks.wake`."""
        transaction.on_commit(lambda: self._waiting.put((task, args)))

    def __enter__(self) -> Desk:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def finish(self) -> None:
        """Return when everything that waits is done."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        try:
            while (item := self._waiting.get()) is not None:
                task, args = item
                try:
                    task(*args)
                except Exception:  # noqa: BLE001  (a worker goes on with the next, and so do we)
                    self.failures.append(traceback.format_exc())
        finally:
            connections.close_all()


def hammer(
    teams: tuple[Team, Team], *, seed: int, acts: int, threads: int, among: Sequence[Act] = ACTS
) -> None:
    """Let each team do `acts` random things of `among` in each of `threads`, all of them at once.

    Raises what any thread met first: Leak, or AssertionError for an answer of 5xx.
    """
    stop = threading.Event()
    met: list[BaseException] = []

    def work(team: Team, number: int) -> None:
        pick = Random(f"{seed} {team.name} {number}")  # noqa: S311
        try:
            for _ in range(acts):
                if stop.is_set():
                    return
                pick.choice(among)(team, pick)
        except BaseException as error:  # noqa: BLE001  (raised again below)
            met.append(error)
            stop.set()
        finally:
            connections.close_all()

    running = [
        threading.Thread(target=work, args=(team, number), name=f"{team.name} {number}")
        for team in teams
        for number in range(threads)
    ]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if met:
        raise met[0]
