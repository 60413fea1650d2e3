"""The gate: every view below /catalogues/<key>/ starts here."""

from __future__ import annotations

from typing import Any, ClassVar

from django.utils.functional import cached_property
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request

from recognition.api.base import ApiView
from recognition.models import Catalogue, Role
from recognition.services import catalogues


class InCatalogue(ApiView):
    """For views whose address names a catalogue; answers before anything of it is looked at.

    An outsider gets 404, a role too low 403. `roles` names the role of each action; what is not
    named needs viewer for reading and manager for everything else. A method that the view does not
    have is a 405 for every member.
    """

    roles: ClassVar[dict[str, Role]] = {}

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        self.catalogue  # noqa: B018  (looked up here, so that no view can forget to)

    @cached_property
    def catalogue(self) -> Catalogue:
        """The catalogue of the address, in which the user has the role this action needs."""
        return catalogues.require(self.request.user, self.kwargs["key"], self.needed_role())

    def needed_role(self) -> Role:
        if self.action in self.roles:
            return self.roles[self.action]
        reads = self.action is None or self.request.method in SAFE_METHODS
        return Role.VIEWER if reads else Role.MANAGER
