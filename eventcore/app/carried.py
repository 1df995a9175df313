"""Workflows that plugins carry in their `workflows/` folder: there while the plugin is enabled."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

from eventcore.home.discovery import find_files
from eventcore.kernel.errors import InvalidInput
from eventcore.plugins.registry import PluginRecord
from eventcore.workflows.registry import Registry

log = logging.getLogger("eventcore")


class CarriedWorkflows:
    """Implements `Companion` for the plugins' lifecycle. A definition of the home, the catalogue or code goes first.

    Args:
        disabled: slugs that are never registered.
    """

    def __init__(self, registry: Registry, disabled: Collection[str]) -> None:
        self._registry, self._disabled = registry, frozenset(disabled)
        self._carried: dict[str, dict[str, str]] = {}

    def arrive(self, record: PluginRecord) -> None:
        """Register what the plugin carries: all of it, or nothing.

        Raises:
            InvalidDefinition: a definition has mistakes.
            InvalidInput: another plugin carries one of the slugs.
        """
        folder = record.path / "workflows"
        plans = [(path, self._registry.compile(path)) for path in _definitions(folder)]
        mine: dict[str, Path] = {}
        for path, plan in plans:
            for other, carried in self._carried.items():
                if plan.slug in carried:
                    raise InvalidInput(f"the plugins {other} and {record.slug} both carry the workflow {plan.slug!r}")
            if self._registry.find(plan.slug) is not None:
                place = self._registry.origin(plan.slug)
                log.warning("%s carries the workflow %s, which %s defines already", record.slug, plan.slug, place)
            elif plan.slug not in self._disabled:
                mine[plan.slug] = path
        self._carried[record.slug] = {slug: self._registry.define(path).hash for slug, path in mine.items()}

    def leave(self, record: PluginRecord) -> None:
        """Forget what the plugin carries; runs keep the definition that they began with."""
        for slug, digest in self._carried.pop(record.slug, {}).items():
            plan = self._registry.find(slug)
            if plan is not None and plan.hash == digest:  # not what code has defined in its place since
                self._registry.remove(slug)


def _definitions(folder: Path) -> list[Path]:
    return sorted(find_files(folder, (".yaml", ".yml"))) if folder.is_dir() else []
