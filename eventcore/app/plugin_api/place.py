"""Which engine a plugin class speaks to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from eventcore.home.layout import SETTINGS_NAME, Home


@dataclass(frozen=True, slots=True)
class Place:
    """A home, or a folder of plugins without one.

    Attributes:
        home: the home's folder, or None.
        plugins: without a home: the folder of plugins.
    """

    home: Path | None
    plugins: Path | None = None


def current() -> Place:
    """The home that EVENTCORE_HOME names, else the nearest one at or above the current folder.

    Raises:
        HomeError: there is none.
    """
    return Place(Home.find(Path.cwd(), os.environ).root)


def of_folder(folder: Path) -> Place:
    """Where the plugins of `folder` are at home: in the home whose plugin folder it is, else nowhere."""
    path = folder.expanduser().resolve()
    above = path.parent
    if (above / SETTINGS_NAME).is_file() and Home.at(above, os.environ).plugins == path:
        return Place(above)
    return Place(None, path)
