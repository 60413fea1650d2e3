"""What holds for every model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.apps import apps
from django.db.models import CompositePrimaryKey, Field
from django.utils.functional import Promise


def _fields() -> Iterator[Field]:
    """Every field that somebody may see; neither ids nor the far ends of relations."""
    for model in apps.get_app_config("recognition").get_models():
        for field in model._meta.get_fields():
            made_by_us = field.concrete and not field.auto_created
            if made_by_us and not isinstance(field, CompositePrimaryKey):
                yield field


@pytest.mark.parametrize("field", list(_fields()), ids=str)
def test_a_field_has_a_name_that_can_be_translated(field: Field):
    assert isinstance(field.verbose_name, Promise), f'give {field} a verbose_name, _("...")'
