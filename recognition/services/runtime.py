"""The networks of this worker process. Never called in the web process."""

from __future__ import annotations

from functools import lru_cache

from django.conf import settings

from recognition.engine.runtime import Runtime
from recognition.engine.store import ModelStore


@lru_cache(maxsize=1)
def get_runtime() -> Runtime:
    """The one Runtime of this process, made from the settings; networks load at first use."""
    return Runtime(
        ModelStore(settings.SHITU_MODELS_DIR),
        settings.SHITU_DEVICE,
        threads=settings.SHITU_THREADS or None,
        engine=settings.SHITU_ENGINE,
    )
