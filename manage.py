#!/usr/bin/env python3
"""Django's command line. Outside the project's environment it goes on with the Python of that."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

_PROJECT = Path(__file__).resolve().parent
_ENVIRONMENT = _PROJECT / ".venv"


def main() -> None:
    """Run the command that was typed."""
    try:
        from django.core.management import execute_from_command_line
    except ModuleNotFoundError as error:
        if error.name != "django":
            raise
        _with_own_python()

    from recognition.errors import SetupError

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shitu_site.settings")
    try:
        execute_from_command_line(sys.argv)
    except SetupError as error:  # the servers start while the settings are read
        sys.exit(error.message)


def _with_own_python() -> NoReturn:
    """Become the same command in the project's environment. Exits with a sentence without one."""
    python = _ENVIRONMENT / "bin/python"
    if not python.exists() or Path(sys.prefix).resolve() == _ENVIRONMENT.resolve():
        sys.exit(f"Django is not installed for this Python: `make setup` in {_PROJECT} does it.")
    os.execv(python, [str(python), __file__, *sys.argv[1:]])  # noqa: S606 (no shell is meant)


if __name__ == "__main__":
    main()
