"""What a container engine may answer, or not."""

from __future__ import annotations

from eventcore.kernel.errors import SandboxUnavailable

#: Statuses over HTTP that we act upon.
NOT_FOUND, CONFLICT, SWITCHING_PROTOCOLS = 404, 409, 101


class EngineMissing(SandboxUnavailable):
    """Nobody answers where the engine should be."""


class EngineRefused(SandboxUnavailable):
    """The engine answered with an error. `details["status"]` is its status over HTTP."""
