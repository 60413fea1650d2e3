"""Who stays signed in without a password of this site."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.http import HttpRequest


class ProviderBackend(ModelBackend):
    """Sessions of people whom the provider signed in: Django's permissions, and no passwords."""

    def authenticate(self, request: HttpRequest | None, **_: Any) -> None:  # type: ignore[override]
        """No password is ever right; `services.accounts.sign_in` says who comes in."""
        return None
