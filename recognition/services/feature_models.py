"""Which networks this site has, as rows."""

from __future__ import annotations

from django.conf import settings
from django.utils.translation import gettext as _

from recognition.engine.registry import INT8_SUFFIX, MODELS
from recognition.engine.store import ModelStore
from recognition.errors import ModelUnavailable
from recognition.models import FeatureModel


def sync() -> list[FeatureModel]:
    """Make the rows say what the models directory holds; returns the installed feature models.

    Rows are never removed: vectors point to them. Weights that changed under a name make a new row.
    """
    found = []
    for model in ModelStore(settings.SHITU_MODELS_DIR).installed():
        if model.dimension is not None:  # an embedder
            row, _ = FeatureModel.objects.update_or_create(
                name=model.name,
                digest=model.digest,
                defaults={
                    "dimension": model.dimension,
                    "preprocessing": model.preprocessing,
                    "installed": True,
                },
            )
            found.append(row)
    FeatureModel.objects.exclude(pk__in=[row.pk for row in found]).update(installed=False)
    return found


def is_starter(name: str) -> bool:
    """Whether that is one of the small stand-in models made at set-up, or its int8 twin."""
    name = name.removesuffix(INT8_SUFFIX)
    return name in MODELS and MODELS[name].source == "starter"


def installed(name: str) -> FeatureModel:
    """The feature model of that name whose weights are installed now.

    Raises ModelUnavailable, naming the remedies, when there is none.
    """
    row = FeatureModel.objects.filter(name=name, installed=True).order_by("-created_at").first()
    if row is None:
        # The store's own error names the ways to get it; a model put there by hand is found too.
        ModelStore(settings.SHITU_MODELS_DIR).get(name)
        sync()
        row = FeatureModel.objects.filter(name=name, installed=True).first()
    if row is None:
        raise ModelUnavailable(
            _("%(name)s is not a feature model; `manage.py models list` shows which are installed")
            % {"name": name},
            field="feature_model",
        )
    return row


def require_detector(name: str) -> None:
    """Check that a detector of that name is installed; empty means no detection.

    Raises ModelUnavailable otherwise.
    """
    if not name:
        return
    model = ModelStore(settings.SHITU_MODELS_DIR).get(name)
    if model.role != "detector":
        raise ModelUnavailable(
            _(
                "%(name)s is not a detection model; `manage.py models list` shows which are "
                "installed"
            )
            % {"name": name},
            field="detector",
        )
