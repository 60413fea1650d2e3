"""Sign-in with an OpenID Connect provider, over the real redirects and signatures."""

from __future__ import annotations

import base64
import json
import logging
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from django.contrib.auth import authenticate, get_user
from django.core import mail
from django.test import Client, RequestFactory
from django.urls import reverse
from joserfc import jwt
from joserfc.jwk import OctKey

from recognition.models import Action, AuditEntry, Identity, User
from recognition.services import members
from tests import factories
from tests.web.provider import CLIENT_ID, CLIENT_SECRET, Provider

pytestmark = pytest.mark.django_db

ANN = {"sub": "ann-17", "email": "ann@example.org", "email_verified": True}


@pytest.fixture
def provider(settings):
    made = Provider()
    made.person = dict(ANN)
    settings.SHITU_OIDC_ISSUER = made.issuer
    settings.SHITU_OIDC_CLIENT_ID = CLIENT_ID
    settings.SHITU_OIDC_CLIENT_SECRET = CLIENT_SECRET
    settings.SHITU_OIDC_NAME = "Example"
    yield made
    made.stop()


@pytest.fixture
def no_passwords(settings):
    settings.SHITU_PASSWORD_LOGIN = False
    settings.AUTHENTICATION_BACKENDS = [
        name for name in settings.AUTHENTICATION_BACKENDS if "ModelBackend" not in name
    ]


def leave(client: Client, **form: str) -> str:
    """Press the button; the address at the provider."""
    answer = client.post(reverse("provider-begin"), form)
    assert answer.status_code == 302, answer.content
    return answer["Location"]


def come_back(client: Client, address: str):
    """What the browser gets here once the provider sent it back."""
    back = httpx.get(address).headers["Location"]
    assert back.startswith("http://testserver" + reverse("provider-back"))
    return client.get(back.removeprefix("http://testserver"))


def sign_in(client: Client, **form: str):
    return come_back(client, leave(client, **form))


def assert_refused(client: Client, answer, words: str, status: int = 403) -> None:
    page = answer.content.decode()
    assert answer.status_code == status, page
    assert 'role="alert"' in page and words in page
    assert not get_user(client).is_authenticated


# --- Who comes in ---------------------------------------------------------------------------------


def test_the_button_is_beside_the_password(client, provider):
    page = client.get(reverse("login")).content.decode()
    assert "Sign in with Example" in page and 'name="password"' in page


def test_a_verified_address_opens_its_account_and_leads_where_one_wanted(client, provider):
    ann = factories.user("ann", email="Ann@Example.org")
    answer = sign_in(client, next="/account/")
    assert answer["Location"] == "/account/"
    assert get_user(client) == ann
    assert ann.identities.get().subject == "ann-17"
    assert AuditEntry.objects.get(action=Action.ACCOUNT_CONNECT).user == ann


def test_from_then_on_the_subject_counts_not_the_address(client, provider):
    ann = factories.user("ann", email="ann@example.org")
    sign_in(client)
    provider.person = {"sub": "ann-17", "email": "married@example.org"}
    other = Client()
    sign_in(other)
    assert get_user(other) == ann
    # and the address, given to somebody else there, does not open it
    provider.person = ANN | {"sub": "another-ann"}
    third = Client()
    assert_refused(third, sign_in(third), "connected with another identity")


def test_an_address_that_only_the_user_info_has(client, provider):
    ann = factories.user("ann", email="ann@example.org")
    provider.person, provider.profile = {"sub": "ann-17"}, {**ANN}
    sign_in(client)
    assert get_user(client) == ann


def test_state_nonce_and_pkce_are_sent_and_new_each_time(client, provider):
    for _ in range(2):
        sign_in(Client())
    first, second = provider.asked
    assert first["code_challenge_method"] == "S256"
    assert first["scope"].split() == ["openid", "email", "profile"]
    for name in ("state", "nonce", "code_challenge"):
        assert len(first[name]) >= 20 and first[name] != second[name]


def test_a_client_that_must_send_its_secret_in_the_form(client, provider):
    provider.discovery = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    asked = {}

    def note(form, authorization):
        asked.update(form, authorization=authorization)
        return 401, {"error": "invalid_client"}

    provider.token = note
    assert_refused(client, sign_in(client), "cannot be trusted")
    assert asked["client_secret"] == CLIENT_SECRET and not asked["authorization"]


def test_it_never_leads_elsewhere(client, provider):
    factories.user("ann", email="ann@example.org")
    assert sign_in(client, next="https://evil.example/")["Location"] == reverse("home")


# --- New accounts ---------------------------------------------------------------------------------


def test_strangers_are_sent_to_a_manager(client, provider):
    assert_refused(client, sign_in(client), "Ask the manager of a catalogue to invite")
    assert not User.objects.exists()


def test_or_get_an_account_without_any_right_where_the_site_says_so(client, provider, settings):
    settings.SHITU_OIDC_CREATE_USERS = True
    provider.person |= {
        "preferred_username": "Ann Ōe",
        "is_staff": True,
        "is_superuser": True,
        "groups": ["admin"],
        "roles": ["superuser"],
    }
    sign_in(client)
    made = get_user(client)
    assert (made.username, made.email) == ("Ann-Ōe", "ann@example.org")
    assert not (made.is_staff or made.is_superuser or made.has_usable_password())
    assert not made.groups.exists()
    assert AuditEntry.objects.filter(action=Action.ACCOUNT_CREATE, object_id=made.pk).exists()


def test_a_name_that_is_taken_stays_its_owners(client, provider, settings):
    settings.SHITU_OIDC_CREATE_USERS = True
    owner = factories.user("ann", email="elsewhere@example.org")
    sign_in(client)
    assert get_user(client) != owner
    assert get_user(client).username.startswith("ann")


def test_the_invited_get_an_account_and_come_back_to_their_invitation(client, provider, catalogue):
    catalogue.owner.email = "boss@example.org"
    _, text = members.invite(catalogue, ANN["email"], "editor", by=catalogue.owner, link=str)
    page = reverse("invitation", args=[text])
    assert "Sign in with Example" in client.get(page).content.decode()
    assert sign_in(client, next=page)["Location"] == page
    assert client.post(page)["Location"] == reverse("recognise", args=[catalogue.key])
    assert get_user(client).memberships.get().role == "editor"


# --- Who does not ---------------------------------------------------------------------------------


@pytest.mark.parametrize("verified", [False, "false", None, 1, "yes"])
def test_an_address_that_is_not_verified_opens_nothing(client, provider, settings, verified):
    settings.SHITU_OIDC_CREATE_USERS = True
    victim = factories.user("ann", email="ann@example.org")
    provider.person["email_verified"] = verified
    assert_refused(client, sign_in(client), "has not verified your e-mail address")
    assert not victim.identities.exists()
    assert User.objects.count() == 1


def test_the_verification_of_one_address_does_not_count_for_another(client, provider):
    factories.user("ann", email="ann@example.org")
    provider.person = {"sub": "eve", "email_verified": True}
    provider.profile = {"email": "ann@example.org"}
    assert_refused(client, sign_in(client), "has not verified")


@pytest.mark.parametrize("domain", ["example.org", "\u212ale\u0131n.example"])
def test_addresses_that_only_look_alike_are_others(client, provider, domain):
    """A database that ignores case takes the Kelvin sign for k, and the dotless i for i."""
    kim = factories.user("kim", email="kim@klein.example")
    local = "kim" if domain != "example.org" else "\u212a\u0131m"
    provider.person |= {"sub": "not-kim", "email": f"{local}@{domain}"}
    assert sign_in(client).status_code == 403
    assert not kim.identities.exists()


@pytest.mark.parametrize("right", ["is_staff", "is_superuser"])
def test_staff_are_not_found_by_their_address(client, provider, right):
    factories.user("root", email="ann@example.org", **{right: True})
    assert_refused(client, sign_in(client), "site&#x27;s staff")
    assert not Identity.objects.exists()


def test_two_accounts_with_the_address(client, provider):
    for _ in range(2):
        factories.user(email="ann@example.org")
    assert_refused(client, sign_in(client), "Several accounts")


@pytest.mark.parametrize("known", [False, True])
def test_an_account_that_is_switched_off(client, provider, known):
    ann = factories.user("ann", email="ann@example.org", is_active=False)
    if known:
        Identity.objects.create(user=ann, issuer=provider.issuer, subject="ann-17")
    assert_refused(client, sign_in(client), "switched off")
    assert ann.identities.exists() == known


def _without_signature(token: str) -> str:
    header, claims, _ = token.split(".")
    header = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    return f"{header}.{claims}."


def _tampered(token: str) -> str:
    header, claims, signature = token.split(".")
    data = json.loads(base64.urlsafe_b64decode(claims + "=="))
    data["sub"] = "somebody-else"
    claims = base64.urlsafe_b64encode(json.dumps(data).encode()).rstrip(b"=").decode()
    return f"{header}.{claims}.{signature}"


def _signed_with_the_shared_secret(token: str) -> str:
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(CLIENT_SECRET * 2))


BAD_TOKENS = {
    "tampered with": _tampered,
    "without a signature": _without_signature,
    "signed with the shared secret": _signed_with_the_shared_secret,
    "cut": lambda token: token[:-20],
    "garbage": lambda token: "a.b.c",
    "missing": lambda token: None,
}
BAD_CLAIMS = {
    "another nonce": {"nonce": "of-another-sign-in"},
    "no nonce": {"nonce": None},
    "for another site": {"aud": "another-client"},
    "for another site, naming us": {"aud": "another-client", "azp": CLIENT_ID},
    "by another provider": {"iss": "https://evil.example"},
    "long ago": {"exp": 1},
    "without an end": {"exp": None},
    "without a subject": {"sub": None},
}


@pytest.fixture
def ann():
    return factories.user("ann", email="ann@example.org")


@pytest.mark.parametrize("how", BAD_TOKENS)
def test_a_forged_token_is_refused(client, provider, ann, how):
    provider.alter_token = BAD_TOKENS[how]
    assert_refused(client, sign_in(client), "cannot be trusted")
    assert not Identity.objects.exists()


def test_a_token_signed_with_a_key_nobody_knows(client, provider, ann):
    provider.signing_key = provider.keys[1]
    assert_refused(client, sign_in(client), "cannot be trusted")


@pytest.mark.parametrize("what", BAD_CLAIMS)
def test_a_token_that_is_not_for_this_sign_in_is_refused(client, provider, ann, what):
    def alter(claims):
        for name, value in BAD_CLAIMS[what].items():
            if value is None:
                del claims[name]
            else:
                claims[name] = value

    provider.alter_claims = alter
    assert_refused(client, sign_in(client), "cannot be trusted")


def test_user_info_of_somebody_else(client, provider, ann):
    provider.person = {"sub": "eve"}
    provider.profile = {**ANN}
    assert_refused(client, sign_in(client), "cannot be trusted")


def test_a_sign_in_that_was_begun_in_another_browser(client, provider, ann):
    address = leave(Client())
    assert_refused(client, come_back(client, address), "not begun in this browser")


def test_another_state(client, provider, ann):
    back = urlsplit(httpx.get(leave(client)).headers["Location"])
    code = parse_qs(back.query)["code"][0]
    answer = client.get(reverse("provider-back"), {"code": code, "state": "guessed"})
    assert_refused(client, answer, "not begun in this browser")
    assert_refused(client, client.get(reverse("provider-back")), "not begun in this browser")


def test_an_answer_counts_once(client, provider, ann):
    back = httpx.get(leave(client)).headers["Location"].removeprefix("http://testserver")
    assert client.get(back).status_code == 302
    client.logout()
    assert_refused(client, client.get(back), "not begun in this browser")


def test_another_codes_verifier_is_not_taken(client, provider, ann):
    """A code that was stolen from another browser is worth nothing in this one."""
    stolen = parse_qs(urlsplit(httpx.get(leave(Client())).headers["Location"]).query)["code"][0]
    state = parse_qs(urlsplit(leave(client)).query)["state"][0]
    answer = client.get(reverse("provider-back"), {"code": stolen, "state": state})
    assert_refused(client, answer, "cannot be trusted")


def test_a_person_who_says_no_there(client, provider):
    leave(client)
    query = {"error": "access_denied", "error_description": "<b>click here</b>"}
    answer = client.get(reverse("provider-back"), query)
    assert_refused(client, answer, "cannot be trusted")
    assert b"click here" not in answer.content


@pytest.mark.parametrize(
    "discovery",
    [
        {"issuer": "https://other.example"},
        {"token_endpoint": None},
        {"id_token_signing_alg_values_supported": ["HS256", "none"]},
    ],
    ids=["of another issuer", "without an endpoint", "without signatures"],
)
def test_a_discovery_document_that_is_not_sound(client, provider, discovery):
    provider.discovery = discovery
    answer = client.post(reverse("provider-begin"))
    assert_refused(client, answer, "cannot be reached now, or is not set up rightly", 503)


def test_a_provider_that_is_away(client, provider):
    provider.stop()
    answer = client.post(reverse("provider-begin"))
    assert_refused(client, answer, "cannot be reached", 503)


def test_it_is_begun_by_the_button_only(client, provider):
    assert client.get(reverse("provider-begin")).status_code == 405
    strict = Client(enforce_csrf_checks=True)
    assert strict.post(reverse("provider-begin")).status_code == 403


# --- Connecting one's own account -----------------------------------------------------------------


def test_staff_connect_their_account_while_signed_in(client, provider):
    root = factories.user("root", email="ann@example.org", is_staff=True, is_superuser=True)
    client.force_login(root)
    assert "Connect with Example" in client.get(reverse("account")).content.decode()
    provider.person["email_verified"] = False  # needless: they are signed in here and there
    assert sign_in(client)["Location"] == reverse("account")
    page = client.get(reverse("account")).content.decode()
    assert "Connected with Example" in page and "Connect with Example" not in page
    other = Client()
    sign_in(other)
    assert get_user(other) == root


def test_an_identity_is_one_accounts_only(client, provider, ann):
    Identity.objects.create(user=ann, issuer=provider.issuer, subject="ann-17")
    client.force_login(factories.user("eve"))
    answer = sign_in(client)
    assert answer.status_code == 403 and b"connected with another account" in answer.content
    assert get_user(client).username == "eve"


def test_who_signed_in_meanwhile_connects_nothing(client, provider, ann):
    """Begun as nobody, come back as eve: ann is signed in, and eve gets no identity."""
    address = leave(client)
    session = dict(client.session)
    eve = factories.user("eve")
    client.force_login(eve)
    kept = client.session
    kept.update({key: value for key, value in session.items() if not key.startswith("_auth")})
    kept.save()
    come_back(client, address)
    assert get_user(client) == ann
    assert not eve.identities.exists()


def test_staff_can_end_it(client, provider, ann):
    Identity.objects.create(user=ann, issuer=provider.issuer, subject="ann-17")
    client.force_login(factories.user("root", is_staff=True, is_superuser=True))
    address = reverse("admin:recognition_user_change", args=[ann.pk])
    form = client.get(address).context["adminform"].form
    data = {name: form[name].value() for name in ("username", "email")} | {
        "date_joined_0": "2026-01-01",
        "date_joined_1": "12:00",
        "is_active": "on",
        "identities-TOTAL_FORMS": "1",
        "identities-INITIAL_FORMS": "1",
        "identities-0-id": ann.identities.get().pk,
        "identities-0-user": ann.pk,
        "identities-0-DELETE": "on",
    }
    answer = client.post(address, data)
    assert answer.status_code == 302, answer.context["errors"]
    assert not Identity.objects.exists()
    assert AuditEntry.objects.get(action=Action.ACCOUNT_DISCONNECT).object_id == str(ann.pk)


# --- Switched ------------------------------------------------------------------------------------


def test_without_a_provider_there_is_no_trace_of_it(client):
    assert "provider" not in client.get(reverse("login")).content.decode()
    assert client.post(reverse("provider-begin")).status_code == 404
    assert client.get(reverse("provider-back")).status_code == 404


def test_without_passwords_only_the_provider_signs_in(client, provider, no_passwords, ann):
    page = client.get(reverse("login")).content.decode()
    assert "Sign in with Example" in page and 'name="password"' not in page
    form = {"username": "ann", "password": "pw"}
    assert client.post(reverse("login"), form).status_code == 403
    assert authenticate(RequestFactory().post("/"), **form) is None
    sign_in(client)
    assert get_user(client) == ann
    assert "password" not in client.get(reverse("account")).content.decode()


def test_nor_does_the_admin_take_passwords(client, provider, no_passwords):
    root = factories.user("root", is_staff=True, is_superuser=True)
    answer = client.get("/admin/login/?next=/admin/recognition/")
    assert answer["Location"] == reverse("login") + "?next=%2Fadmin%2Frecognition%2F"
    form = {"username": "root", "password": "pw"}
    client.post("/admin/login/", form)
    assert not get_user(client).is_authenticated
    Identity.objects.create(user=root, issuer=provider.issuer, subject="ann-17")
    sign_in(client, next="/admin/")
    assert client.get("/admin/").status_code == 200
    clerk = Client()
    provider.person |= {"sub": "clerk", "email": "clerk@example.org"}
    factories.user("clerk", email="clerk@example.org")
    sign_in(clerk)
    assert clerk.get("/admin/", follow=True).status_code == 403  # and no endless redirects


@pytest.mark.parametrize(
    "name", ["password-change", "password-forgotten", "password-sent", "password-reset"]
)
def test_nor_are_there_pages_about_passwords(client, provider, no_passwords, name):
    args = ["MQ", "x-y"] if name == "password-reset" else []
    assert client.get(reverse(name, args=args)).status_code == 404


def test_nor_is_anybody_who_is_refused_told_to_use_one(client, provider, no_passwords):
    factories.user("root", email="ann@example.org", is_staff=True)
    assert_refused(
        client, sign_in(client), "nobody signs in with a password here. Ask whoever runs"
    )
    provider.person["email_verified"] = False
    assert_refused(client, sign_in(client), "Verify the address there, then sign in again.")


def test_staff_keep_the_permissions_they_were_given(client, provider, no_passwords, ann):
    from django.contrib.auth.models import Permission

    Identity.objects.create(user=ann, issuer=provider.issuer, subject="ann-17")
    User.objects.update(is_staff=True)
    ann.user_permissions.add(Permission.objects.get(codename="view_catalogue"))
    sign_in(client)
    assert client.get(reverse("admin:recognition_catalogue_changelist")).status_code == 200
    assert client.get(reverse("admin:recognition_user_changelist")).status_code == 403


# --- What is written down -------------------------------------------------------------------------


def test_no_secret_is_logged(client, provider, ann, caplog):
    caplog.set_level(logging.DEBUG)
    address = leave(client, next="/account/?x=y")
    back = httpx.get(address).headers["Location"]
    query = {name: values[0] for name, values in parse_qs(urlsplit(back).query).items()}
    client.get(back.removeprefix("http://testserver"))
    assert get_user(client) == ann
    provider.alter_token = _tampered
    sign_in(Client())
    ours = [r for r in caplog.records if not r.name.startswith(("httpx", "httpcore"))]
    written = "\n".join(record.getMessage() for record in ours)
    assert "request_finished" in written and "provider_answer_refused" in written
    for secret in (CLIENT_SECRET, query["code"], query["state"], "access-"):
        assert secret not in written
    assert not [record for record in ours if "code_verifier" in record.getMessage()]
    assert not mail.outbox
