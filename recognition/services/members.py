"""Who belongs to a catalogue: added, given another role, removed, invited by e-mail."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from datetime import timedelta
from smtplib import SMTPException

import structlog
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.mail import send_mail
from django.core.validators import validate_email
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from recognition.errors import BadInput, Conflict, NotFound, NotReady
from recognition.models import Action, Catalogue, Invitation, Membership, Role, User
from recognition.services import audit, catalogues, rates

log = structlog.get_logger(__name__)


@transaction.atomic
def add(catalogue: Catalogue, user: User, role: str) -> Membership:
    """Make `user` a member. Raises Conflict when they are one already, BadInput for the role."""
    wanted = _role(role)
    _lock(catalogue)
    membership, created = Membership.objects.get_or_create(
        catalogue=catalogue, user=user, defaults={"role": wanted}
    )
    if not created:
        raise Conflict(
            _("%(user)s is a member already, as %(role)s; change the role instead")
            % {"user": user, "role": membership.get_role_display()},
            field="user",
        )
    audit.record(
        Action.MEMBER_ADD, user, catalogue=catalogue, changes={"role": [None, wanted.value]}
    )
    return membership


def add_named(catalogue: Catalogue, name: str, role: str, *, by: User) -> Membership:
    """Make the user of that name a member, if `by` may know that there is such a user.

    Those are the active members of the catalogues that `by` may see, as they are signed in. For
    everybody else the answer is the same as for a name that nobody has, so that names of other
    teams cannot be tried out; they are invited by e-mail. Raises BadInput naming the field, and as
    `add` does.
    """
    shared = Membership.objects.filter(catalogue__in=Catalogue.objects.visible_to(by))
    known = User.objects.filter(username=name, is_active=True, pk__in=shared.values("user"))
    user = known.first()
    if user is None:
        raise BadInput(
            _("nobody of that name is in any of your catalogues; invite them by e-mail instead"),
            field="user",
        )
    return add(catalogue, user, role)


@transaction.atomic
def change(membership: Membership, role: str) -> Membership:
    """Give a member another role. What a manager who is none any more has invited is withdrawn.

    Raises Conflict for the last manager, BadInput for the role.
    """
    wanted = _role(role)
    before = _locked(membership)
    if before != wanted:
        if before == Role.MANAGER:
            _refuse_last_manager(membership)
        membership.role = wanted
        membership.save(update_fields=["role"])
        audit.record(
            Action.MEMBER_CHANGE,
            membership.user,
            catalogue=membership.catalogue,
            changes={"role": [before, wanted.value]},
        )
        if before == Role.MANAGER:
            _withdraw_all(membership.catalogue, by=membership.user)
    return membership


@transaction.atomic
def remove(membership: Membership) -> None:
    """End a membership; one's own too. What they invited is withdrawn.

    Raises Conflict for the last manager.
    """
    before = _locked(membership)
    if before == Role.MANAGER:
        _refuse_last_manager(membership)
    user, catalogue = membership.user, membership.catalogue
    membership.delete()
    audit.record(Action.MEMBER_REMOVE, user, catalogue=catalogue, changes={"role": [before, None]})
    _withdraw_all(catalogue, by=user)


def _withdraw_all(catalogue: Catalogue, *, by: User) -> None:
    """Who may invite nobody any more must not come back by a link they sent themselves."""
    for invitation in Invitation.objects.filter(
        catalogue=catalogue, invited_by=by, accepted_at__isnull=True
    ):
        invitation.catalogue = catalogue
        withdraw(invitation)


def invite(
    catalogue: Catalogue, email: str, role: str, *, by: User, link: Callable[[str], str]
) -> tuple[Invitation, str]:
    """Ask somebody by e-mail to join; returns the invitation and its text, which is not stored.

    `link` makes the address of the page that accepts the text. The link works once, for
    `SHITU_INVITATION_DAYS`, for the account of that address; inviting an address again ends its
    earlier link, and so does the end of the inviter's being a manager. Whether the address has an
    account here is not told. Raises BadInput naming the field, LimitReached when too many were
    sent, NotReady when the e-mail cannot be sent (then nothing has happened), RoleTooLow or
    NotFound for a manager who is none any more by the time it was.
    """
    wanted = _role(role)
    email = email.strip()
    try:
        validate_email(email)
    except ValidationError as error:
        raise BadInput(
            _("“%(email)s” is no e-mail address") % {"email": email[:200]}, field="email"
        ) from error
    rates.check_invitation(email, by=by)
    text = secrets.token_urlsafe(32)
    # First, and with nothing locked: a mail server may take its time.
    _send(catalogue, email, wanted, by=by, link=link(text))
    with transaction.atomic():
        _lock(catalogue)
        catalogues.require_role(by, catalogue, Role.MANAGER)
        Invitation.objects.filter(
            catalogue=catalogue, email__iexact=email, accepted_at__isnull=True
        ).delete()
        invitation = Invitation.objects.create(
            catalogue=catalogue,
            email=email,
            role=wanted,
            digest=_digest(text),
            invited_by=by,
            expires_at=timezone.now() + timedelta(days=settings.SHITU_INVITATION_DAYS),
        )
        audit.record(
            Action.INVITATION_SEND,
            invitation,
            catalogue=catalogue,
            by=by,
            changes={"role": [None, wanted.value]},
        )
    return invitation, text


def _send(catalogue: Catalogue, email: str, role: Role, *, by: User, link: str) -> None:
    """Mail an invitation. Raises NotReady."""
    subject = _("Invitation to the catalogue %(name)s") % {"name": catalogue.name}
    body = _(
        "%(who)s invites you to the catalogue “%(name)s” as %(role)s.\n\n"
        "Open this link within %(days)d days; it works once:\n%(link)s\n\n"
        "If you did not expect it, do nothing.\n"
    ) % {
        "who": by,
        "name": catalogue.name,
        "role": role.label,
        "days": settings.SHITU_INVITATION_DAYS,
        "link": link,
    }
    try:
        send_mail(" ".join(subject.split()), body, None, [email])
    except (SMTPException, OSError) as error:
        log.warning("invitation_not_sent", reason=str(error))
        raise NotReady(
            _(
                "the e-mail could not be sent, so nobody was invited; the site's staff can see why "
                "in the log"
            )
        ) from error


def look_up(text: str) -> Invitation | None:
    """The invitation whose link holds `text`, open or not; None for one that is unknown or gone."""
    return (
        Invitation.objects.select_related("catalogue", "invited_by")
        .filter(digest=_digest(text))
        .first()
    )


def find_invitation(text: str) -> Invitation:
    """The open invitation whose link holds `text`, to show before it is accepted.

    Raises NotFound for a text that is unknown, used up, withdrawn or expired, or of somebody who
    has no account any more, saying which.
    """
    found = look_up(text)
    if found is None:
        raise NotFound(
            _(
                "there is no such invitation (any more): it was withdrawn, a newer one took its "
                "place, or the link is not whole; ask for a new one"
            )
        )
    if found.accepted_at is not None:
        raise NotFound(_("this invitation was used already; ask for a new one"))
    if found.is_expired:
        raise NotFound(_("this invitation has expired; ask for a new one"))
    if found.is_orphaned:
        raise NotFound(
            _("the account that sent this invitation is closed; ask another manager for a new one")
        )
    return found


def is_for(invitation: Invitation, user: User) -> bool:
    """Whether `user` may accept it: it was sent to their address, or they have none here."""
    return not user.email or same_address(user.email, invitation.email)


def same_address(one: str, other: str) -> bool:
    """Whether two e-mail addresses are one.

    Only A to Z may be in either case: a database takes `ı` for `i` and `K` (Kelvin) for `k` when it
    ignores case, and those are addresses of other people.
    """

    def folded(address: str) -> bytes:
        return address.strip().encode(errors="backslashreplace").lower()

    return folded(one) == folded(other)


@transaction.atomic
def accept(text: str, user: User) -> Membership:
    """Make `user` the member that an invitation asked for; a role is raised, never lowered.

    The account must be that of the address it was sent to, or one without an address. Raises
    NotFound as `find_invitation`, Conflict for an account with another address.
    """
    catalogue = find_invitation(text).catalogue
    _lock(catalogue)
    invitation = find_invitation(text)  # read again, now that nobody else can use it
    if not is_for(invitation, user):
        raise Conflict(
            _(
                "this invitation was sent to another e-mail address than that of your account; "
                "sign in with the account of that address, or ask for an invitation to yours"
            )
        )
    membership, created = Membership.objects.get_or_create(
        catalogue=catalogue, user=user, defaults={"role": invitation.role}
    )
    before = None if created else membership.role
    if not created and Role(membership.role).rank < Role(invitation.role).rank:
        membership.role = invitation.role
        membership.save(update_fields=["role"])
    invitation.accepted_at, invitation.accepted_by = timezone.now(), user
    invitation.save(update_fields=["accepted_at", "accepted_by"])
    audit.record(
        Action.INVITATION_ACCEPT,
        invitation,
        catalogue=catalogue,
        by=user,
        changes={"role": [before, membership.role]},
    )
    return membership


@transaction.atomic
def withdraw(invitation: Invitation) -> None:
    """End an open invitation; its link opens nothing from now on. Raises Conflict when accepted."""
    _lock(invitation.catalogue)
    gone, _models = Invitation.objects.filter(pk=invitation.pk, accepted_at__isnull=True).delete()
    if not gone:
        raise Conflict(_("the invitation was accepted already; remove the member instead"))
    audit.record(Action.INVITATION_WITHDRAW, invitation, catalogue=invitation.catalogue)


def _role(role: str) -> Role:
    if role not in Role.values:
        raise BadInput(
            _("role “%(role)s” is not one of %(roles)s")
            % {"role": role, "roles": ", ".join(Role.values)},
            field="role",
        )
    return Role(role)


def _lock(catalogue: Catalogue) -> None:
    """Changes of the members of one catalogue happen one after the other."""
    Catalogue.objects.select_for_update(no_key=True).get(pk=catalogue.pk)


def _locked(membership: Membership) -> str:
    """Lock, and read again; returns the role. Raises NotFound when it has ended meanwhile."""
    _lock(membership.catalogue)
    try:
        membership.refresh_from_db(fields=["role"])
    except Membership.DoesNotExist as error:
        raise NotFound(_("they are no member any more")) from error
    return str(membership.role)


def _refuse_last_manager(membership: Membership) -> None:
    others = Membership.objects.filter(catalogue=membership.catalogue_id, role=Role.MANAGER)
    if not others.exclude(pk=membership.pk).exists():
        raise Conflict(
            _("%(user)s is the last manager; make somebody else a manager first")
            % {"user": membership.user},
            field="role",
        )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()
