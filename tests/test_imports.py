"""Who may import whom, and what a process never loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "recognition"

# A part of `recognition` and the other parts it may import. What is not here fails.
PLAIN: set[str] = {"errors"}
INPUT = {"images", "fetch", "gallery_list", "languages", "currencies"}
# These act through services, read through models, and never import each other.
DOOR = PLAIN | INPUT | {"models", "services", "delivery", "links", "oidc"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "currencies": set(),
    "languages": set(),
    "engine": PLAIN,
    "avif": set(),
    "images": PLAIN | {"avif"},
    "fetch": PLAIN,
    "drawing": PLAIN,
    "evaluation": PLAIN,
    "gallery_list": PLAIN,
    "inputs": PLAIN | {"gallery_list"},
    "pipeline_file": PLAIN | {"engine"},
    # What a script on another machine imports: nothing of the site.
    "client": PLAIN | {"inputs", "gallery_list", "drawing"},
    "demo": PLAIN | {"drawing", "evaluation"},
    "models": PLAIN | {"currencies", "languages"},
    "search": PLAIN | {"models"},
    "services": PLAIN
    | INPUT
    | {"models", "search", "engine", "drawing", "evaluation", "pipeline_file", "demo", "tasks"},
    "tasks": PLAIN | {"services"},
    "links": set(),
    "oidc": PLAIN | {"services"},
    "storage": PLAIN,
    "delivery": PLAIN | {"services"},
    "middleware": {"models", "services"},
    "checks": PLAIN | {"engine", "models", "services", "oidc"},
    "apps": {"checks", "gallery_list"},
    "api": DOOR,
    "web": DOOR,
    "admin": DOOR,
    # Tools of whoever runs the site: they also look at models on disk.
    "management": DOOR | {"engine", "drawing", "evaluation", "inputs", "pipeline_file", "demo"},
}

# Packages and the only parts that may import them.
ONLY_IN: dict[str, set[str]] = {
    "paddle": {"engine"},
    "paddlex": {"engine"},
    "paddle2onnx": {"engine"},
    "onnxruntime": {"engine"},
    "openvino": {"engine"},
    "nncf": {"engine"},
    "cv2": {"engine"},
    "faiss": {"services"},
    "pgvector": {"models", "search"},
    "boto3": {"storage"},
    "botocore": {"storage"},
    "storages": {"storage"},
    "authlib": {"oidc"},
    "rest_framework": {"api"},
    "unfold": {"admin"},
}
WITHOUT_DJANGO = {
    "avif",
    "client",
    "demo",
    "drawing",
    "engine",
    "errors",
    "evaluation",
    "gallery_list",
    "inputs",
}
HEAVY = ["paddle", "paddlex", "paddle2onnx", "onnxruntime", "openvino", "cv2", "faiss"]
ONLY_IF_USED = ["authlib", "boto3", "storages"]


def _files() -> Iterator[tuple[Path, str]]:
    """Every file of the package with the part it belongs to."""
    for path in sorted(PACKAGE.rglob("*.py")):
        inside = path.relative_to(PACKAGE)
        if inside.parts[0] not in ("migrations", "__init__.py"):
            yield path, inside.parts[0].removesuffix(".py")


FILES = [pytest.param(path, part, id=str(path.relative_to(PACKAGE))) for path, part in _files()]


def _imported(tree: ast.AST) -> Iterator[tuple[str, ast.stmt]]:
    """Full names of the modules that a piece of code imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "imports name the whole module"
            yield from ((f"{node.module}.{alias.name}", node) for alias in node.names)


def _at_the_top(tree: ast.Module) -> Iterator[str]:
    """Those that are loaded with the module."""
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from (name for name, _ in _imported(ast.Module([node], [])))


@pytest.mark.parametrize(("path", "part"), FILES)
def test_it_imports_only_what_its_part_may(path: Path, part: str):
    assert part in MAY_IMPORT, f"say in this test what recognition/{part} may import"
    for name, node in _imported(ast.parse(path.read_text())):
        top, *inside = name.split(".")
        if top == "recognition":
            used = inside[0]
            allowed = MAY_IMPORT[part] | {part}
            assert used in allowed, f"line {node.lineno}: {part} must not import {used}"
        elif top == "django":
            assert part not in WITHOUT_DJANGO, f"line {node.lineno}: {part} knows no Django"
        elif top in ONLY_IN:
            assert part in ONLY_IN[top], f"line {node.lineno}: {top} belongs in {ONLY_IN[top]}"


@pytest.mark.parametrize(
    ("path", "part"), [param for param in FILES if param.values[1] in ("services", "search")]
)
def test_a_service_knows_no_request(path: Path, part: str):
    names = {name for name, _ in _imported(ast.parse(path.read_text()))}
    assert not {name for name in names if name.startswith("django.http")}


def test_tasks_import_services_only_when_they_run():
    tree = ast.parse((PACKAGE / "tasks.py").read_text())
    assert [name for name in _at_the_top(tree) if name.startswith("recognition")] == []


def test_there_is_only_one_file_that_touches_paddlex():
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path, _ in _files()
        for name, _ in _imported(ast.parse(path.read_text()))
        if name.split(".")[0] == "paddlex"
    }
    assert found == {"engine/ppshitu.py"}


def test_networks_are_imported_inside_functions_only():
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path, _ in _files()
        if {name.split(".")[0] for name in _at_the_top(ast.parse(path.read_text()))} & set(HEAVY)
    }
    # Describes a network in paddle's words; only a process that builds the starter loads it.
    assert found == {"engine/starter_network.py"}


@pytest.mark.parametrize(
    "module",
    [
        "recognition.tasks",
        "recognition.services.queries",
        "recognition.services.gallery",
        "recognition.api.urls",
        "recognition.web.urls",
        "shitu_site.urls",
        "shitu_site.wsgi",
        "shitu_site.celery",
    ],
)
def test_importing_it_loads_no_network(module: str):
    program = (
        "import os, sys, importlib\n"
        "os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'shitu_site.settings')\n"
        "import django\n"
        "django.setup()\n"
        f"importlib.import_module({module!r})\n"
        f"print(sorted(set({[*HEAVY, *ONLY_IF_USED]!r}) & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
