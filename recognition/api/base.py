"""What all views of the native API share."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from copy import deepcopy
from functools import cache
from typing import IO, Any, ClassVar, TypeVar

from django.http import StreamingHttpResponse
from django.utils.http import content_disposition_header
from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ParseError
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser, JSONParser, MultiPartParser
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.validators import ProhibitSurrogateCharactersValidator
from rest_framework.viewsets import GenericViewSet

from recognition.api.pagination import CursorPagination
from recognition.api.schema import Schema

_Write = TypeVar("_Write", bound="WriteSerializer")


class AlwaysJson(BaseContentNegotiation):
    """Pictures come as JPEG and everything else as JSON, whatever Accept says."""

    def select_parser(self, request: Request, parsers: Iterable[BaseParser]) -> BaseParser | None:
        wanted = (request.content_type or "").split(";")[0].strip().lower()
        return next((parser for parser in parsers if parser.media_type == wanted), None)

    def select_renderer(
        self,
        request: Request,
        renderers: Iterable[BaseRenderer],
        format_suffix: str | None = None,
    ) -> tuple[BaseRenderer, str]:
        first = next(iter(renderers))
        return first, first.media_type


class JsonParser(JSONParser):
    """DRF's, which lets a body of ten thousand brackets through as an error of ours."""

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        try:
            return super().parse(stream, media_type, parser_context)
        except RecursionError as error:
            raise ParseError(_("the JSON is nested too deeply")) from error


class ApiView(GenericViewSet):
    """JSON in and out; lists come in pages; `fields=` chooses fields; errors in one shape."""

    schema = Schema()
    renderer_classes = [JSONRenderer]
    parser_classes = [JsonParser]
    pagination_class = CursorPagination
    content_negotiation_class = AlwaysJson
    metadata_class = None  # the OpenAPI document says more than OPTIONS would
    sparse: ClassVar[bool] = True
    conditional: ClassVar[bool] = False
    in_address: ClassVar[tuple[str, ...]] = ()  # what a list may be asked besides its filters

    def read(self, serializer: type[_Write], **options: Any) -> dict[str, Any]:
        """The body, checked; raises ValidationError naming each field that is wrong."""
        found = serializer(data=self.request.data, context={"request": self.request}, **options)
        found.is_valid(raise_exception=True)
        return dict(found.validated_data)


class UploadView(ApiView):
    """Takes pictures too."""

    parser_classes = [JsonParser, MultiPartParser]

    @property
    def is_form(self) -> bool:
        return (self.request.content_type or "").startswith("multipart/")


class RowSerializer(serializers.ModelSerializer[Any]):
    """Derives its fields from the model once, and not for every answer."""

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        return deepcopy(_derived(type(self)))


@cache
def _derived(
    serializer: type[RowSerializer],
) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
    return serializers.ModelSerializer.get_fields(serializer())


class ReadSerializer(RowSerializer):
    """Shows a row; `?fields=a,b` shows only those fields of it."""

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        fields = super().get_fields()
        request = self.context.get("request")
        if request is None or request.method != "GET" or self.context.get("whole"):
            return fields
        top = self.parent is None or (
            isinstance(self.parent, serializers.ListSerializer) and self.parent.parent is None
        )
        wanted = request.query_params.get("fields")
        if not top or wanted is None:
            return fields
        names = [name.strip() for name in wanted.split(",")]
        if unknown := [name for name in names if name not in fields]:
            raise serializers.ValidationError(
                {
                    "fields": [
                        _("no field “%(name)s”; there are %(known)s")
                        % {"name": unknown[0], "known": ", ".join(fields)}
                    ]
                }
            )
        return {name: fields[name] for name in fields if name in names}


class WriteSerializer(serializers.Serializer[Any]):
    """Reads a body, and refuses names it does not know: a typing error is not silently nothing."""

    def to_internal_value(self, data: Any) -> Any:
        if hasattr(data, "keys") and (unknown := sorted(set(map(str, data)) - set(self.fields))):
            said = _("no such field; there are %(known)s") % {"known": ", ".join(self.fields)}
            raise serializers.ValidationError({name: [said] for name in unknown})
        return super().to_internal_value(data)


class Number(serializers.FloatField):
    """A finite number: DRF's accepts "nan", which passes every comparison that would refuse it."""

    def to_internal_value(self, data: Any) -> float:
        value = super().to_internal_value(data)
        if not math.isfinite(value):
            self.fail("invalid")
        return value


class BoxField(serializers.ListField):
    """`[x1, y1, x2, y2]` in pixels of the upright picture; `check_box` judges the numbers."""

    def __init__(self, **options: Any) -> None:
        super().__init__(child=Number(), min_length=4, max_length=4, **options)


class JsonText(serializers.CharField):
    """A form field that holds JSON, checked by the field that a JSON body uses."""

    def __init__(self, inner: serializers.Field[Any, Any, Any, Any], **options: Any) -> None:
        super().__init__(**options)
        self._inner = inner

    def to_internal_value(self, data: Any) -> Any:
        try:
            value = json.loads(super().to_internal_value(data))
        except (ValueError, RecursionError) as error:
            raise serializers.ValidationError(_("must be JSON")) from error
        return self._inner.run_validation(value)


def form_json(
    inner: serializers.Field[Any, Any, Any, Any], description: str, **options: Any
) -> JsonText:
    """A `JsonText` that the OpenAPI document shows as the text it is."""
    field = extend_schema_field({"type": "string", "description": description})(JsonText)
    return field(inner, **options)


def as_csv(lines: Iterable[str], name: str) -> StreamingHttpResponse:
    """A table that is written while it is sent, offered as a file of that name."""
    response = StreamingHttpResponse(lines, content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = str(content_disposition_header(True, name))
    return response


class Base64Field(serializers.CharField):
    """A file as text. `images.from_base64` refuses every foreign character, and faster than the
    validator that would look at each of them for lone surrogates (14 ms for a photo)."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.validators = [
            validator
            for validator in self.validators
            if not isinstance(validator, ProhibitSurrogateCharactersValidator)
        ]
