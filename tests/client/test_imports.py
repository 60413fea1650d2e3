"""What the client needs where nothing else of this project is."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_client_needs_no_django_and_no_network_library():
    code = (
        "import sys, recognition.client; "
        "print(sorted({name.partition('.')[0] for name in sys.modules} & "
        "{'django', 'celery', 'paddle', 'paddlex', 'cv2', 'faiss', 'yaml', 'psycopg'}))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert ran.stdout.strip() == "[]"


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def named(requirement: str) -> str:
    return re.split("[<>=!~]", requirement)[0]


def installed_files() -> list[str]:
    """What `pip install` of this repository installs, below its root."""
    setuptools = project()["tool"]["setuptools"]
    files = [f"{module.replace('.', '/')}.py" for module in setuptools["py-modules"]]
    files += ["recognition/__init__.py"]
    for package in setuptools["packages"]:
        files += [
            str(path.relative_to(ROOT)) for path in ROOT.glob(f"{package.replace('.', '/')}/*.py")
        ]
    return sorted(set(files))


def test_installed_it_is_the_client_and_whatever_that_needs(tmp_path):
    for name in installed_files():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import recognition.client, recognition.drawing\n"
        "print(*(m.__file__ for n, m in sys.modules.items() if n.startswith('recognition')))"
    )
    ran = subprocess.run(
        [sys.executable, "-I", "-c", code, tmp_path], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    # All of it is used, and nothing of it comes from elsewhere.
    assert sorted(ran.stdout.split()) == [str(tmp_path / name) for name in installed_files()]


def test_its_requirements_are_those_of_its_imports():
    imported = {"noto_cjk_sans_otc"}  # drawing reads the font out of it
    for name in installed_files():
        for node in ast.walk(ast.parse((ROOT / name).read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").partition(".")[0])
    packages = {"PIL": "pillow", "noto_cjk_sans_otc": "noto-cjk-sans-otc"}
    needed = {packages.get(n, n) for n in imported - sys.stdlib_module_names - {"recognition"}}
    asked = {named(line) for line in project()["project"]["dependencies"]}
    optional = {named(line) for line in project()["project"]["optional-dependencies"]["pdf"]}
    assert asked == needed - optional
    assert optional < needed
