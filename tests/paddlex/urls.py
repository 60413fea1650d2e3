"""The site's addresses with PaddleX's among them, for as long as the site does not have them."""

from __future__ import annotations

from django.urls import include, path

from recognition.api.health import health
from shitu_site.urls import urlpatterns as of_the_site

urlpatterns = [
    path("health", health),
    path("", include("recognition.api.paddlex.urls")),
    *of_the_site,
]
