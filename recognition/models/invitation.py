"""Somebody is asked to join a catalogue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from django.conf import settings
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from recognition.models.catalogue import Catalogue, Role
from recognition.models.people import User

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser


class InvitationQuerySet(models.QuerySet["Invitation"]):
    def visible_to(self, user: User | AnonymousUser) -> Self:
        """Those of catalogues that `user` manages."""
        return self.filter(catalogue__in=Catalogue.objects.managed_by(user))

    def open(self) -> Self:
        """Neither accepted nor expired, and by somebody who still has an account."""
        return self.filter(
            accepted_at__isnull=True, expires_at__gt=timezone.now(), invited_by__is_active=True
        )


class Invitation(models.Model):
    """A link in an e-mail that makes a member of the one it was sent to, once.

    Only its hash is stored.
    """

    catalogue = models.ForeignKey(
        Catalogue, on_delete=models.CASCADE, related_name="invitations", verbose_name=_("catalogue")
    )
    email = models.EmailField(_("e-mail"))
    role = models.CharField(_("role"), max_length=10, choices=Role, default=Role.VIEWER)
    digest = models.CharField(_("hash"), max_length=64, unique=True, editable=False)
    invited_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        related_name="+",
        verbose_name=_("invited by"),
    )
    created_at = models.DateTimeField(_("sent"), auto_now_add=True)
    expires_at = models.DateTimeField(_("expires"))
    accepted_at = models.DateTimeField(_("accepted"), null=True, editable=False)
    accepted_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        editable=False,
        related_name="+",
        verbose_name=_("accepted by"),
    )

    objects = InvitationQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        verbose_name = _("invitation")
        verbose_name_plural = _("invitations")
        constraints = [
            models.UniqueConstraint(
                fields=["catalogue", "email"],
                condition=models.Q(accepted_at=None),
                name="invitation_once_per_address",
            )
        ]

    def __str__(self) -> str:
        return f"{self.email} · {self.get_role_display()}"

    @property
    def is_expired(self) -> bool:
        """Whether it came too late; one that was accepted in time is not."""
        return self.accepted_at is None and self.expires_at <= timezone.now()

    @property
    def is_orphaned(self) -> bool:
        """Whether whoever sent it has no account any more, or one that is closed."""
        return self.invited_by is None or not self.invited_by.is_active
