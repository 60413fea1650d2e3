"""What a site needs before its first question, each step free when it is done already."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from django.conf import settings
from django.core.management import call_command

from recognition.engine.starter import build_starter
from recognition.engine.store import ModelStore
from recognition.errors import ModelUnavailable
from recognition.models import FeatureModel, User
from recognition.services import feature_models

ADMIN = "admin"


def set_up(say: Callable[[str], object]) -> None:
    """Tables, starter models, feature model rows, static files."""
    call_command("migrate", verbosity=0, interactive=False)
    prepare_models(say)
    call_command("collectstatic", verbosity=0, interactive=False)


def prepare_models(say: Callable[[str], object]) -> list[FeatureModel]:
    """Build the starter models if the settings name them; say what is used and what it is.

    Raises ModelUnavailable when another model that the settings name is not installed.
    """
    store = ModelStore(settings.SHITU_MODELS_DIR)
    wanted = [name for name in (settings.SHITU_DETECTOR, settings.SHITU_FEATURE_MODEL) if name]
    for name in wanted:
        try:
            store.get(name)
        except ModelUnavailable:
            if not feature_models.is_starter(name):
                raise
            say("building the starter models (once)")
            build_starter(store)
    rows = feature_models.sync()
    for name in wanted:
        say(f"model {name}: weights {store.get(name).digest[:12]}")
    if any(map(feature_models.is_starter, wanted)):
        say(
            "these are the starter models: a small stand-in that needs no download. For the "
            "official ones: `./manage.py models fetch PP-ShiTuV2_rec` (and _det), then set "
            "SHITU_FEATURE_MODEL and SHITU_DETECTOR"
        )
    return rows


def ensure_admin(*, with_password: bool = True) -> tuple[User, str | None]:
    """A superuser, and the password that was made for it now, None if none was.

    Without any superuser `admin` is made. It gets its password, shown once, when it is first needed
    (`with_password`): the demo signs nobody in.
    """
    admin = User.objects.filter(is_superuser=True, is_active=True).order_by("pk").first()
    if admin is None:
        admin = User.objects.create_superuser(ADMIN)
    ours = admin.username == ADMIN and admin.last_login is None
    if not with_password or admin.has_usable_password() or not ours:
        return admin, None
    password = secrets.token_urlsafe(12)
    admin.set_password(password)
    admin.save(update_fields=["password"])
    return admin, password
