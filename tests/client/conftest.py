"""The client talks to the real site, as PaddleX's other clients do in tests/paddlex."""

from __future__ import annotations

import json

import pytest

from tests.paddlex.cases import GALLERY, PICTURES, RECORDED
from tests.paddlex.conftest import (  # noqa: F401  (fixtures)
    local,
    paddlex_settings,
    serve,
    someone,
    token,
)


@pytest.fixture(scope="session")
def library():
    """What PaddleX's Python library says about the same pictures."""
    return json.loads((RECORDED / "library.json").read_text(encoding="utf-8"))["answers"]


@pytest.fixture
def gallery_file(tmp_path):
    """A gallery.txt as PaddleX has it (a tab where a label has a space)."""
    path = tmp_path / "gallery.txt"
    path.write_text("".join(f"{name}\t{label}\n" for name, label in GALLERY), encoding="utf-8")
    return path


@pytest.fixture
def pictures():
    return PICTURES
