"""API tokens: made, shown once, revoked."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from django.db import transaction
from django.utils.translation import gettext as _

from recognition.errors import BadInput
from recognition.models import Action, ApiToken, Catalogue, Role, User
from recognition.services import audit

LONGEST_DAYS = 3650


@transaction.atomic
def create(
    user: User,
    name: str,
    *,
    role: str = Role.MANAGER,
    catalogues: Sequence[Catalogue] = (),
    days: int | None = None,
) -> tuple[ApiToken, str]:
    """Make a token of `user`; returns its row and its text, which is stored nowhere.

    `role` is the highest role it acts with, `catalogues` the only ones it reaches (none given: all
    the user's), `days` its life (None: until revoked). Whoever is signed in with a token that
    expires makes none that outlives it. Raises BadInput naming the field.
    """
    name = name.strip()
    if not 1 <= len(name) <= 100:
        raise BadInput(_("the name must have 1 to 100 characters"), field="name")
    if role not in Role.values:
        raise BadInput(
            _("role “%(role)s” is not one of %(roles)s")
            % {"role": role, "roles": ", ".join(Role.values)},
            field="role",
        )
    if days is not None and not 1 <= days <= LONGEST_DAYS:
        raise BadInput(_("days must lie in 1..%(most)s") % {"most": LONGEST_DAYS}, field="days")
    token, text = ApiToken.objects.create(
        user=user, name=name, role=role, expiry=timedelta(days=days) if days else None
    )
    end = user.token.expiry if user.token else None
    if end is not None and (token.expiry is None or token.expiry > end):
        token.expiry = end
        token.save(update_fields=["expiry"])
    token.catalogues.set(catalogues)
    audit.record(Action.TOKEN_CREATE, token, catalogue=None, by=user, role=role)
    return token, text


@transaction.atomic
def revoke(token: ApiToken) -> None:
    """It opens nothing from now on; revoked already, nothing happens."""
    row = ApiToken.objects.select_for_update().filter(pk=token.pk).first()
    if row is not None:
        audit.record(Action.TOKEN_REVOKE, row, catalogue=None, by=row.user)
        row.delete()
