"""The thing to be named."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from recognition.models.catalogue import Catalogue, InCatalogueQuerySet


class Product(models.Model):
    """One product of one catalogue; `label` is its name in answers and unique in the catalogue."""

    catalogue = models.ForeignKey(Catalogue, on_delete=models.CASCADE, related_name="products")
    label = models.CharField(_("label"), max_length=255)
    category = models.CharField(
        _("category"),
        max_length=255,
        blank=True,
        default="",
        help_text=_("path such as drinks/tea"),
    )
    attributes = models.JSONField(_("attributes"), default=dict, blank=True)
    is_active = models.BooleanField(
        _("active"), default=True, help_text=_("inactive products are never an answer")
    )
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    changed_at = models.DateTimeField(_("changed"), auto_now=True)

    objects = InCatalogueQuerySet.as_manager()

    class Meta:
        ordering = ["label", "pk"]
        verbose_name = _("product")
        verbose_name_plural = _("products")
        constraints = [
            models.UniqueConstraint(
                fields=["catalogue", "label"], name="product_label_per_catalogue"
            )
        ]
        indexes = [models.Index(fields=["catalogue", "category"], name="product_by_category")]

    def __str__(self) -> str:
        return self.label
