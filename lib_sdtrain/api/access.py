"""Who may ask. Routes of an extension have no protection of their own in the WebUI, so its rules are applied here."""
from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import HTTPException, Request

SESSION_COOKIES = ("access-token", "access-token-unsecure")


def parse_users(text: str | None) -> dict[str, str]:
    """User names and passwords of the WebUI's `--api-auth user:password,user:password`."""
    pairs = (entry.partition(":") for entry in (text or "").split(",") if ":" in entry)
    return {user.strip(): password.strip() for user, _, password in pairs}


@dataclass(frozen=True)
class Access:
    """The page's own login (`app.auth` and its session cookies) and the API's users."""

    app: Any
    api_users: Mapping[str, str] = field(default_factory=dict)

    def page(self, request: Request) -> None:
        """For what the tab itself polls: a logged-in page, or an API user. 401 otherwise."""
        if not self._logged_in(request) and not self._api_user(request):
            raise _refused()

    def program(self, request: Request) -> None:
        """For other programs: an API user where there are any, else whoever may see the page. 401 otherwise."""
        allowed = self._api_user(request) if self.api_users else self._logged_in(request)
        if not allowed:
            raise _refused()

    def _logged_in(self, request: Request) -> bool:
        if getattr(self.app, "auth", None) is None and getattr(self.app, "auth_dependency", None) is None:
            return True
        tokens = getattr(self.app, "tokens", {})
        cookies = [value for name, value in request.cookies.items() if name.startswith(SESSION_COOKIES)]
        return any(value in tokens for value in cookies)

    def _api_user(self, request: Request) -> bool:
        scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return False
        expected = self.api_users.get(user)
        return expected is not None and secrets.compare_digest(password.encode(), expected.encode())


def _refused() -> HTTPException:
    return HTTPException(401, "Not authenticated", headers={"WWW-Authenticate": "Basic"})
