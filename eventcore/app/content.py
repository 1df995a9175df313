"""Reads what the home and the catalogue hold into an engine: plugins, workflows, hook files."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from eventcore.engine import Engine
from eventcore.home.catalogue import catalogue_root
from eventcore.home.discovery import find_files, find_plugins
from eventcore.home.layout import Home
from eventcore.kernel.errors import EventCoreError
from eventcore.kernel.names import slug
from eventcore.kernel.settings import HookSettings, PluginSettings, WorkflowSettings
from eventcore.plugins.manifest_index import ManifestIndex
from eventcore.plugins.registry import PluginRegistry

log = logging.getLogger("eventcore")


async def fill(engine: Engine, home: Home | None, *, quiet: bool) -> None:
    """Read what the home and the catalogue hold, and bring it into the state it was left in.

    Args:
        quiet: the engine only looks.
    """
    catalogue = catalogue_root()
    settings = engine.settings
    for done in await engine.plugins.packages.restore(await engine.store.packages(engine.tenant)):
        log.warning("%s", done)
    find = partial(_discover_plugins, settings=settings.plugins, home=home, catalogue=catalogue)
    find(engine.plugins.registry)
    engine.plugins.finder = find
    _define_workflows(engine, home, catalogue, settings.workflows)
    engine.plugins.calls.configuration.restore(await engine.store.plugin_settings(engine.tenant))
    await engine.plugins.hooking.restore()
    await engine.plugins.lifecycle.restore(settings.plugins.enabled, quiet=quiet)
    _load_hooks(engine, home, catalogue, settings.hooks)


def _discover_plugins(registry: PluginRegistry, settings: PluginSettings, home: Home | None, catalogue: Path) -> None:
    roots: list[tuple[str, Path]] = [("home", home.plugins)] if home is not None else []
    # Without a home, folders to search are relative to the folder that the program runs in.
    roots += [(folder, home.root / folder if home else Path(folder)) for folder in settings.search]
    registry.index = ManifestIndex(home.state / "manifests.json" if home is not None else None)
    roots.append(("catalogue", catalogue / "plugins"))
    for origin, root in roots:
        for found in find_plugins([root]):
            registry.discover(found.folder, found.file, found.category, origin, found.problem)
    registry.index.save()


def _define_workflows(engine: Engine, home: Home | None, catalogue: Path, chosen: WorkflowSettings) -> None:
    for slug_, path, _ in _items(home.workflows if home else None, catalogue / "workflows", (".yaml", ".yml"), chosen):
        try:
            engine.workflows.define(path)
        except EventCoreError as error:
            problem = "; ".join(str(error).splitlines())
            engine.problems.append(problem)
            log.error("workflow %s is not usable: %s", slug_, problem)


def _load_hooks(engine: Engine, home: Home | None, catalogue: Path, chosen: HookSettings) -> None:
    for slug_, path, _ in _items(home.hooks if home else None, catalogue / "hooks", (".py",), chosen):
        loaded = engine.hook_files.load(slug_, path, policy=slug_ in chosen.policy)
        if loaded.error:
            engine.problems.append(f"{path}: {loaded.error}")
            log.error("hook file %s is not usable: %s", path, loaded.error)
        for warning in loaded.warnings:
            log.warning("%s", warning)


def _items(
    own: Path | None, shipped: Path, suffixes: tuple[str, ...], chosen: HookSettings | WorkflowSettings
) -> list[tuple[str, Path, str]]:
    """(slug, file, origin) of what is on: the home's own (all, or the enabled ones) before the catalogue's enabled."""
    result: dict[str, tuple[str, Path, str]] = {}
    for origin, root in (("home", own), ("catalogue", shipped)):
        for path in find_files(root, suffixes) if root is not None and root.is_dir() else ():
            name = path.parent.name if path.name == "__init__.py" else path.stem
            names = {name, slug(name)}
            wanted = bool(names & {*chosen.enabled}) or (origin == "home" and chosen.auto)
            if wanted and not names & {*chosen.disabled} and name not in result:
                result[name] = (slug(name), path, origin)
    return list(result.values())
