"""Addresses of the member pages."""

from __future__ import annotations

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path
from django.views.i18n import set_language

from recognition.web import views

urlpatterns = [
    path("", views.home, name="home"),
    path(
        "login/",
        LoginView.as_view(template_name="recognition/login.html", redirect_authenticated_user=True),
        name="login",
    ),
    path("logout/", LogoutView.as_view(), name="logout"),
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
    path("r/<uuid:key>/", views.recognition, name="recognition"),
    path("r/<uuid:key>/picture/", views.query_picture, name="query-picture"),
    path("r/<uuid:key>/picture/<int:side>/", views.query_picture, name="query-preview"),
]
