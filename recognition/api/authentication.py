"""Who asks: an API token (knox's, one row found by its hash) or a session."""

from __future__ import annotations

from datetime import timedelta

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from drf_spectacular.contrib.knox_auth_token import KnoxTokenScheme
from knox.auth import TokenAuthentication as KnoxTokenAuthentication
from knox.crypto import hash_token
from rest_framework.exceptions import AuthenticationFailed

from recognition.models import ApiToken, User
from recognition.models.prepared import prepared

_NOTE_EVERY = timedelta(minutes=1)


class TokenAuthentication(KnoxTokenAuthentication):
    """`Authorization: Bearer <token>`. The user who comes back carries the token, its ceiling.

    Knox looks tokens up by their first characters and deletes expired ones as it passes by; here
    the hash is the key, so it is one query, and expired tokens stay for their owner to see.
    """

    def authenticate_credentials(self, token: bytes) -> tuple[User, ApiToken]:
        """Raises AuthenticationFailed for an unknown or expired token and an inactive user."""
        try:
            digest = hash_token(token.decode("ascii"))
        except UnicodeDecodeError as error:
            raise AuthenticationFailed(_("Invalid token.")) from error
        found = next(iter(_tokens(digest)), None)
        if found is None:
            raise AuthenticationFailed(_("Invalid token."))
        now = timezone.now()
        if found.expiry is not None and found.expiry <= now:
            raise AuthenticationFailed(
                _("The token expired at %(when)s; make a new one.")
                % {"when": found.expiry.isoformat(timespec="seconds")}
            )
        user, _token = self.validate_user(found)
        if found.last_used_at is None or found.last_used_at < now - _NOTE_EVERY:
            # Asked again in the row, so that a burst of requests writes it once.
            ApiToken.objects.filter(
                Q(last_used_at=None) | Q(last_used_at__lt=now - _NOTE_EVERY), pk=found.pk
            ).update(last_used_at=now)
        user.token = found
        return user, found


@prepared
def _tokens(digest: str) -> QuerySet[ApiToken]:
    limits = ApiToken.catalogues.through.objects.filter(apitoken=OuterRef("pk"))
    tokens = ApiToken.objects.select_related("user").annotate(is_limited=Exists(limits))
    return tokens.filter(digest=digest)


class TokenScheme(KnoxTokenScheme):
    """What OpenAPI says about it."""

    target_class = "recognition.api.authentication.TokenAuthentication"
    name = "token"
