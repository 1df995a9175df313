"""What comes and goes with a plugin."""

from __future__ import annotations

from typing import Protocol

from eventcore.plugins.registry import PluginRecord


class Companion(Protocol):
    """Something outside this room that comes and goes with a plugin."""

    def arrive(self, record: PluginRecord) -> None:
        """The plugin is being enabled; an EventCoreError keeps it from that."""

    def leave(self, record: PluginRecord) -> None:
        """It is enabled no more, or could not be."""
