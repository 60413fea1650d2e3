"""What somebody asked, and the answer they got."""

from __future__ import annotations

import uuid
from pathlib import PurePath
from typing import TYPE_CHECKING, Self

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from recognition.models.catalogue import Catalogue, InCatalogueQuerySet
from recognition.models.gallery import GalleryImage
from recognition.models.product import Product
from recognition.models.vectors import FeatureModel
from recognition.models.work import Work, WorkQuerySet

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser

    from recognition.models.people import User


class RecognitionQueryQuerySet(WorkQuerySet, InCatalogueQuerySet):  # type: ignore[override]  # two as_manager
    def visible_to(self, user: User | AnonymousUser) -> Self:
        """An answer shows products of every catalogue that it was searched in."""
        seen = Catalogue.objects.visible_to(user).values("pk")
        hidden = Catalogue.objects.exclude(pk__in=seen)
        return self.filter(catalogue__in=seen).exclude(also__in=hidden)


def query_path(query: RecognitionQuery, filename: str) -> str:
    """Unguessable, and spread over folders by day-independent random key."""
    return f"queries/{query.key.hex[:2]}/{query.key}{PurePath(filename).suffix}"


class RecognitionQuery(Work):
    """A picture somebody asked about, the options they gave, and what answered.

    Options left null mean the catalogue's own settings. `timings` holds milliseconds by stage.
    """

    key = models.UUIDField(_("key"), default=uuid.uuid4, unique=True, editable=False)
    catalogue = models.ForeignKey(
        Catalogue, on_delete=models.CASCADE, related_name="queries", verbose_name=_("catalogue")
    )
    asked_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        related_name="+",
        verbose_name=_("asked by"),
    )
    file = models.FileField(_("file"), upload_to=query_path, max_length=255)
    source_name = models.CharField(_("name of the upload"), max_length=255, blank=True, default="")
    width = models.PositiveIntegerField(_("width"), editable=False)
    height = models.PositiveIntegerField(_("height"), editable=False)

    det_threshold = models.FloatField(_("detection threshold"), null=True, blank=True)
    rec_threshold = models.FloatField(_("recognition threshold"), null=True, blank=True)
    top_k = models.PositiveSmallIntegerField(_("top-k"), null=True, blank=True)
    per_product = models.BooleanField(
        _("one entry per product"),
        default=True,
        help_text=_("one entry per product; off: PaddleX's raw list of images"),
    )
    boxes = models.JSONField(
        _("boxes"),
        null=True,
        blank=True,
        help_text=_("boxes given by the caller; detection is skipped"),
    )
    among = models.JSONField(
        _("narrowed to"),
        null=True,
        blank=True,
        help_text=_("categories, attributes and products that may be an answer; empty: all"),
    )
    also = models.ManyToManyField(
        Catalogue,
        blank=True,
        related_name="+",
        help_text=_("other catalogues searched with this one; `among` is not null then"),
        verbose_name=_("further catalogues"),
    )

    catalogue_version = models.BigIntegerField(
        _("version of the catalogue"), null=True, editable=False
    )
    feature_model = models.ForeignKey(
        FeatureModel,
        on_delete=models.SET_NULL,
        null=True,
        editable=False,
        related_name="+",
        verbose_name=_("feature model"),
    )
    answered_with = models.JSONField(
        _("answered with"),
        default=dict,
        editable=False,
        help_text=_("models, weights hashes, engine, device, plan"),
    )
    timings = models.JSONField(_("timings"), default=dict, editable=False)
    created_at = models.DateTimeField(_("asked"), auto_now_add=True)
    answered_at = models.DateTimeField(_("answered"), null=True, editable=False)

    objects = RecognitionQueryQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        verbose_name = _("recognition")
        verbose_name_plural = _("recognitions")
        indexes = [
            models.Index(
                fields=["id"],
                name="query_unfinished",
                condition=Q(state__in=["pending", "running"]),
            ),
            models.Index(fields=["catalogue", "-id"], name="query_by_catalogue"),
        ]

    def __str__(self) -> str:
        return str(self.key)


class Status(models.TextChoices):
    """What became of one detected region."""

    MATCH = "match", _("match")
    AMBIGUOUS = "ambiguous", _("ambiguous")
    UNKNOWN = "unknown", _("unknown")


class Detection(models.Model):
    """One region of the picture. `det_score` is 0 when nothing was detected and it is all of it."""

    query = models.ForeignKey(
        RecognitionQuery,
        on_delete=models.CASCADE,
        related_name="detections",
        verbose_name=_("recognition"),
    )
    position = models.PositiveSmallIntegerField(_("position"))
    x1 = models.FloatField(_("left"))
    y1 = models.FloatField(_("top"))
    x2 = models.FloatField(_("right"))
    y2 = models.FloatField(_("bottom"))
    det_score = models.FloatField(_("detection score"))
    status = models.CharField(_("status"), max_length=9, choices=Status)

    class Meta:
        ordering = ["query", "position"]
        verbose_name = _("detection")
        verbose_name_plural = _("detections")
        constraints = [
            models.UniqueConstraint(fields=["query", "position"], name="detection_position")
        ]

    def __str__(self) -> str:
        return f"{self.position}: {self.status}"

    @property
    def coordinate(self) -> list[float]:
        """`[x1, y1, x2, y2]` in pixels of the picture, right side up."""
        return [self.x1, self.y1, self.x2, self.y2]


class Match(models.Model):
    """A product recognised in a detection. `label` is what it was called at that moment."""

    detection = models.ForeignKey(
        Detection, on_delete=models.CASCADE, related_name="matches", verbose_name=_("detection")
    )
    rank = models.PositiveSmallIntegerField(_("rank"))
    product = models.ForeignKey(
        Product, on_delete=models.SET_NULL, null=True, related_name="+", verbose_name=_("product")
    )
    image = models.ForeignKey(
        GalleryImage,
        on_delete=models.SET_NULL,
        null=True,
        related_name="+",
        verbose_name=_("gallery image"),
    )
    label = models.CharField(_("label"), max_length=255)
    score = models.FloatField(_("score"), help_text=_("in the catalogue's metric"))

    class Meta:
        ordering = ["detection", "rank"]
        verbose_name = _("match")
        verbose_name_plural = _("matches")
        constraints = [models.UniqueConstraint(fields=["detection", "rank"], name="match_rank")]

    def __str__(self) -> str:
        return f"{self.label} {self.score:.3f}"
