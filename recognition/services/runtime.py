"""The networks of this worker process. Never called in the web process."""

from __future__ import annotations

from functools import lru_cache

from django.conf import settings

from recognition.engine import loading
from recognition.engine.engines import AUTO
from recognition.engine.runtime import Runtime, usable_cores
from recognition.engine.store import ModelStore
from recognition.services import tuning


@lru_cache(maxsize=1)
def get_runtime() -> Runtime:
    """The one Runtime of this process, made from the settings; networks load at first use.

    With `SHITU_ENGINE=auto` what `manage.py tune` measured decides, where it was run.
    """
    tuned = tuning.Choice()
    if settings.SHITU_ENGINE == AUTO:
        tuned = tuning.kept_choice(settings.SHITU_DEVICE, usable_cores())
    return Runtime(
        ModelStore(settings.SHITU_MODELS_DIR),
        settings.SHITU_DEVICE,
        threads=settings.SHITU_THREADS or tuned.threads,
        engine=settings.SHITU_ENGINE,
        options=settings.SHITU_ENGINE_OPTIONS,
        load_detector=tuned.loader(loading.load_detector),
        load_embedder=tuned.loader(loading.load_embedder),
    )
