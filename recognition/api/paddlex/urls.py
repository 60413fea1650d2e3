"""Where PaddleX's clients knock: at the root of the site, or below `/paddlex/<token>`."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from recognition.api.paddlex import index_files, views

urlpatterns: list[URLPattern | URLResolver] = [
    path("shitu-index-build", views.build, name="paddlex-build"),
    path("shitu-index-add", views.add, name="paddlex-add"),
    path("shitu-index-remove", views.remove, name="paddlex-remove"),
    path("shitu-infer", views.infer, name="paddlex-infer"),
    path("shitu-<path:rest>", views.unknown, name="paddlex-unknown"),
    path(
        "api/v1/catalogues/<uuid:key>/paddlex-index",
        index_files.PaddlexIndexView.as_view({"get": "retrieve"}),
        name="paddlex-index",
    ),
    path(
        "api/v1/paddlex-indexes",
        index_files.PaddlexIndexListView.as_view({"post": "create"}),
        name="paddlex-indexes",
    ),
]
