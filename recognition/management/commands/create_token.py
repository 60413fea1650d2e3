"""An API token for a user, printed once."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from recognition.errors import RecognitionError
from recognition.models import Role, User
from recognition.services import catalogues, tokens


class Command(BaseCommand):
    help = "Make an API token and print it; it is stored as a hash and cannot be shown again."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("user")
        parser.add_argument("--name", required=True, help="what it is for")
        parser.add_argument("--role", default=Role.MANAGER, choices=Role.values)
        parser.add_argument(
            "--catalogue", action="append", default=[], help="key or name; may be repeated"
        )
        parser.add_argument("--days", type=int, help="its life; without it, until revoked")

    def handle(
        self,
        *,
        user: str,
        name: str,
        role: str,
        catalogue: list[str],
        days: int | None,
        **options: Any,
    ) -> None:
        owner = User.objects.filter(username=user).first()
        if owner is None:
            raise CommandError(f"there is no user “{user}”")
        try:
            reached = [catalogues.find(text, user=owner) for text in catalogue]
            _, text = tokens.create(owner, name, role=role, catalogues=reached, days=days)
        except RecognitionError as error:
            raise CommandError(error.message) from error
        self.stdout.write(text)
