"""What a team owns, and who may do what with it."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Self

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from recognition.models.counting import counted
from recognition.models.people import User
from recognition.models.work import State

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser

    from recognition.models.vectors import VectorIndex


class Role(models.TextChoices):
    """What a member may do, each including the one before."""

    VIEWER = "viewer", _("viewer")
    OPERATOR = "operator", _("operator")
    EDITOR = "editor", _("editor")
    MANAGER = "manager", _("manager")

    @property
    def rank(self) -> int:
        """Position in the order above, 0 for viewer."""
        return list(Role).index(self)

    @classmethod
    def at_least(cls, role: Role) -> list[Role]:
        """`role` and every higher one."""
        return list(cls)[role.rank :]


class CropPolicy(models.TextChoices):
    """Which part of a gallery picture is embedded."""

    WHOLE = "whole", _("whole picture (as PaddleX)")
    MAIN_BODY = "main_body", _("detected main body")
    BOTH = "both", _("both views")


class ShownLabel(models.TextChoices):
    """What PaddleX clients, who know one name only, are told about a product."""

    LABEL = "label", _("label")
    SKU = "sku", _("SKU")
    EXTERNAL_ID = "external_id", _("external id")


class CatalogueQuerySet(models.QuerySet["Catalogue"]):
    """The one rule of access: every other queryset asks here."""

    def with_role(self, user: User | AnonymousUser, role: Role) -> Self:
        """Catalogues in which `user`, signed in as they are, may act as `role` or higher."""
        if not user.is_authenticated:
            return self.none()
        if user.token is not None and Role(user.token.role).rank < role.rank:
            return self.none()
        return self.granted(role, user.pk, user.limited_to)

    def granted(self, role: Role, user: int, limited_to: str | None) -> Self:
        """Catalogues in which `user` is `role` or higher, of those that a limited token reaches.

        By their keys, so that a `prepared` statement can ask too.
        """
        from recognition.models.token import ApiToken  # which has catalogues

        memberships = Membership.objects.filter(user=user, role__in=Role.at_least(role))
        if limited_to is not None:
            reached = ApiToken.catalogues.through.objects.filter(apitoken=limited_to)
            memberships = memberships.filter(catalogue__in=reached.values("catalogue"))
        return self.filter(pk__in=memberships.values("catalogue_id"))

    def visible_to(self, user: User | AnonymousUser) -> Self:
        return self.with_role(user, Role.VIEWER)

    def editable_by(self, user: User | AnonymousUser) -> Self:
        return self.with_role(user, Role.EDITOR)

    def managed_by(self, user: User | AnonymousUser) -> Self:
        return self.with_role(user, Role.MANAGER)

    def with_counts(self) -> Self:
        """With `product_count`, and of the pictures `image_count`, `waiting_count` and
        `failed_count`."""
        from recognition.models.gallery import GalleryImage  # both of which have a catalogue
        from recognition.models.product import Product

        images = GalleryImage.objects
        return self.annotate(
            product_count=counted(Product.objects, "catalogue"),
            image_count=counted(images, "catalogue"),
            waiting_count=counted(images.filter(state__in=State.unfinished()), "catalogue"),
            failed_count=counted(images.filter(state=State.FAILED), "catalogue"),
        )


_THRESHOLD = [MinValueValidator(0.0), MaxValueValidator(1.0)]


class Catalogue(models.Model):
    """Products, their gallery images, and how they are recognised.

    `key` is the public id (PaddleX `indexKey`). `version` moves with every change that an answer
    could show, in the transaction of that change.
    """

    key = models.UUIDField(_("key"), default=uuid.uuid4, unique=True, editable=False)
    name = models.CharField(_("name"), max_length=120)
    description = models.TextField(_("description"), blank=True, default="")
    owner = models.ForeignKey(
        User, on_delete=models.PROTECT, related_name="owned_catalogues", verbose_name=_("owner")
    )
    members = models.ManyToManyField(
        User, through="Membership", related_name="catalogues", verbose_name=_("members")
    )
    index = models.ForeignKey(
        "recognition.VectorIndex",
        on_delete=models.SET_NULL,
        null=True,
        editable=False,
        related_name="+",
        help_text=_("the search space that answers queries"),
        verbose_name=_("index"),
    )

    detector = models.CharField(
        _("detector"),
        max_length=100,
        blank=True,
        default="",
        help_text=_("name of the detection model; empty: the whole picture is one object"),
    )
    crop_policy = models.CharField(
        _("crop policy"), max_length=10, choices=CropPolicy, default=CropPolicy.WHOLE
    )
    det_threshold = models.FloatField(_("detection threshold"), default=0.5, validators=_THRESHOLD)
    rec_threshold = models.FloatField(
        _("recognition threshold"),
        null=True,
        blank=True,
        help_text=_("in the catalogue's metric; empty: 0.5 (IP, cosine) or 1.0 (L2)"),
    )
    margin = models.FloatField(
        _("margin"),
        default=0.02,
        validators=_THRESHOLD,
        help_text=_("a runner-up product this close in cosine makes the answer ambiguous"),
    )
    top_k = models.PositiveSmallIntegerField(
        _("top-k"), default=5, validators=[MinValueValidator(1), MaxValueValidator(100)]
    )
    max_detections = models.PositiveSmallIntegerField(
        _("most objects per picture"),
        default=50,
        validators=[MinValueValidator(1), MaxValueValidator(300)],
    )
    shown_label = models.CharField(
        _("label for PaddleX clients"),
        max_length=11,
        choices=ShownLabel,
        default=ShownLabel.LABEL,
        help_text=_("where a product has none, its label is shown"),
    )

    version = models.BigIntegerField(_("version"), default=0, editable=False)
    next_number = models.BigIntegerField(_("next number"), default=0, editable=False)
    stored_images = models.BigIntegerField(
        _("stored images"), default=0, editable=False, help_text=_("with those in the trash")
    )
    stored_bytes = models.BigIntegerField(
        _("stored bytes"), default=0, editable=False, help_text=_("with those in the trash")
    )
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    changed_at = models.DateTimeField(_("changed"), auto_now=True)

    objects = CatalogueQuerySet.as_manager()

    class Meta:
        ordering = ["name", "pk"]
        verbose_name = _("catalogue")
        verbose_name_plural = _("catalogues")
        constraints = [
            models.UniqueConstraint(fields=["owner", "name"], name="catalogue_name_per_owner"),
            models.CheckConstraint(
                condition=Q(det_threshold__gte=0, det_threshold__lte=1),
                name="catalogue_det_threshold_range",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def require_index(self) -> VectorIndex:
        """The current search space; services always create one with the catalogue."""
        if self.index is None:
            raise RuntimeError(f"catalogue {self.pk} has no search space")
        return self.index

    def touch(self, *, images: int = 0, byte_size: int = 0) -> int:
        """Move the version, last thing before the transaction commits; returns the new one.

        `images` and `byte_size` are what the change adds to what is stored, less than 0 when it
        takes away. The row lock taken here makes changes of one catalogue commit in version order.
        """
        return self._move(0, images, byte_size)

    def take_numbers(self, count: int, *, byte_size: int = 0) -> range:
        """Reserve vector ids, never given out before, for `count` images that are stored now.

        Moves the version and the counts with them.
        """
        self._move(count, count, byte_size)
        return range(self.next_number - count, self.next_number)

    def _move(self, numbers: int, images: int, byte_size: int) -> int:
        Catalogue.objects.filter(pk=self.pk).update(
            version=F("version") + 1,
            next_number=F("next_number") + numbers,
            stored_images=F("stored_images") + images,
            stored_bytes=F("stored_bytes") + byte_size,
        )
        self.refresh_from_db(fields=["version", "next_number", "stored_images", "stored_bytes"])
        return self.version


class MembershipQuerySet(models.QuerySet["Membership"]):
    def visible_to(self, user: User | AnonymousUser) -> Self:
        return self.filter(catalogue__in=Catalogue.objects.visible_to(user))


class Membership(models.Model):
    """One user's role in one catalogue."""

    user = models.ForeignKey(
        User, on_delete=models.CASCADE, related_name="memberships", verbose_name=_("user")
    )
    catalogue = models.ForeignKey(
        Catalogue, on_delete=models.CASCADE, related_name="memberships", verbose_name=_("catalogue")
    )
    role = models.CharField(_("role"), max_length=10, choices=Role, default=Role.VIEWER)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    objects = MembershipQuerySet.as_manager()

    class Meta:
        verbose_name = _("membership")
        verbose_name_plural = _("memberships")
        constraints = [
            models.UniqueConstraint(fields=["user", "catalogue"], name="membership_once_per_user")
        ]

    def __str__(self) -> str:
        return f"{self.user} · {self.get_role_display()}"


class InCatalogueQuerySet(models.QuerySet[Any]):
    """For rows that belong to a catalogue: they are seen by whom the catalogue is seen by."""

    def visible_to(self, user: User | AnonymousUser) -> Self:
        return self.filter(catalogue__in=Catalogue.objects.visible_to(user))
