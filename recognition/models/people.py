"""Who uses the platform."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib.auth.models import AbstractUser

if TYPE_CHECKING:
    from recognition.models.token import ApiToken


class User(AbstractUser):  # type: ignore[django-manager-missing]  # knox's
    """A person or a machine account.

    `token` is what this user signed in with for the request at hand, None for a session or a
    command; the access rule in `CatalogueQuerySet` never grants more than the token does.
    """

    token: ApiToken | None = None

    @property
    def limited_to(self) -> str | None:
        """The key of the token, where that reaches some catalogues only."""
        return self.token.pk if self.token is not None and self.token.is_limited else None
