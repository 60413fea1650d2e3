"""Where everything is reached."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

from recognition.api.health import health
from recognition.web.accounts import admin_sign_in

_screens, _app, _name = admin.site.urls

urlpatterns = [
    path("health", health, name="health"),
    path("", include("recognition.api.paddlex.urls")),
    path("admin/", ([path("login/", admin_sign_in, name="login"), *_screens], _app, _name)),
    path("api/", include("recognition.api.urls")),
    path("", include("recognition.web.urls")),
]

# Pages answer in HTML, addresses below /api/ in the API's one error shape.
handler400 = "recognition.api.errors.bad_request"
handler403 = "recognition.api.errors.permission_denied"
handler404 = "recognition.api.errors.page_not_found"
handler500 = "recognition.api.errors.server_error"
