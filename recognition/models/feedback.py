"""What people say about an answer: that it is right, what it really is, or that it is nothing."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from recognition.models.product import Product
from recognition.models.query import Detection


class Verdict(models.TextChoices):
    """What somebody says about one region."""

    CONFIRMED = "confirmed", _("the first proposal is right")
    CORRECTED = "corrected", _("it is another product")
    UNKNOWN = "unknown", _("it is none of the products")


class Feedback(models.Model):
    """The last word about one region of an answer; the audit log has the earlier ones.

    `product` is what the region shows, None for `unknown`, and once the product was removed for
    good; `label` stays what it was called at that moment.
    """

    detection = models.OneToOneField(
        Detection, on_delete=models.CASCADE, related_name="feedback", verbose_name=_("detection")
    )
    verdict = models.CharField(_("verdict"), max_length=9, choices=Verdict)
    product = models.ForeignKey(
        Product, on_delete=models.SET_NULL, null=True, related_name="+", verbose_name=_("product")
    )
    label = models.CharField(_("label"), max_length=255, blank=True, default="")
    given_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        related_name="+",
        verbose_name=_("given by"),
    )
    given_at = models.DateTimeField(_("given"))

    class Meta:
        verbose_name = _("feedback")
        verbose_name_plural = _("feedback")
        constraints = [
            models.CheckConstraint(
                condition=Q(verdict="unknown", product=None, label="")
                | (~Q(verdict="unknown") & ~Q(label="")),
                name="feedback_names_a_product_or_none",
            )
        ]

    def __str__(self) -> str:
        return f"{self.verdict} {self.label}".strip()
