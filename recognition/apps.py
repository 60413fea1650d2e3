"""The one Django app of the platform."""

from __future__ import annotations

from django.apps import AppConfig, apps
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _


class RecognitionConfig(AppConfig):
    name = "recognition"
    verbose_name = _("Product recognition")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from recognition import checks, gallery_list  # noqa: F401  (registers the system checks)

        gallery_list.translate = gettext
        apps.get_app_config("axes").verbose_name = _("Failed sign-ins")  # it calls itself Axes
