"""Who did what to what, when, and from where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from recognition.models.catalogue import Catalogue
from recognition.models.people import User

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser


class Source(models.TextChoices):
    """Where an act came from."""

    API = "api", _("API")
    PAGE = "page", _("page")
    ADMIN = "admin", _("admin")
    COMMAND = "command", _("command")
    WORKER = "worker", _("worker")


class Action(models.TextChoices):
    """What was done."""

    CATALOGUE_CREATE = "catalogue.create", _("made the catalogue")
    CATALOGUE_CHANGE = "catalogue.change", _("changed the catalogue")
    CATALOGUE_REMOVE = "catalogue.remove", _("removed the catalogue")
    PRODUCT_CREATE = "product.create", _("made a product")
    PRODUCT_CHANGE = "product.change", _("changed products")
    PRODUCT_UPSERT = "product.upsert", _("made or changed many products")
    PRODUCT_MERGE = "product.merge", _("merged products")
    PRODUCT_SPLIT = "product.split", _("split a product")
    PRODUCT_MOVE_OUT = "product.move_out", _("moved products to another catalogue")
    PRODUCT_MOVE_IN = "product.move_in", _("moved products here from another catalogue")
    PRODUCT_TRASH = "product.trash", _("put products into the trash")
    PRODUCT_RESTORE = "product.restore", _("restored products")
    PRODUCT_PURGE = "product.purge", _("purged products")
    IMAGE_ADD = "image.add", _("added images")
    IMAGE_CHANGE = "image.change", _("changed an image")
    IMAGE_MOVE = "image.move", _("gave images to another product")
    IMAGE_REMOVE = "image.remove", _("removed images")
    IMAGE_RETRY = "image.retry", _("tried images again")
    IMAGE_REEMBED = "image.reembed", _("had images embedded anew")
    RECOGNITION_REMOVE = "recognition.remove", _("removed a recognition")
    FEEDBACK_GIVE = "feedback.give", _("said what a recognition shows")
    FEEDBACK_WITHDRAW = "feedback.withdraw", _("took back what a recognition shows")
    MEMBER_ADD = "member.add", _("added a member")
    MEMBER_CHANGE = "member.change", _("changed a member's role")
    MEMBER_REMOVE = "member.remove", _("removed a member")
    INVITATION_SEND = "invitation.send", _("invited somebody")
    INVITATION_WITHDRAW = "invitation.withdraw", _("withdrew an invitation")
    INVITATION_ACCEPT = "invitation.accept", _("accepted an invitation")
    ACCOUNT_CREATE = "account.create", _("made an account")
    ACCOUNT_CONNECT = "account.connect", _("connected an account with its provider")
    ACCOUNT_DISCONNECT = "account.disconnect", _("disconnected an account from its provider")
    ACCOUNT_PASSWORD = "account.password", _("chose a new password")
    QUOTA_CHANGE = "quota.change", _("changed a quota")
    TOKEN_CREATE = "token.create", _("made an API token")
    TOKEN_REVOKE = "token.revoke", _("revoked an API token")
    JOB_START = "job.start", _("started a job")
    JOB_CANCEL = "job.cancel", _("cancelled a job")
    JOB_END = "job.end", _("a job ended")
    INDEX_REBUILD = "index.rebuild", _("rebuilt the index")


class AuditQuerySet(models.QuerySet["AuditEntry"]):
    def visible_to(self, user: User | AnonymousUser) -> Self:
        """Those of catalogues that `user` manages."""
        return self.filter(catalogue__in=Catalogue.objects.managed_by(user))


class AuditEntry(models.Model):
    """One act. The database refuses to change or delete it (a trigger, see the migration).

    It outlives everything it speaks about, so nothing it points to is a foreign key in the
    database: read `user_name` and `object_name`, never follow `user` or `catalogue`. An act upon
    many things is one entry with their `count`. `changes` is `{field: [before, after]}`.
    """

    at = models.DateTimeField(_("when"), default=timezone.now, editable=False)
    catalogue = models.ForeignKey(
        Catalogue,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        null=True,
        related_name="audit",
        verbose_name=_("catalogue"),
    )
    user = models.ForeignKey(
        User,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        null=True,
        related_name="+",
        verbose_name=_("user"),
    )
    user_name = models.CharField(_("who"), max_length=150, blank=True, default="")
    source = models.CharField(_("from"), max_length=7, choices=Source)
    token = models.CharField(_("API token"), max_length=120, blank=True, default="")
    request_id = models.CharField(_("request"), max_length=64, blank=True, default="")
    action = models.CharField(_("did"), max_length=30, choices=Action)
    object_type = models.CharField(_("kind"), max_length=30, blank=True, default="")
    object_id = models.CharField(_("id"), max_length=64, blank=True, default="")
    object_name = models.CharField(_("to"), max_length=255, blank=True, default="")
    count = models.PositiveIntegerField(_("how many"), default=1)
    changes = models.JSONField(_("changes"), default=dict, encoder=DjangoJSONEncoder)
    details = models.JSONField(_("details"), default=dict, encoder=DjangoJSONEncoder)

    objects = AuditQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        verbose_name = _("audit entry")
        verbose_name_plural = _("audit log")
        indexes = [
            models.Index(fields=["catalogue", "-id"], name="audit_by_catalogue"),
            models.Index(fields=["object_type", "object_id", "-id"], name="audit_by_object"),
        ]

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M} {self.user_name} {self.action}"
