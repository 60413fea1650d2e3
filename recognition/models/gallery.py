"""Reference pictures."""

from __future__ import annotations

import uuid
from pathlib import PurePath

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from recognition.models.catalogue import Catalogue, InCatalogueQuerySet
from recognition.models.product import Product
from recognition.models.work import Work, WorkQuerySet


class BoxSource(models.TextChoices):
    """Who said where the product is in the picture."""

    NONE = "", _("none")
    GIVEN = "given", _("given")
    DETECTED = "detected", _("detected")


class GalleryImageQuerySet(WorkQuerySet, InCatalogueQuerySet):  # type: ignore[override]  # two as_manager
    pass


class LivingImages(models.Manager.from_queryset(GalleryImageQuerySet)):  # type: ignore[misc]
    """Without those of products in the trash, so that nobody can forget to leave them out."""

    def get_queryset(self) -> GalleryImageQuerySet:
        return super().get_queryset().filter(removed_at__isnull=True)


def gallery_path(image: GalleryImage, filename: str) -> str:
    """Random, spread over folders, and never the uploader's name."""
    name = uuid.uuid4().hex
    return f"gallery/{image.catalogue.key}/{name[:2]}/{name}{PurePath(filename).suffix}"


class GalleryImage(Work):
    """One reference picture of one product; its file never changes.

    `number` is the vector id of PaddleX: small, stable, never reused in its catalogue.
    `checksum` is the SHA-256 of the bytes that were sent. `box` is `[x1, y1, x2, y2]` in pixels.
    `external_id` is the caller's own id; adding it again replaces the picture. An image has
    `removed_at` exactly when its product is in the trash; only `everything` shows it then.
    """

    catalogue = models.ForeignKey(
        Catalogue, on_delete=models.CASCADE, related_name="images", verbose_name=_("catalogue")
    )
    product = models.ForeignKey(
        Product, on_delete=models.CASCADE, related_name="images", verbose_name=_("product")
    )
    number = models.BigIntegerField(_("number"), editable=False)
    external_id = models.CharField(
        _("external id"), max_length=255, blank=True, default="", help_text=_("your own stable id")
    )
    file = models.FileField(_("file"), upload_to=gallery_path, max_length=255)
    source_name = models.CharField(_("name of the upload"), max_length=255, blank=True, default="")
    checksum = models.CharField(_("checksum"), max_length=64, editable=False)
    width = models.PositiveIntegerField(_("width"), editable=False)
    height = models.PositiveIntegerField(_("height"), editable=False)
    byte_size = models.PositiveIntegerField(_("bytes"), editable=False)
    box = models.JSONField(_("box"), null=True, blank=True)
    box_source = models.CharField(
        _("origin of the box"),
        max_length=8,
        choices=BoxSource,
        default=BoxSource.NONE,
        blank=True,
        editable=False,
    )
    added_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        related_name="+",
        verbose_name=_("added by"),
    )
    removed_at = models.DateTimeField(_("removed"), null=True, editable=False)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    objects = LivingImages()
    everything = GalleryImageQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        verbose_name = _("gallery image")
        verbose_name_plural = _("gallery images")
        constraints = [
            models.UniqueConstraint(fields=["product", "checksum"], name="image_once_per_product"),
            models.UniqueConstraint(
                fields=["catalogue", "number"], name="image_number_per_catalogue"
            ),
            models.UniqueConstraint(
                fields=["catalogue", "external_id"],
                condition=~Q(external_id=""),
                name="image_external_id_per_catalogue",
            ),
        ]
        indexes = [
            models.Index(
                fields=["catalogue", "id"],
                name="image_unfinished",
                condition=Q(state__in=["pending", "running"]),
            ),
            models.Index(fields=["catalogue", "state"], name="image_by_state"),
            models.Index(fields=["catalogue", "checksum"], name="image_by_checksum"),
        ]

    def __str__(self) -> str:
        return f"#{self.number} {self.source_name}".strip()
