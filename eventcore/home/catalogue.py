"""Where the catalogue lies: the hooks, plugins and workflows that ship with EventCore."""

from __future__ import annotations

import tomllib
from pathlib import Path

from eventcore.kernel.errors import HomeError

DISTRIBUTION = "eventcore-engine"


def catalogue_root() -> Path:
    """The folder with the shipped `hooks/`, `plugins/` and `workflows/`; any of the three may be missing.

    In an installed wheel that is `eventcore/_catalogue`; in a source checkout, the repository itself.

    Raises:
        HomeError: neither is there; the installation is damaged.
    """
    return locate(Path(__file__).resolve().parents[1])


def locate(package: Path) -> Path:
    """The catalogue that belongs to the `eventcore` package in this folder; see `catalogue_root`."""
    inside = package / "_catalogue"
    if inside.is_dir():
        return inside
    # The folder beside an installed package is site-packages, and whatever `plugins/` lies there is somebody else's.
    if _names_us(package.parent / "pyproject.toml"):
        return package.parent
    raise HomeError(f"no catalogue belongs to {package}", hint=f"pip install --force-reinstall {DISTRIBUTION}")


def _names_us(project: Path) -> bool:
    try:
        with project.open("rb") as file:
            metadata = tomllib.load(file).get("project")
    except (OSError, ValueError):
        return False
    return isinstance(metadata, dict) and metadata.get("name") == DISTRIBUTION
