"""Accounts: made for whoever was invited, found or made for whoever a provider vouches for."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

import structlog
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _

from recognition.errors import Conflict, SignInRefused
from recognition.models import Action, Identity, Invitation, Membership, User
from recognition.services import audit, members
from recognition.services.locks import lock_account

log = structlog.get_logger(__name__)

_MOST_NAME = 150 - 6  # of User.username, with room for a number
_MOST_SUBJECT = 255
_MOST_ADDRESS = 254


@dataclass(frozen=True, slots=True)
class Claims:
    """What a provider says of somebody, its signature, issuer, audience and age already checked.

    `is_verified`: the provider made sure that the address is theirs. `name` is what they are called
    there; it proves nothing.
    """

    issuer: str
    subject: str
    email: str = ""
    is_verified: bool = False
    name: str = ""


@transaction.atomic
def sign_in(claims: Claims) -> User:
    """The user whom the provider vouches for.

    Whoever was here before is known by the subject. Somebody new is known by the e-mail address,
    which the provider must have verified: then it is connected with the one account that has it, or
    a new one is made, if `SHITU_OIDC_CREATE_USERS` says so or the address is invited. Staff are
    never found by an address, only by a subject they connected themselves; what an account may do
    is nothing a provider decides. Raises SignInRefused.
    """
    _one_at_a_time(claims)
    known = _known(claims)
    if known is not None:
        _refuse_inactive(known)
        return known
    user = _with_address(claims)
    _connect(user, claims)
    return user


@transaction.atomic
def connect(user: User, claims: Claims) -> None:
    """Let the provider sign `user` in, who asked for it while signed in; twice is as good as once.

    Raises SignInRefused when it signs somebody else in, or `user` has another identity there.
    """
    _one_at_a_time(claims)
    owner = _known(claims)
    if owner is None:
        _connect(user, claims)
    elif owner != user:
        raise SignInRefused(
            _("This identity is connected with another account here."), reason="taken"
        )


@transaction.atomic
def disconnect(identity: Identity) -> None:
    """The provider signs its user in no longer."""
    gone, _models = Identity.objects.filter(pk=identity.pk).delete()
    if gone:  # else somebody was faster
        audit.record(
            Action.ACCOUNT_DISCONNECT, identity.user, catalogue=None, issuer=identity.issuer
        )


@transaction.atomic
def join(text: str, name: str, password: str) -> Membership:
    """Make an account for the address that the invitation `text` was sent to, and accept it.

    Where `name` is taken a number is added to it, without a word about whose it is: each try costs
    an invitation, so nobody finds out who has an account. Raises NotFound as
    `members.find_invitation`, Conflict when the address has an account.
    """
    email = members.find_invitation(text).email
    lock_account(email)
    members.find_invitation(text)  # again: a second click waited for the first
    if User.objects.filter(email__iexact=email).exists():
        raise Conflict(_("this address has an account; sign in with it"), field="email")
    return members.accept(text, _create(name, email, password))


def note_new_password(user: User) -> None:
    """Write down that `user` has a new password, in the transaction that sets it."""
    audit.record(Action.ACCOUNT_PASSWORD, user, catalogue=None, by=user)


def _known(claims: Claims) -> User | None:
    found = Identity.objects.select_related("user").filter(
        issuer=claims.issuer, subject=claims.subject
    )
    identity = found.first()
    return identity.user if identity else None


def _with_address(claims: Claims) -> User:
    """The account of somebody whose subject is new: the one of their address, or a new one."""
    if not claims.is_verified or not _is_address(claims.email):
        raise SignInRefused(
            _(
                "The sign-in service has not verified your e-mail address, so it does not tell "
                "which account is yours. Verify the address there, or sign in with your password "
                "and connect your account on its page."
            )
            if settings.SHITU_PASSWORD_LOGIN
            else _(
                "The sign-in service has not verified your e-mail address, so it does not tell "
                "which account is yours. Verify the address there, then sign in again."
            ),
            reason="not_verified",
        )
    lock_account(claims.email)
    rows = User.objects.filter(email__iexact=claims.email)
    same = [user for user in rows if members.same_address(user.email, claims.email)]
    if not same:
        return _invited_or_welcome(claims)
    if len(same) > 1:
        raise SignInRefused(
            _("Several accounts here have your e-mail address. Ask the site's staff."),
            reason="ambiguous",
        )
    [user] = same
    if user.is_staff or user.is_superuser:
        raise SignInRefused(
            _(
                "Your account is one of the site's staff, which is not connected by its e-mail "
                "address. Sign in with your password and connect it on its page."
            )
            if settings.SHITU_PASSWORD_LOGIN
            else _(
                "Your account is one of the site's staff, which is not connected by its e-mail "
                "address, and nobody signs in with a password here. Ask whoever runs the site to "
                "allow that until you have connected it on its page."
            ),
            reason="staff",
        )
    _refuse_inactive(user)
    return user


def _invited_or_welcome(claims: Claims) -> User:
    """A new account for a verified address that has none."""
    invited = Invitation.objects.open().filter(email__iexact=claims.email)
    if not settings.SHITU_OIDC_CREATE_USERS and not any(
        members.same_address(invitation.email, claims.email) for invitation in invited
    ):
        raise SignInRefused(
            _(
                "There is no account for you here yet. Ask the manager of a catalogue to invite "
                "your e-mail address."
            ),
            reason="unknown",
        )
    return _create(claims.name or claims.email.partition("@")[0], claims.email, None)


def _connect(user: User, claims: Claims) -> None:
    User.objects.select_for_update(no_key=True).get(pk=user.pk)
    if user.identities.filter(issuer=claims.issuer).exists():
        raise SignInRefused(
            _(
                "Your account is connected with another identity of the sign-in service already. "
                "Ask the site's staff."
            ),
            reason="connected",
        )
    Identity.objects.create(user=user, issuer=claims.issuer, subject=claims.subject)
    audit.record(Action.ACCOUNT_CONNECT, user, catalogue=None, by=user, issuer=claims.issuer)


def _refuse_inactive(user: User) -> None:
    if not user.is_active:
        raise SignInRefused(
            _("Your account here is switched off. Ask the site's staff."), reason="inactive"
        )


def _create(wish: str, email: str, password: str | None) -> User:
    """A new account named `wish`, or nearly so; with None for a password none will do.

    A number that is added does not tell how many others have the name.
    """
    stem = re.sub(r"[^\w.@+-]+", "-", User.normalize_username(wish)).strip("-")[:_MOST_NAME]
    name = stem = stem or "user"
    while True:
        if not User.objects.filter(username__iexact=name).exists():
            try:
                with transaction.atomic():
                    user = User.objects.create_user(name, email, password)
            except IntegrityError:  # somebody took it this moment
                log.info("user_name_taken")
            else:
                audit.record(Action.ACCOUNT_CREATE, user, catalogue=None, by=user)
                return user
        name = f"{stem}{secrets.randbelow(900_000) + 100_000}"


def _is_address(text: str) -> bool:
    try:
        validate_email(text)
    except ValidationError:
        return False
    return len(text) <= _MOST_ADDRESS


def _one_at_a_time(claims: Claims) -> None:
    """Two windows of one person wait for each other. Raises SignInRefused for no subject at all."""
    if not 0 < len(claims.subject) <= _MOST_SUBJECT or not claims.subject.isprintable():
        raise SignInRefused(_("The sign-in service did not say who you are."), reason="bad_subject")
    lock_account(f"{claims.subject} {claims.issuer}")
