"""The store in a SQLite file (3.40 or newer), on asyncio."""

from eventcore.storage.sqlite.schema import restore_from
from eventcore.storage.sqlite.store import SqliteStore

__all__ = ["SqliteStore", "restore_from"]
