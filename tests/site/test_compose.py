"""`docker compose up`, as far as a file can be held without a Docker engine."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from recognition.management.commands.run import PROCESSES
from shitu_site.embedded import postgres

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
SECRETS = {"SHITU_SECRET_KEY": "a-secret", "POSTGRES_PASSWORD": "b-secret"}
SERVICES = ["database", "broker", "setup", "web", "worker", "beat"]
SITE = ["setup", "web", "worker", "beat"]


def filled_in(text: str, environment: dict[str, str]) -> str:
    """`text` with its variables replaced as Compose does. Raises KeyError for a required one."""

    def value(found: re.Match[str]) -> str:
        name, how, word = found["name"], found["how"], found["word"]
        if environment.get(name):
            return environment[name]
        if how == ":?":
            raise KeyError(name)
        assert how == ":-", f"{name} has neither a default nor must it be set"
        return word

    return re.sub(r"\$\{(?P<name>\w+)(?P<how>:[?-])?(?P<word>[^}]*)\}", value, text)


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The file as the Compose specification understands it."""
    # PyYAML resolves the merge keys (<<), which the specification's parser leaves to YAML.
    parsed = PyCompose.from_json(json.dumps(yaml.safe_load(filled_in(TEXT, SECRETS))))
    parsed.validate()
    return parsed.to_dict()


def words(command: str | list[str]) -> list[str]:
    return shlex.split(command) if isinstance(command, str) else list(command)


def options(command: list[str]) -> dict[str, str]:
    """`-c name=value` pairs of a PostgreSQL command line."""
    return dict(word.split("=", 1) for word in command if "=" in word)


def test_it_has_the_services_of_the_whole_site(compose):
    assert sorted(compose["services"]) == sorted(SERVICES)


@pytest.mark.parametrize("secret", sorted(SECRETS))
def test_it_does_not_start_without_its_secrets(secret):
    with pytest.raises(KeyError, match=secret):
        filled_in(TEXT, {name: value for name, value in SECRETS.items() if name != secret})


@pytest.mark.parametrize("name", sorted(PROCESSES))
def test_each_process_of_make_run_is_the_command_of_its_service(compose, name):
    assert words(compose["services"][name]["command"]) == PROCESSES[name]


def test_no_service_of_ours_runs_anything_else(compose):
    own = {name for name, service in compose["services"].items() if "build" in service}
    assert own == {*PROCESSES, "setup"}
    assert words(compose["services"]["setup"]["command"]) == ["python", "manage.py", "setup"]
    assert (ROOT / "recognition/management/commands/setup.py").exists()


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_each_service_is_watched_or_runs_to_its_end(compose, name):
    service = compose["services"][name]
    waited_for = [
        after["depends_on"][name]["condition"]
        for after in compose["services"].values()
        if name in after.get("depends_on", {})
    ]
    if name == "setup":
        assert set(waited_for) == {"service_completed_successfully"}
        assert service["restart"] == "on-failure"
    else:
        assert service["healthcheck"]["test"][0] == "CMD"
        assert service["restart"] == "unless-stopped"
        assert set(waited_for) <= {"service_healthy"}


@pytest.mark.parametrize("name", ["web", "worker", "beat"])
def test_nothing_of_ours_starts_before_setup_and_servers(compose, name):
    assert set(compose["services"][name]["depends_on"]) == {"setup", "database", "broker"}


@pytest.mark.parametrize("name", ["web", "worker", "beat"])
def test_health_checks_are_commands_that_python_can_read(compose, name):
    test = words(compose["services"][name]["healthcheck"]["test"])
    assert test[:2] == ["CMD", "python"]
    compile(test[-1], name, "exec")


def test_every_volume_is_declared_and_used(compose):
    used = set()
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            source = volume["source"] if isinstance(volume, dict) else volume.split(":")[0]
            used.add(source)
    assert used == set(compose["volumes"]) == {"database", "broker", "data"}


@pytest.mark.parametrize("name", sorted(SITE))
def test_ours_reach_the_servers_and_share_one_data_directory(compose, name):
    environment = compose["services"][name]["environment"]
    assert environment["DATABASE_URL"] == "postgres://shitu:b-secret@database:5432/shitu"
    assert environment["REDIS_URL"] == "redis://broker:6379/0"
    assert environment["SHITU_VAR_DIR"] in str(compose["services"][name]["volumes"])


def test_every_setting_in_it_is_one_the_site_knows():
    known = "".join(
        (ROOT / "shitu_site" / name).read_text() for name in ("settings.py", "gunicorn.conf.py")
    )
    table = (ROOT / "README.md").read_text()
    used = set(re.findall(r"SHITU_\w+", TEXT + DOCKERFILE))
    assert used
    for name in used:
        assert f'"{name}"' in known
        assert f"`{name}`" in table


def test_images_are_pinned(compose):
    images = [s["image"] for s in compose["services"].values() if "build" not in s]
    images += re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert len(images) == 3
    for image in images:
        assert re.search(r":\d+\.\d+\.\d+(-\w+)*$", image), image


def test_only_the_web_server_is_published_and_only_on_this_machine(compose):
    published = {n: s["ports"] for n, s in compose["services"].items() if s.get("ports")}
    assert list(published) == ["web"]
    assert "127.0.0.1" in str(published["web"])


def test_its_postgres_is_set_as_the_embedded_one(compose):
    given = options(words(compose["services"]["database"]["command"]))
    embedded = postgres.settings(Path("/sockets"))
    shared = given.pop("shared_buffers")
    assert re.fullmatch(r"\d+MB", shared)
    assert given == {name: embedded[name] for name in given}
    assert {
        "jit",
        "max_locks_per_transaction",
        "min_dynamic_shared_memory",
        "random_page_cost",
    } <= set(given)


def test_its_broker_loses_and_evicts_nothing(compose):
    command = " ".join(words(compose["services"]["broker"]["command"]))
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command


def test_the_image_runs_as_an_ordinary_user_and_copies_no_secrets():
    assert re.findall(r"^USER (\S+)", DOCKERFILE, re.MULTILINE)[-1] not in ("root", "0")
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".env", "var", ".git", ".venv"} <= set(ignored)


def test_the_image_starts_the_web_server_by_default():
    [command] = re.findall(r"^CMD (.*)$", DOCKERFILE, re.MULTILINE)
    assert re.findall(r'"([^"]*)"', command) == PROCESSES["web"]


@pytest.mark.parametrize("source", re.findall(r"^COPY (?!--)(\S+) ", DOCKERFILE, re.MULTILINE))
def test_what_the_image_copies_exists(source):
    assert (ROOT / source).exists()


def test_its_programs_come_with_the_requirements():
    """gunicorn and celery are found beside the Python that runs this, as in the image."""
    for command in PROCESSES.values():
        assert Path(sys.executable).with_name(command[0]).exists()
