"""Whether a plugin's `ui.py` may be shown to people: its manifest and the operator must both trust it, or the operator
shows them all (`ADVANCED_MODE`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from eventcore.plugins.registry import PluginRecord

#: The environment variables that show every widget; the first that is set decides.
ADVANCED = ("EVENTCORE_ADVANCED_MODE", "ADVANCED_MODE")
_YES = frozenset({"true", "1", "yes", "on"})

#: (by its manifest, by the operator) -> in words.
_WORDS = {
    (True, True): "trusted by manifest and operator",
    (True, False): "trusted by manifest, not by operator",
    (False, True): "not trusted by manifest, though by operator",
    (False, False): "not trusted by manifest, nor by operator",
}


def advanced_mode(environ: Mapping[str, str]) -> bool:
    """Whether the environment asks for untrusted widgets: `true`, `1`, `yes` or `on`; anything else means no."""
    said = next((text for name in ADVANCED if (text := environ.get(name))), "")
    return said.strip().lower() in _YES


@dataclass(frozen=True, slots=True)
class Widgets:
    """The operator's rule about widgets.

    Attributes:
        trusted: slugs that the operator trusts (`[plugins] trusted`).
        advanced: all are shown.
    """

    trusted: Collection[str] = ()
    advanced: bool = False

    def may_show(self, record: PluginRecord) -> bool:
        """Whether the plugin's widget is shown, if it has one."""
        manifest = record.manifest
        return manifest is not None and (self.advanced or (manifest.trusted_ui and record.slug in self.trusted))

    def in_words(self, record: PluginRecord) -> str | None:
        """Who trusts the plugin's widget, and what follows; None for a plugin without one."""
        if record.manifest is None or not (record.path / "ui.py").is_file():
            return None
        words = _WORDS[record.manifest.trusted_ui, record.slug in self.trusted]
        return f"{words}; shown, since {ADVANCED[1]} is on" if self.advanced else words
