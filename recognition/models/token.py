"""API tokens: a user's key with a ceiling."""

from __future__ import annotations

from django.db import models
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy as _
from knox.models import AbstractAuthToken

from recognition.models.catalogue import Catalogue, Role


class ApiToken(AbstractAuthToken):
    """One named token of a user. It never allows more than its user may do himself.

    `role` is the highest role it can act with; `catalogues`, when not empty, the only ones it
    reaches. Only a hash of the token is stored.
    """

    name = models.CharField(_("name"), max_length=100)
    role = models.CharField(_("highest role"), max_length=10, choices=Role, default=Role.MANAGER)
    catalogues = models.ManyToManyField(
        Catalogue,
        blank=True,
        related_name="+",
        verbose_name=_("only these catalogues"),
        help_text=_("empty: all the user's catalogues"),
    )
    last_used_at = models.DateTimeField(_("last used"), null=True, editable=False)

    class Meta:
        ordering = ["-created"]
        verbose_name = _("API token")
        verbose_name_plural = _("API tokens")

    def __str__(self) -> str:
        return f"{self.name} ({self.token_key}…)"

    @cached_property
    def is_limited(self) -> bool:
        """Whether it reaches some catalogues only; signing in asks for it in the same query."""
        return self.catalogues.exists()


# knox's own fields have names in English only.
for _field, _words in {
    "digest": _("hash"),
    "token_key": _("first characters"),
    "user": _("user"),
    "created": _("created"),
    "expiry": _("expires"),
}.items():
    ApiToken._meta.get_field(_field).verbose_name = _words
