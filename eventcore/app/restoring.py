"""Bringing a backup into an empty home."""

from __future__ import annotations

from pathlib import Path

from eventcore.app.options import sqlite_path
from eventcore.home.layout import Home
from eventcore.home.lock import OwnerLock
from eventcore.home.settings_file import read_settings
from eventcore.kernel.clock import SystemClock
from eventcore.kernel.errors import StoreError
from eventcore.storage.sqlite import restore_from


def restore_home(home: Home, source: Path) -> Path:
    """Make the database of a home of a backup; return its path. The next engine on the home goes on from there.

    Raises:
        HomeInUse: an engine runs on the home.
        StoreError: the home has a database already or keeps nothing in a file; or the backup is damaged or newer.
    """
    url = read_settings(home.settings).store.url
    if url is not None and url.startswith("memory:"):
        raise StoreError("the home keeps its events in memory", hint="set [store] url in eventcore.toml to a file")
    home.ensure_state()
    target = home.database if url is None else sqlite_path(url, home.root)
    with OwnerLock(home.lock, SystemClock()):
        try:
            restore_from(source, target)
        except OSError as error:
            raise StoreError(f"{target} cannot be written: {error.strerror}") from error
    return target
