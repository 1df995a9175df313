"""What a plugin may raise, and what is raised in it."""

from __future__ import annotations


class PluginError(Exception):
    """Something in the plugin, or something it asked of the host, failed.

    Attributes:
        code: the host's stable word for the failure (`not_found`, `loop_detected`, ...); `plugin_error` for our own.
    """

    code = "plugin_error"

    def __init__(self, message: str = "", *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class TransientError(PluginError):
    """Raise it for a failure that may be gone on the next try; the host tries again, a bounded number of times."""

    code = "transient"


class PermissionDenied(PluginError):
    """The host refused: the plugin was not granted the permission that this needs."""

    code = "permission_denied"


class NoResponder(PluginError):
    """Nobody answers what `ctx.request` asked for. Raised at once, not after the timeout."""

    code = "no_responder"
