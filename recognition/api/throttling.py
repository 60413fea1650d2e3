"""How often one may come: `SHITU_API_REQUESTS_PER_MINUTE`, counted for all processes in Redis.

DRF's own throttles read, count and write in three steps, so that a burst passes; the counter of
`services/rates.py` does it in one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from recognition.models import User
from recognition.services import rates

if TYPE_CHECKING:
    from rest_framework.views import APIView  # which imports this class, as a setting


class RequestsPerMinute(BaseThrottle):
    """Per token, else per user. What is public is not counted."""

    def allow_request(self, request: Request, view: APIView) -> bool:
        """Raises LimitReached, which says the limit, what is used, and when to come back."""
        if isinstance(request.user, User):
            rates.check_request(request.user)
        return True
