from __future__ import annotations

import subprocess
import sys

import pytest

from tests.engine.conftest import ROOT

MODULES = sorted(
    path.stem
    for path in (ROOT / "recognition" / "engine").glob("[!_]*.py")
    if path.stem != "starter_network"  # says what a network is in paddle's words
)


@pytest.mark.parametrize("module", MODULES)
def test_importing_it_loads_no_paddle_and_no_django(module):
    heavy = "{'paddle', 'paddlex', 'onnxruntime', 'cv2', 'faiss', 'django'}"
    program = f"import sys, recognition.engine.{module}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"
