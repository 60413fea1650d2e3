"""Saved indexes of PaddleX, for the web process: commands read and write them in processes of their
own, because FAISS has no place in this one.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

from django.conf import settings
from django.db import transaction

from recognition.errors import AnswerTimeout, BadInput
from recognition.models import Catalogue, User
from recognition.services import catalogues, pipeline_config
from recognition.services.locks import lock_import


def zipped(catalogue: Catalogue) -> IO[bytes]:
    """The catalogue's vectors as a ZIP of PaddleX's two files, open for reading.

    Raises BadInput with its reason when there is nothing to write.
    """
    with tempfile.TemporaryDirectory(prefix="index-") as scratch:
        file = Path(scratch, "index.zip")
        _manage("export_index", "--catalogue", str(catalogue.key), "--output", str(file))
        return file.open("rb")  # stays readable when its name is gone


def imported(user: User, directory: Path, *, feature_model: str | None = None) -> Catalogue:
    """The catalogue of `user` that holds a saved index directory; imported at first use.

    It is named after the content, so the same index is imported once. `feature_model` is the
    network that made it, which the files do not say (default: the site's). Raises BadInput.
    """
    name = f"index {pipeline_config.content_digest(directory)[:32]}"
    rows = Catalogue.objects.filter(owner=user, name=name)
    whole = rows.exclude(description="")  # else begun and interrupted: the command goes on there
    if (found := whole.first()) is not None:
        return found
    catalogues.require_unlimited(user)
    with transaction.atomic():
        lock_import(f"{user.pk} {name}")
        if (found := whole.first()) is not None:  # somebody asked at the same time
            return found
        of_site = pipeline_config.site_options().get("feature_model", settings.SHITU_FEATURE_MODEL)
        model = feature_model or of_site
        _manage(
            "import_index", "--catalogue", name, "--user", user.get_username(),
            "--index", str(directory), "--feature-model", model,
        )  # fmt: skip
        found = rows.get()
        catalogues.change(found, description=f"imported from the index {directory.name}")
    return found


def _manage(*arguments: str) -> None:
    """Run one of our commands in a process of its own; raises BadInput with its last words."""
    try:
        ended = subprocess.run(  # noqa: S603
            [sys.executable, str(settings.BASE_DIR / "manage.py"), *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=settings.SHITU_PADDLEX_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise AnswerTimeout(
            f"{arguments[0]} did not end within {settings.SHITU_PADDLEX_TIMEOUT:g} s; run "
            f"`manage.py {arguments[0]}` on the server, which may take as long as it likes"
        ) from error
    if ended.returncode:
        words = [line for line in ended.stderr.splitlines() if line.strip()]
        raise BadInput((words or ["no reason was given"])[-1].removeprefix("CommandError: "))
