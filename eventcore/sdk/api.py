"""`ctx.api`: the host's API, with the roles of who made this call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eventcore.sdk.binding import Answer, current


class ApiContext:
    """`ctx.api`; needs `api_access`, and `admin_access` as well for what changes the host.

    Paths are those of the host's REST API without `/api`. Values for a path's `?a=b` may also come as `params`.
    """

    def get(self, path: str, params: Mapping[str, Any] | None = None) -> Answer[Any]:
        """Look at something: `ctx.api.get("/plugins")`."""
        return current().ask("api", {"method": "GET", "path": path, "params": dict(params or {})})

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Answer[Any]:
        """Do something: `ctx.api.post("/plugins/greeter/disable")`."""
        return current().ask("api", {"method": "POST", "path": path, "params": dict(body or {})})
