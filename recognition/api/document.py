"""/schema/: the OpenAPI document."""

from __future__ import annotations

from functools import lru_cache
from threading import Lock
from typing import Any

from django.conf import settings
from django.http import HttpResponse
from django.utils import translation
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularAPIView
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

from recognition.models.job import current_language

_making = Lock()


class DocumentView(SpectacularAPIView):
    """Made at first use in each process, once for each format and language: drf-spectacular would
    spend a processor's second on every request, and anybody may ask."""

    @extend_schema(exclude=True)
    def get(self, request: Request, *args: Any, **kwargs: Any) -> HttpResponse:
        """In the language that `lang` names, else that of the request."""
        asked = request.query_params.get("lang")
        language = asked if asked in dict(settings.LANGUAGES) else current_language()
        renderer = request.accepted_renderer
        with _making:  # whoever comes meanwhile waits for it instead of making it too
            document = _document(type(renderer), language)  # type: ignore[arg-type]  # a class has a hash
        response = HttpResponse(document, content_type=f"{renderer.media_type}; charset=utf-8")
        response["Content-Disposition"] = f'inline; filename="{self._get_filename(request, None)}"'
        return response


@lru_cache
def _document(renderer: type[BaseRenderer], language: str) -> str | bytes:
    with translation.override(language):
        return renderer().render(SchemaGenerator().get_schema(public=True))
