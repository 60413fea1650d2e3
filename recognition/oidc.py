"""Sign-in with the site's OpenID Connect provider: who a browser comes back as.

Authlib speaks the protocol: discovery, state, PKCE, the exchange of the code, and all that is to be
checked of an ID token (signature, issuer, audience, age, nonce). Only sites with a provider load
this module.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import structlog
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.base_client import MismatchingStateError
from authlib.integrations.django_client import DjangoOAuth2App, OAuth
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from joserfc.errors import JoseError
from requests import RequestException

from recognition.errors import NotReady, SignInRefused
from recognition.services.accounts import Claims

log = structlog.get_logger(__name__)

_SECONDS = 10  # for one answer of the provider
_LEEWAY = 60  # seconds by which its clock may be off
_HOUR = 3600  # how long its addresses and keys are believed; an unknown key is looked up at once

# Keys that only the provider has. HS256 would be the secret we share, `none` no key at all.
_SIGNATURES = frozenset(
    f"{family}{bits}" for family in ("RS", "PS", "ES") for bits in (256, 384, 512)
) | {"EdDSA"}
_NAMES = ("preferred_username", "name")
_ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")


def begin(request: HttpRequest, back: str) -> HttpResponse:
    """Send the browser to the provider, which sends it to the address `back`.

    Raises NotReady when the provider cannot be asked how.
    """
    client = _client()
    try:
        return client.authorize_redirect(request, back)
    except AuthlibBaseError as error:
        raise _not_ready(error) from error


def finish(request: HttpRequest) -> Claims:
    """Who came back. Raises SignInRefused for an answer that proves nothing, NotReady for none."""
    client = _client()
    try:
        token = client.authorize_access_token(
            request,
            claims_options={
                "iss": {"essential": True, "value": settings.SHITU_OIDC_ISSUER},
                "aud": {"essential": True, "value": settings.SHITU_OIDC_CLIENT_ID},
            },
            leeway=_LEEWAY,
        )
        found = token.get("userinfo")  # the checked claims of the ID token, if there was one
        if found is not None and not found.get("email"):
            found = {**found, **_profile(client, token, found["sub"])}
    except MismatchingStateError as error:
        raise SignInRefused(
            _("This sign-in was not begun in this browser, or it took too long. Begin again."),
            reason="state",
        ) from error
    except RequestException as error:
        raise _not_ready(error) from error
    except (AuthlibBaseError, JoseError, ValueError, TypeError, KeyError) as error:
        log.warning("provider_answer_refused", reason=_short(error))
        raise _refused() from error
    if found is None:
        log.warning("provider_answer_refused", reason="no ID token")
        raise _refused()
    return _claims(found)


def check() -> None:
    """Raises NotReady when the provider's discovery document cannot be had or used."""
    _client()


def _claims(found: Mapping[str, Any]) -> Claims:
    def text(name: str) -> str:
        value = found.get(name)
        return value if isinstance(value, str) else ""

    verified = found.get("email_verified")
    return Claims(
        issuer=settings.SHITU_OIDC_ISSUER,
        subject=text("sub"),
        email=text("email").strip(),
        is_verified=verified is True or verified == "true",  # some send the word
        name=next(filter(None, map(text, _NAMES)), ""),
    )


def _profile(client: DjangoOAuth2App, token: Mapping[str, Any], subject: str) -> dict[str, Any]:
    """What the provider adds where the ID token has no address; it must speak of the same one."""
    if not client.server_metadata.get("userinfo_endpoint"):
        return {}
    profile = dict(client.userinfo(token=token))
    if profile.get("sub") != subject:
        raise ValueError("the user info is of another subject than the ID token")
    return {name: profile.get(name) for name in ("email", "email_verified", *_NAMES)}


def _refused() -> SignInRefused:
    return SignInRefused(
        _("The answer of the sign-in service cannot be trusted, so it was not used. Begin again."),
        reason="answer",
    )


def _not_ready(error: Exception) -> NotReady:
    log.warning("provider_unreachable", reason=_short(error))
    return NotReady(
        _("The sign-in service cannot be reached now, or is not set up rightly. Try again later.")
    )


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]


def _client() -> DjangoOAuth2App:
    return _discovered(
        settings.SHITU_OIDC_ISSUER,
        settings.SHITU_OIDC_CLIENT_ID,
        settings.SHITU_OIDC_CLIENT_SECRET,
        settings.SHITU_OIDC_SCOPES,
        int(time.time()) // _HOUR,
    )


@lru_cache(maxsize=1)
def _discovered(issuer: str, client_id: str, secret: str, scopes: str, hour: int) -> Any:
    """The client of a provider, as its discovery document describes it in this hour."""
    client = OAuth().register(
        "provider",
        client_id=client_id,
        client_secret=secret,
        server_metadata_url=f"{issuer.rstrip('/')}/.well-known/openid-configuration",
        client_kwargs={
            "scope": scopes,
            "code_challenge_method": "S256",
            "default_timeout": _SECONDS,
        },
    )
    try:
        document = client.load_server_metadata()
        _narrow(document, issuer)
    except (RequestException, ValueError, TypeError, KeyError) as error:
        raise _not_ready(error) from error
    if "client_secret_basic" not in document.get(
        "token_endpoint_auth_methods_supported", ["client_secret_basic"]
    ):
        client.client_kwargs["token_endpoint_auth_method"] = "client_secret_post"  # noqa: S105
    return client


def _narrow(document: dict[str, Any], issuer: str) -> None:
    """Leave of a discovery document what is used, once it is found to be sound.

    Raises ValueError naming what is not.
    """
    if document.get("issuer") != issuer:
        raise ValueError(f"SHITU_OIDC_ISSUER must read {document.get('issuer')!r} to the letter")
    secure = urlsplit(issuer).scheme == "https"
    for name in _ENDPOINTS:
        url = document.get(name)
        if not isinstance(url, str) or (secure and urlsplit(url).scheme != "https"):
            raise ValueError(f"the discovery document has no {name} with https://")
    offered = set(document.get("id_token_signing_alg_values_supported") or ["RS256"])
    if not offered & _SIGNATURES:
        raise ValueError(f"ID tokens are signed by {sorted(offered)}, none with a key of its own")
    if secure and urlsplit(document.get("userinfo_endpoint")).scheme != "https":
        document.pop("userinfo_endpoint", None)
    kept = {*_ENDPOINTS, "issuer", "userinfo_endpoint", "token_endpoint_auth_methods_supported"}
    for name in set(document) - kept - {"_loaded_at"}:
        del document[name]
    document["id_token_signing_alg_values_supported"] = sorted(offered & _SIGNATURES)
