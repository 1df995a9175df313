"""`eventcore plugins validate`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eventcore.cli.base import FAILED, examples, face

if TYPE_CHECKING:
    from eventcore.workflows.lint import Surroundings


@click.command(
    "validate",
    epilog=examples(
        "eventcore plugins validate plugins/my-plugin",
        "eventcore plugins validate plugins/my-plugin --strict",
        "eventcore plugins validate",
    ),
)
@click.argument("path", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--strict", is_flag=True, help="Also ask for README, tests, licence, type hints, and no dangerous calls.")
@face
def validate(path: Path | None, strict: bool, as_json: bool) -> None:
    """Check manifests and the files they name, without running anything.

    PATH is a plugin, its manifest, or a folder of plugins, and needs no home; default the plugin in the current folder,
    else all of the home. Ends with 1 if one has errors.
    """
    from eventcore.cli.checking import print_reports
    from eventcore.cli.session import find_home
    from eventcore.home.discovery import MANIFESTS

    if path is None:
        here = Path()
        path = here if any((here / name).is_file() for name in MANIFESTS) else find_home().plugins
    if not print_reports(list(_checked(path, strict)), "plugin", path, as_json):
        raise click.exceptions.Exit(FAILED)


def _checked(path: Path, strict: bool) -> Iterator[dict[str, Any]]:
    from eventcore.cli.surroundings import surroundings
    from eventcore.home.discovery import find_plugins

    around = surroundings([])
    if path.is_file():
        yield _report(path, None, around, strict)
        return
    slugs: dict[str, str] = {}
    for found in find_plugins([path]):
        if found.problem is not None:
            yield {"path": str(found.path), "name": found.path.name, "problems": [found.problem.as_dict()]}
            continue
        report = _report(found.manifest, found.category, around, strict)
        slug = (report.get("manifest") or {}).get("slug")
        if slug and (other := slugs.setdefault(slug, report["path"])) != report["path"]:
            message = f"{other} has the same name, {slug}; rename one of them"
            report["problems"].append(
                {"file": report["path"], "line": None, "key": "name", "message": message, "severity": "error"}
            )
        yield report


def _report(file: Path, category: str | None, around: Surroundings, strict: bool) -> dict[str, Any]:
    from eventcore.cli.surroundings import chained
    from eventcore.kernel.errors import InvalidManifest
    from eventcore.plugins.entry_scan import scan_entry
    from eventcore.plugins.manifest import check_folder, read_manifest
    from eventcore.plugins.strict import strict as asked_of

    report: dict[str, Any] = {"path": str(file), "name": file.absolute().parent.name, "problems": []}
    try:
        manifest = read_manifest(file, category=category)
    except InvalidManifest as error:
        report["problems"] = [problem.as_dict() for problem in error.problems]
        return report
    chain = chained(manifest, around)
    problems = [*manifest.warnings, *check_folder(manifest), *scan_entry(manifest), *([chain] if chain else [])]
    if strict:
        problems += asked_of(manifest)
    report["problems"] = [problem.as_dict() for problem in problems]
    return {**report, "name": manifest.name, "manifest": manifest.model_dump(mode="json", exclude={"warnings"})}
