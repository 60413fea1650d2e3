#!/usr/bin/env python
"""Django's command line."""

from __future__ import annotations

import os
import sys

from django.core.management import execute_from_command_line

from recognition.errors import SetupError

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shitu_site.settings")
    try:
        execute_from_command_line(sys.argv)
    except SetupError as error:  # the servers start while the settings are read
        sys.exit(error.message)
