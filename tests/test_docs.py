"""What the documents promise is there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from django.core.management import get_commands, load_command_class
from django.urls import resolve

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def settings_read() -> set[str]:
    """Names of the environment variables that the settings and the web server read."""
    found: set[str] = set()
    for file in ("settings.py", "gunicorn.conf.py"):
        text = (ROOT / "shitu_site" / file).read_text()
        found |= set(re.findall(r'"((?:SHITU_[A-Z0-9_]+)|DATABASE_URL|REDIS_URL)"', text))
    return found


def settings_documented() -> set[str]:
    """Names in the first column of the settings table."""
    table = README.split("## Settings")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([A-Z0-9_]+)`", row)}


def test_the_settings_table_is_complete():
    assert settings_read() - settings_documented() == set()


def test_the_settings_table_has_nothing_that_is_not_read():
    assert settings_documented() - settings_read() == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document):
    links = re.findall(r"\]\(((?!https?:|#)[^)#]+)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_every_make_target_of_the_readme_exists():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z]+)", README, re.MULTILINE)) <= targets


def test_every_command_of_the_readme_exists():
    commands = {path.stem for path in (ROOT / "recognition/management/commands").glob("*.py")}
    assert set(re.findall(r"manage\.py (\w+)", README)) <= commands | {"check"}


def commands_in(document: Path) -> Iterator[list[str]]:
    """The words behind `manage.py` of every line in a block of shell."""
    for block in re.findall(r"```(?:sh|shell|bash)\n(.*?)```", document.read_text(), re.DOTALL):
        for found in re.findall(r"manage\.py ([^\n)|;&>]+)", block.replace("\\\n", " ")):
            yield shlex.split(found, comments=True)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_in_an_example_can_be_typed(document):
    for name, *words in commands_in(document):
        command = get_commands()[name]
        loaded = load_command_class(command, name) if isinstance(command, str) else command
        given = loaded.create_parser("manage.py", name).parse_args(words)
        files = [value.name for value in vars(given).values() if isinstance(value, Path)]
        assert not any(map(str.isdigit, files)), f"{name} {words}: a number is no file"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_address_of_the_api_in_an_example_exists(document):
    """Only those in code, from `/api/` to the query; what stands for an id is one."""
    for block in re.findall(r"```(?:sh|python)\n(.*?)```", document.read_text(), re.DOTALL):
        for found in re.findall(r"/api/[^\s\"?]*", block):
            address = re.sub(r"\$[A-Z]+|\{[^}]*\}", str(UUID(int=0)), found)
            if address != "/api/v1":  # the base of a client
                resolve(address)
