"""Signing in, one's own account, and the other end of the links that are sent by e-mail."""

from __future__ import annotations

from functools import partial
from typing import Any

import structlog
from axes.helpers import get_client_ip_address
from axes.utils import reset as forget_wrong_passwords
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.auth import login
from django.contrib.auth import views as auth
from django.contrib.auth.decorators import login_required
from django.contrib.auth.forms import PasswordChangeForm, SetPasswordForm
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render, resolve_url
from django.urls import reverse, reverse_lazy
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.views import View
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import (
    require_GET,
    require_http_methods,
    require_POST,
    require_safe,
)
from django_htmx.http import HttpResponseClientRedirect

from recognition import links
from recognition.errors import Conflict, LimitReached, NotFound, NotReady, SignInRefused
from recognition.models import Invitation, Membership, User
from recognition.services import accounts, members, rates
from recognition.web.forms import ForgottenPasswordForm, JoinForm
from recognition.web.htmx import Request

log = structlog.get_logger(__name__)

_PASSWORD = "django.contrib.auth.backends.ModelBackend"  # noqa: S105
_PROVIDER = "recognition.web.backends.ProviderBackend"
_BEGUN = "provider_sign_in"  # in the session: where it leads, and whose account it connects


def has_provider() -> bool:
    """Whether this site signs people in with an OpenID Connect provider."""
    return bool(
        settings.SHITU_OIDC_ISSUER
        and settings.SHITU_OIDC_CLIENT_ID
        and settings.SHITU_OIDC_CLIENT_SECRET
    )


def _ways_in() -> dict[str, Any]:
    """What the templates ask: with what one can sign in."""
    return {
        "provider": settings.SHITU_OIDC_NAME if has_provider() else "",
        "passwords": settings.SHITU_PASSWORD_LOGIN,
    }


class _OnlyWithPasswords(View):
    """A page about passwords; there is none where nobody signs in with one."""

    def dispatch(self, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not settings.SHITU_PASSWORD_LOGIN:
            raise Http404
        return super().dispatch(*args, **kwargs)


# --- In -------------------------------------------------------------------------------------------


class SignInView(auth.LoginView):
    """With a password, with the provider, or with either, as the settings say."""

    template_name = "recognition/login.html"
    redirect_authenticated_user = True

    def get(self, request: Request, *args: Any, **kwargs: Any) -> HttpResponse:  # type: ignore[override]
        """For a part of a page that was asked for after the session's end, the whole page is left:
        its place is no place to sign in."""
        if request.htmx:
            return HttpResponseClientRedirect(request.get_full_path())
        return super().get(request, *args, **kwargs)

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if not settings.SHITU_PASSWORD_LOGIN:
            raise PermissionDenied
        return super().post(request, *args, **kwargs)

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(**kwargs, **_ways_in())


def admin_sign_in(request: HttpRequest) -> HttpResponseBase:
    """The admin's own form takes passwords only; without them the site's page is for all."""
    if settings.SHITU_PASSWORD_LOGIN:
        return admin.site.login(request)
    if request.user.is_authenticated:  # and no staff, or the admin would not ask
        raise PermissionDenied
    wanted = request.GET.get("next") or reverse("admin:index")
    return redirect(reverse("login", query={"next": wanted}))


@require_POST
def provider_begin(request: Request) -> HttpResponse:
    """To the provider: to sign in, or, for who is signed in, to connect the account."""
    if not has_provider():
        raise Http404
    from recognition import oidc  # only sites with a provider load it

    user = request.user
    wanted = request.POST.get("next", "")
    request.session[_BEGUN] = {
        "next": wanted if _leads_here(request, wanted) else "",
        "user": user.pk if user.is_authenticated else None,
    }
    try:
        return oidc.begin(request, links.absolute(request, reverse("provider-back")))
    except NotReady as error:
        return _not_in(request, error.message, status=503)


@require_GET
@never_cache
def provider_back(request: Request) -> HttpResponse:
    """Back from the provider."""
    if not has_provider():
        raise Http404
    from recognition import oidc

    begun = request.session.pop(_BEGUN, {})
    try:
        claims = oidc.finish(request)
        if request.user.is_authenticated and begun.get("user") == request.user.pk:
            accounts.connect(request.user, claims)
            messages.success(request, _("Your account is connected."))
            return redirect("account")
        user = accounts.sign_in(claims)
    except NotReady as error:
        return _not_in(request, error.message, status=503)
    except SignInRefused as error:
        log.warning("provider_sign_in_refused", reason=error.reason)
        return _not_in(request, error.message, status=403)
    login(request, user, backend=_PROVIDER)
    return redirect(begun.get("next") or resolve_url(settings.LOGIN_REDIRECT_URL))


def _leads_here(request: HttpRequest, url: str) -> bool:
    return url_has_allowed_host_and_scheme(
        url, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )


def _not_in(request: HttpRequest, why: str, *, status: int) -> HttpResponse:
    return render(request, "recognition/not_signed_in.html", {"why": why}, status=status)


# --- One's own account ----------------------------------------------------------------------------


@require_safe
@login_required
@never_cache
def account(request: Request) -> HttpResponse:
    """What the site knows of whoever is signed in, and with what they sign in."""
    connected = request.user.identities.filter(issuer=settings.SHITU_OIDC_ISSUER).exists()
    return render(request, "recognition/account.html", {"connected": connected, **_ways_in()})


class PasswordChangeView(_OnlyWithPasswords, auth.PasswordChangeView):
    """Another password, for who knows the old one."""

    template_name = "recognition/password_change.html"
    success_url = reverse_lazy("account")

    def form_valid(self, form: PasswordChangeForm) -> HttpResponse:
        with transaction.atomic():
            accounts.note_new_password(form.user)
            response = super().form_valid(form)
        messages.success(
            self.request, _("Your password is changed. Other browsers are signed out.")
        )
        return response


class PasswordForgottenView(_OnlyWithPasswords, auth.PasswordResetView):
    """Asks for an e-mail with a link. The answer is the same for an address that nobody has."""

    template_name = "recognition/password_forgotten.html"
    form_class = ForgottenPasswordForm
    success_url = reverse_lazy("password-sent")

    def form_valid(self, form: ForgottenPasswordForm) -> HttpResponse:  # type: ignore[override]
        address = get_client_ip_address(self.request) or ""
        try:
            rates.check_password_reset(form.cleaned_data["email"], address)
        except LimitReached as error:
            form.add_error(None, _("Too many such e-mails were asked for. Try again in an hour."))
            response = self.render_to_response(self.get_context_data(form=form), status=429)
            response["Retry-After"] = str(round(error.retry_after or 0) + 1)
            return response
        self.extra_email_context = {"absolute": partial(links.absolute, self.request)}
        return super().form_valid(form)


class PasswordSentView(_OnlyWithPasswords, auth.PasswordResetDoneView):
    """What to do now."""

    template_name = "recognition/password_sent.html"


class PasswordResetView(_OnlyWithPasswords, auth.PasswordResetConfirmView):
    """The page of the link in the e-mail. A new password also ends the lock of wrong ones."""

    template_name = "recognition/password_reset.html"
    success_url = reverse_lazy("login")

    def form_valid(self, form: SetPasswordForm[User]) -> HttpResponse:
        with transaction.atomic():
            accounts.note_new_password(form.user)
            response = super().form_valid(form)
        forget_wrong_passwords(username=form.user.get_username())
        messages.success(self.request, _("Your password is changed. Sign in with it."))
        return response


# --- Invitations ----------------------------------------------------------------------------------


@require_http_methods(["GET", "HEAD", "POST"])
@sensitive_post_parameters("password1", "password2")
@never_cache
def invitation(request: Request, text: str) -> HttpResponse:
    """To what one is invited, and the way in: one's account, or a new one for the address."""
    found = members.look_up(text)
    if found is None:
        return _invited(request, None, status=404)
    if found.accepted_at is not None or found.is_expired or found.is_orphaned:
        return _invited(request, found, status=410)
    if request.user.is_authenticated:
        return _accept(request, found, text)
    return _join(request, found, text)


def _accept(request: Request, found: Invitation, text: str) -> HttpResponse:
    mine = members.is_for(found, request.user)
    if request.method != "POST" or not mine:
        return _invited(request, found, mine=mine, status=200 if mine else 403)
    try:
        made = members.accept(text, request.user)
    except (NotFound, Conflict):  # used, withdrawn or changed since it was looked up
        return redirect(request.path)
    return _welcome(request, made)


def _join(request: Request, found: Invitation, text: str) -> HttpResponse:
    posted = request.method == "POST"
    if posted and not settings.SHITU_PASSWORD_LOGIN:
        raise PermissionDenied
    form = JoinForm(request.POST if posted else None, email=found.email)
    if posted and form.is_valid():
        try:
            made = accounts.join(text, form.cleaned_data["name"], form.cleaned_data["password1"])
        except NotFound:
            return redirect(request.path)
        except Conflict:
            form.add_error(None, _("This address has an account already. Sign in with it."))
        else:
            login(request, made.user, backend=_PASSWORD)
            return _welcome(request, made)
    return _invited(request, found, form=form, status=422 if posted else 200)


def _welcome(request: Request, made: Membership) -> HttpResponse:
    messages.success(
        request,
        _("You are a member of “%(catalogue)s” now, signed in as %(name)s.")
        % {"catalogue": made.catalogue.name, "name": made.user.get_username()},
    )
    return redirect("recognise", key=made.catalogue.key)


def _invited(
    request: Request, found: Invitation | None, *, status: int, **context: Any
) -> HttpResponse:
    context |= {"invitation": found, **_ways_in()}
    return render(request, "recognition/invitation.html", context, status=status)
