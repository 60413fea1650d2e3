"""Everything a site needs before its first question."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from recognition.errors import RecognitionError
from recognition.services import setup


class Command(BaseCommand):
    help = "Make the tables, the starter models and the static files; does nothing twice."
    requires_system_checks: list[str] = []  # it is what makes the checks pass

    def handle(self, **options: Any) -> None:
        try:
            setup.set_up(self.stdout.write)
        except RecognitionError as error:
            raise CommandError(error.message) from error
