"""Who somebody is at the provider that the site trusts to sign people in."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _


class Identity(models.Model):
    """One account at an OpenID Connect provider, which signs one user in.

    A provider may give an e-mail address to somebody else later, but never a subject: this row, not
    the address, says who comes in.
    """

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        related_name="identities",
        verbose_name=_("user"),
    )
    issuer = models.CharField(_("provider"), max_length=255)
    subject = models.CharField(_("subject"), max_length=255)
    created_at = models.DateTimeField(_("connected"), auto_now_add=True)

    class Meta:
        ordering = ["pk"]
        verbose_name = _("identity")
        verbose_name_plural = _("identities")
        constraints = [
            models.UniqueConstraint(fields=["issuer", "subject"], name="identity_once"),
            models.UniqueConstraint(fields=["user", "issuer"], name="identity_one_per_provider"),
        ]

    def __str__(self) -> str:
        return f"{self.subject} · {self.issuer}"
