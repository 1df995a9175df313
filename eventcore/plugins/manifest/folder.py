"""What a manifest promises about the files beside it."""

from __future__ import annotations

import os

from eventcore.kernel.errors import Problem
from eventcore.plugins.manifest.model import PluginManifest


def check_folder(manifest: PluginManifest) -> list[Problem]:
    """Problems of a plugin's folder that its manifest alone does not show. Reads no code.

    For validation and enabling; discovery does without it.
    """
    folder = os.path.dirname(manifest.path) or "."
    problems: list[Problem] = []
    if not os.path.isfile(os.path.join(folder, manifest.entry_file)):
        key = "main" if manifest.main == manifest.entry_file else "module"
        problems.append(Problem(manifest.path, None, key, _no_entry(folder, manifest.entry_file)))
    if manifest.plugin_type == "workflow" and not os.path.isdir(os.path.join(folder, "workflows")):
        problems.append(Problem(manifest.path, None, "type", "is workflow, but there is no folder workflows/"))
    return problems


def _no_entry(folder: str, entry_file: str) -> str:
    native = [name for name in ("Cargo.toml", "src/lib.rs") if os.path.exists(os.path.join(folder, name))]
    if native or any(name.endswith((".so", ".dll", ".dylib")) for name in os.listdir(folder)):
        return (
            f"there is no {entry_file}, and native libraries are not loaded; "
            "reach native code through a Python package, a program or HTTP"
        )
    return f"there is no {entry_file} in the plugin's folder"
