"""What `workflows validate` compares definitions with: intents and workflows of the home, if any, and the catalogue."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from eventcore.cli.session import find_home
from eventcore.home.catalogue import catalogue_root
from eventcore.home.discovery import find_files, find_plugins
from eventcore.home.settings_file import read_settings
from eventcore.hooks.specs import HOOKS
from eventcore.kernel.errors import EventCoreError, Problem
from eventcore.kernel.names import did_you_mean
from eventcore.kernel.settings import ExternalEngineSettings
from eventcore.plugins.manifest.model import PluginManifest
from eventcore.plugins.manifest.read import read_manifest
from eventcore.workflows.definition import Workflow, read_workflow
from eventcore.workflows.lint import Surroundings


def surroundings(files: list[Path]) -> Surroundings:
    """What the definitions in `files` may call, themselves included. Runs nothing; skips what cannot be read."""
    roots, engines = [catalogue_root()], dict[str, ExternalEngineSettings]()
    with suppress(EventCoreError):  # a file can be checked without a home
        home = find_home()
        roots.insert(0, home.root)
        engines = read_settings(home.settings).workflows.engines
    roots = list(dict.fromkeys(root.resolve() for root in roots))
    intents: set[str] = set()
    kinds: dict[str, tuple[str, str]] = {}
    takes: dict[str, dict[str, Any]] = {}
    folders: list[Path] = []
    for found in find_plugins([root / "plugins" for root in roots]):
        folders.append(Path(found.folder) / "workflows")
        try:
            manifest = read_manifest(found.file)
        except EventCoreError:
            continue  # `plugins validate` tells why
        intents.update(manifest.answers)
        if manifest.input_schema is not None:
            takes |= dict.fromkeys(manifest.answers, manifest.input_schema)
        kinds |= {f"{manifest.slug}.{one.name}": (one.input_type, one.output_type) for one in manifest.capabilities}
    known: dict[str, Workflow] = {}
    searched = [root / "workflows" for root in roots] + folders
    for path in [*files, *(file for folder in searched if folder.is_dir() for file in _definitions(folder))]:
        try:
            workflow, _ = read_workflow(path)
        except EventCoreError:
            continue
        known.setdefault(workflow.slug, workflow)
    places = [str(folder) for folder in searched if folder.is_dir()]
    places += [f"{name} at {engine.base_url}" for name, engine in engines.items()]
    return Surroundings(intents, known, _served(engines), tuple(places), kinds, takes, frozenset(HOOKS))


def chained(manifest: PluginManifest, around: Surroundings) -> Problem | None:
    """A warning if the workflow that a plugin starts is known neither here nor elsewhere."""
    slug, known = manifest.workflow_slug, around.workflows or {}
    own = manifest.folder / "workflows"
    carried = {path.stem for path in _definitions(own)} if own.is_dir() else set()
    if not manifest.enable_external_workflow or slug is None or slug in known or slug in carried:
        return None
    if around.elsewhere(slug):
        return None
    message = f"there is no workflow {slug!r}; searched: {', '.join(around.searched)}{did_you_mean(slug, known)}"
    return Problem(str(manifest.path), None, "workflow_slug", message, warning=True)


def _served(engines: dict[str, ExternalEngineSettings]) -> frozenset[str] | None:
    """The slugs that other engines serve; None for any."""
    if any(not engine.slugs for engine in engines.values()):
        return None
    return frozenset(slug for engine in engines.values() for slug in engine.slugs)


def _definitions(folder: Path) -> list[Path]:
    return find_files(folder, (".yaml", ".yml"))
