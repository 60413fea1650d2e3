"""docs/api.md keeps up with the API."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from recognition.api import catalogues, errors, questions
from recognition.errors import DeviceUnavailable, RecognitionError
from tests.api.test_errors import _tree

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "api.md").read_text()
# What a caller cannot meet here: faults of the site or a worker, and waiting, which ends in 202.
NOT_MET = {500, 504}


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for kind in _tree(RecognitionError)
        if errors.status_of(kind.__new__(kind)) not in NOT_MET and kind is not DeviceUnavailable
    ],
    ids=lambda kind: kind.__name__,
)
def test_every_error_is_in_the_table(kind):
    status = errors.status_of(kind.__new__(kind))
    row = next(line for line in TEXT.splitlines() if line.startswith(f"| {status} |"))
    assert f"`{kind.code}`" in row


@pytest.mark.parametrize("name", catalogues.CatalogueCreate().fields)
def test_every_setting_of_a_catalogue_is_explained(name):
    assert f"`{name}`" in TEXT


@pytest.mark.parametrize("name", questions.AskJson().fields)
def test_every_option_of_a_question_is_explained(name):
    assert f"`{name}`" in TEXT or name == "name"


def test_the_examples_are_python():
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) > 3
    for block in blocks:
        ast.parse(block)
