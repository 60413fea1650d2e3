"""The lock files agree with each other and with what pyproject.toml asks for."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def locked(name: str) -> set[str]:
    """Lines `package==version`, without the condition behind `;`."""
    lines = (ROOT / name).read_text().splitlines()
    return {line.partition(";")[0].strip().lower() for line in lines if line.strip()}


def asked(requirements: list[str]) -> set[str]:
    """The same of direct requirements: `celery[redis]==1` is locked as `celery==1`."""
    return {
        f"{name.partition('[')[0]}=={version}".lower().replace("_", "-")
        for name, version in (line.split("==") for line in requirements)
    }


@pytest.mark.parametrize(
    ("name", "requirements"),
    [
        ("requirements.txt", EXTRAS["server"]),
        ("requirements-s3.txt", EXTRAS["server"] + EXTRAS["s3"]),
        ("requirements-dev.txt", EXTRAS["server"] + EXTRAS["dev"]),
    ],
)
def test_every_direct_requirement_is_locked_as_it_is_pinned(name, requirements):
    assert asked(requirements) - locked(name) == set()


def test_the_client_runs_with_what_the_site_has():
    """Its requirements leave room for others, and what is locked here lies in them."""
    versions = dict(line.split("==") for line in locked("requirements.txt"))
    for line in map(Requirement, PROJECT["dependencies"]):
        assert versions[line.name] in line.specifier


@pytest.mark.parametrize("larger", ["requirements-s3.txt", "requirements-dev.txt"])
def test_what_the_site_needs_is_the_same_everywhere(larger):
    assert locked("requirements.txt") - locked(larger) == set()


def test_what_the_bucket_needs_is_what_the_tests_run_with():
    assert locked("requirements-s3.txt") - locked("requirements-dev.txt") == set()


def test_a_default_installation_has_nothing_for_a_bucket():
    names = {line.partition("==")[0] for line in locked("requirements.txt")}
    assert not names & {"boto3", "botocore", "django-storages"}
