"""`ctx.db(name)`: a SQLite database that the host keeps and reads or changes for the plugin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eventcore.sdk.binding import Answer, current

Values = Sequence[Any] | Mapping[str, Any]


class Database:
    """One database. Values are None, numbers, text and bytes as `{"base64": text}`; put them in by `?` or `:name`."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def fetch(self, sql: str, values: Values = (), limit: int = 1000) -> Answer[list[dict[str, Any]]]:
        """Rows of one statement that reads, as objects; needs `database_read`.

        Args:
            limit: at most so many rows, 1 to 10,000; one more row is an error.
        """
        return current().ask("db.fetch", {"name": self.name, "sql": sql, "values": _plain(values), "limit": limit})

    def execute(self, sql: str, values: Values = ()) -> Answer[dict[str, Any]]:
        """One statement that changes; needs `database_write`. Committed at once, not with the call.

        The answer says how many rows were changed (`changed`) and the last row id (`last_id`).
        """
        return self.execute_many([(sql, values)])

    def execute_many(self, statements: Sequence[tuple[str, Values]]) -> Answer[dict[str, Any]]:
        """Several statements in one transaction, all or nothing; at most 1,000."""
        asked = [[sql, _plain(values)] for sql, values in statements]
        return current().ask("db.execute", {"name": self.name, "statements": asked})


def _plain(values: Values) -> Any:
    return dict(values) if isinstance(values, Mapping) else list(values)
