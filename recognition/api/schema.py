"""What the OpenAPI document says beyond the serializers: errors, headers, shared parameters."""

from __future__ import annotations

from typing import Any, Literal

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, inline_serializer
from rest_framework import serializers

from recognition.api import idempotency, request_id

Direction = Literal["request", "response"]

Error = inline_serializer(
    "Error",
    {
        "error": inline_serializer(
            "ErrorDetail",
            {
                "code": serializers.CharField(help_text="Stable name, for machines."),
                "message": serializers.CharField(help_text="What is wrong, and the remedy."),
                "fields": serializers.DictField(
                    child=serializers.ListField(child=serializers.CharField()),
                    required=False,
                    help_text="Messages for each input that is wrong.",
                ),
                "request_id": serializers.CharField(help_text="Finds the request in the log."),
            },
        )
    },
)

_ALWAYS = ("400", "401", "403", "429", "503")
_WITH_BODY = ("409", "413", "415")


class Schema(AutoSchema):
    """Every status that can come is in the document, errors in their one shape."""

    def get_override_parameters(self) -> list[Any]:
        codes = [code for code in self._codes if code < "400"]
        found = [_header(request_id.HEADER, "Finds this request in the site's log.", codes)]
        if self.method == "GET" and getattr(self.view, "sparse", False):
            found.append(
                OpenApiParameter(
                    "fields", str, description="Only these fields, separated by commas."
                )
            )
        if self._is_conditional():
            if self.method in ("PATCH", "DELETE"):
                found.append(
                    OpenApiParameter(
                        "If-Match",
                        str,
                        OpenApiParameter.HEADER,
                        description="ETag of the version that you mean to change.",
                    )
                )
            if self.method != "DELETE":
                found.append(_header("ETag", "The version answered.", codes))
        if self._is_idempotent():
            found += [
                OpenApiParameter(
                    idempotency.HEADER,
                    str,
                    OpenApiParameter.HEADER,
                    description="Any text of yours; sent again within a day, the request is "
                    "answered again but not done again.",
                ),
                _header(idempotency.REPLAYED, "`true` on an answer given again.", codes),
            ]
        return found

    def get_summary(self) -> str | None:
        """The first paragraph of what the operation's docstring says."""
        return " ".join(super().get_description().partition("\n\n")[0].split()) or None

    def get_description(self) -> str:  # type: ignore[override]  # as drf-spectacular's own
        """The others."""
        return str(super().get_description()).partition("\n\n")[2].strip()

    def _get_response_bodies(self, direction: Direction = "response") -> dict[str, Any]:
        bodies = super()._get_response_bodies(direction)
        public = not self.view.get_permissions() or self.view.permission_classes == []
        if public:
            return bodies
        codes = [*_ALWAYS]
        if "{" in self.path:
            codes.append("404")
        if self.method in ("POST", "PUT", "PATCH"):
            codes += _WITH_BODY
        elif self.method == "DELETE":
            codes.append("409")
        if self._is_conditional() and self.method in ("PATCH", "DELETE"):
            codes.append("412")
        for code in sorted(codes):
            bodies.setdefault(
                code, self._get_response_for_code(Error, code, ["application/json"], direction)
            )
        return bodies

    @property
    def _codes(self) -> list[str]:
        responses = self.get_response_serializers()
        if isinstance(responses, dict):
            return [str(code[0] if isinstance(code, tuple) else code) for code in responses]
        return {"POST": ["201"], "DELETE": ["204"]}.get(self.method, ["200"])

    def _is_conditional(self) -> bool:
        return bool(getattr(self.view, "conditional", False)) and not self._is_list_view()

    def _is_idempotent(self) -> bool:
        action = getattr(self.view, getattr(self.view, "action", None) or "", None)
        return bool(getattr(action, "idempotent", False))


def location(*codes: int, description: str = "Its url.") -> OpenApiParameter:
    """The header Location of answers with these codes."""
    return _header("Location", description, [str(code) for code in codes])


def _header(name: str, description: str, codes: list[str]) -> OpenApiParameter:
    return OpenApiParameter(
        name, OpenApiTypes.STR, OpenApiParameter.HEADER, description=description, response=codes
    )
