"""How much a catalogue, a user or a token may have, where it is not what the settings say."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from recognition.models.catalogue import Catalogue
from recognition.models.token import ApiToken

_HELP = _("empty: as the settings say; 0: unlimited")


class Quota(models.Model):
    """Limits of one catalogue, user or token. Null is the default of the settings, 0 unlimited.

    A user's images and bytes are those of the catalogues the user owns; a token has only queries.
    """

    catalogue = models.OneToOneField(
        Catalogue,
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        related_name="quota",
        verbose_name=_("catalogue"),
    )
    user = models.OneToOneField(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        related_name="quota",
        verbose_name=_("user"),
    )
    token = models.OneToOneField(
        ApiToken,
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        related_name="quota",
        verbose_name=_("API token"),
    )
    images = models.PositiveBigIntegerField(_("images"), null=True, blank=True, help_text=_HELP)
    stored_bytes = models.PositiveBigIntegerField(
        _("stored bytes"), null=True, blank=True, help_text=_HELP
    )
    queries_per_minute = models.PositiveIntegerField(
        _("queries per minute"), null=True, blank=True, help_text=_HELP
    )
    concurrent_jobs = models.PositiveIntegerField(
        _("concurrent jobs"), null=True, blank=True, help_text=_HELP
    )

    class Meta:
        verbose_name = _("quota")
        verbose_name_plural = _("quotas")
        constraints = [
            models.CheckConstraint(
                condition=Q(catalogue__isnull=False, user=None, token=None)
                | Q(catalogue=None, user__isnull=False, token=None)
                | Q(catalogue=None, user=None, token__isnull=False),
                name="quota_of_one_thing",
                violation_error_message=_("choose one of catalogue, user and token"),
            )
        ]

    def __str__(self) -> str:
        return f"{self._meta.verbose_name} · {self.of}"

    @property
    def of(self) -> models.Model | None:
        """Whose it is."""
        return self.catalogue or self.user or self.token
