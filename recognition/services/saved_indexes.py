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
from django.utils import timezone

from recognition.errors import AnswerTimeout, BadInput
from recognition.models import Catalogue, Job, State, User
from recognition.services import catalogues, jobs, pipeline_config
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

    The same index is imported once: a job of its catalogue says that it was, whatever has been
    changed there since. `feature_model` is the network that made it, which the files do not say
    (default: the site's). Raises BadInput.
    """
    digest = pipeline_config.content_digest(directory)[:32]
    receipts = Job.objects.filter(
        catalogue__owner=user, kind=Job.Kind.IMPORT, state=State.DONE, options__index=digest
    ).select_related("catalogue__index__feature_model")
    if (receipt := receipts.first()) is not None:
        return receipt.catalogue
    catalogues.require_unlimited(user)
    with transaction.atomic():
        lock_import(f"{user.pk} {digest}")
        if (receipt := receipts.first()) is not None:  # somebody asked at the same time
            return receipt.catalogue
        of_site = pipeline_config.site_options().get("feature_model", settings.SHITU_FEATURE_MODEL)
        name = f"index {digest}"  # so that one begun and interrupted goes on
        _manage(
            "import_index", f"--catalogue={name}", "--own", f"--user={user.get_username()}",
            f"--index={directory}", f"--feature-model={feature_model or of_site}",
        )  # fmt: skip
        found = Catalogue.objects.get(owner=user, name=name)
        catalogues.change(found, description=f"imported from the index {directory.name}")
        count = found.images.count()
        receipt = Job.objects.create(
            catalogue=found,
            kind=Job.Kind.IMPORT,
            started_by=user,
            source_name=directory.name,
            options={"index": digest},
            state=State.DONE,
            total=count,
            done=count,
            finished_at=timezone.now(),
        )
        jobs.record_end(receipt)
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
