"""What `workflows validate` compares definitions with: intents and workflows of the home, if any, and the catalogue."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from eventcore.cli.session import find_home
from eventcore.home.catalogue import catalogue_root
from eventcore.home.discovery import find_files, find_plugins
from eventcore.kernel.errors import EventCoreError
from eventcore.plugins.manifest.read import read_manifest
from eventcore.workflows.definition import Workflow, read_workflow
from eventcore.workflows.lint import Surroundings


def surroundings(files: list[Path]) -> Surroundings:
    """What the definitions in `files` may call, themselves included. Runs nothing; skips what cannot be read."""
    roots = [catalogue_root()]
    with suppress(EventCoreError):  # a file can be checked without a home
        roots.insert(0, find_home().root)
    roots = list(dict.fromkeys(root.resolve() for root in roots))
    intents: set[str] = set()
    kinds: dict[str, tuple[str, str]] = {}
    folders: list[Path] = []
    for found in find_plugins([root / "plugins" for root in roots]):
        folders.append(Path(found.folder) / "workflows")
        try:
            manifest = read_manifest(found.file)
        except EventCoreError:
            continue  # `plugins validate` tells why
        intents.update(manifest.answers)
        kinds |= {f"{manifest.slug}.{one.name}": (one.input_type, one.output_type) for one in manifest.capabilities}
    known: dict[str, Workflow] = {}
    searched = [root / "workflows" for root in roots] + folders
    for path in [*files, *(file for folder in searched if folder.is_dir() for file in _definitions(folder))]:
        try:
            workflow, _ = read_workflow(path)
        except EventCoreError:
            continue
        known.setdefault(workflow.slug, workflow)
    return Surroundings(
        intents, known, searched=tuple(str(folder) for folder in searched if folder.is_dir()), kinds=kinds
    )


def _definitions(folder: Path) -> list[Path]:
    return find_files(folder, (".yaml", ".yml"))
