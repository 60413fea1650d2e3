"""The site's settings in a directory of the tests' own: servers, files and queues of `make run`
are never touched."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

os.environ.setdefault("SHITU_MODELS_DIR", str(ROOT / "var" / "models"))
# Two runs beside each other need two names; so do the processes of one run.
_run = os.environ.get("SHITU_TEST_RUN", "tests") + os.environ.get("PYTEST_XDIST_WORKER", "")
os.environ["SHITU_VAR_DIR"] = str(ROOT / "var" / _run)
os.environ["SHITU_SECRET_KEY"] = "only-for-tests-" + "x" * 32
os.environ["SHITU_LEASE_SECONDS"] = "5"

from shitu_site.settings import *  # noqa: E402, F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
