"""Addresses of the member pages."""

from __future__ import annotations

from django.contrib.auth.views import LogoutView
from django.urls import path
from django.views.i18n import set_language

from recognition.web import accounts, transfers, views

urlpatterns = [
    path("", views.home, name="home"),
    path("favicon.ico", views.favicon, name="favicon"),
    path("login/", accounts.SignInView.as_view(), name="login"),
    path("login/provider/", accounts.provider_begin, name="provider-begin"),
    path("login/provider/back/", accounts.provider_back, name="provider-back"),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("account/", accounts.account, name="account"),
    path("password/", accounts.PasswordChangeView.as_view(), name="password-change"),
    path(
        "password/forgotten/", accounts.PasswordForgottenView.as_view(), name="password-forgotten"
    ),
    path("password/sent/", accounts.PasswordSentView.as_view(), name="password-sent"),
    path(
        "password/reset/<uidb64>/<token>/",
        accounts.PasswordResetView.as_view(),
        name="password-reset",
    ),
    path("invitations/<slug:text>/", accounts.invitation, name="invitation"),
    path("language/", set_language, name="set_language"),
    path("c/<uuid:key>/", views.recognise, name="recognise"),
    path("c/<uuid:key>/gallery/", views.gallery, name="gallery"),
    path("c/<uuid:key>/gallery/<int:product_id>/", views.product, name="product"),
    path("c/<uuid:key>/images/<int:number>/", views.gallery_picture, name="gallery-picture"),
    path(
        "c/<uuid:key>/images/<int:number>/<int:side>/",
        views.gallery_picture,
        name="gallery-thumbnail",
    ),
    path("c/<uuid:key>/transfer/", transfers.transfer, name="transfer"),
    path("r/<uuid:key>/", views.recognition, name="recognition"),
    path("r/<uuid:key>/picture/", views.query_picture, name="query-picture"),
    path("r/<uuid:key>/picture/<int:side>/", views.query_picture, name="query-preview"),
]
