"""Text search: an index that follows behind the log, and says where to look.

FTS5 with the trigram tokenizer (SQLite 3.34) keeps, for each three characters in a row, the log entries that hold them.
It narrows a search down; `holds_words` then decides, so the result is the one that looking at every row would give.
The index is contentless: the rows are in `events` and `journal` already.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

from eventcore.storage.matching import plain_text, words_of
from eventcore.storage.sqlite.sql import SQL

#: So many three-character pieces of a word are asked for; a few name the rows well enough.
_PIECES = 8
_PIECE = 3


def candidates(text: str | None) -> str | None:
    """The FTS5 expression for entries that may hold all words of `text`; None where it has only short words."""
    words = [expression for word in words_of(text) if (expression := _either(word))]
    return " AND ".join(words) or None


def _either(spellings: Iterable[str]) -> str:
    """Entries that hold one of the spellings, as far as their pieces tell; empty if one is too short to have any."""
    wanted = [_pieces(spelling) for spelling in dict.fromkeys(spellings)]
    return f"({' OR '.join(wanted)})" if all(wanted) else ""


def _pieces(word: str) -> str:
    word = _storable(word)
    starts = range(len(word) - _PIECE + 1)
    step = max(1, -(-len(starts) // _PIECES))
    quoted = ('"' + word[at : at + _PIECE].replace('"', '""') + '"' for at in starts[::step])
    pieces = " AND ".join(dict.fromkeys(quoted))
    return f"({pieces})" if pieces else ""


def _storable(text: str) -> str:
    # FTS5 ends a text at a zero byte.
    return text.replace("\0", "\ufffd")


def _searchable(type_: str, subject: str | None, actor: str, raw: bytes) -> str:
    return _storable(f"{plain_text(type_, subject, actor)}\n{raw.decode(errors='replace')}".casefold())


def memory_text(query: str, raw: bytes) -> str:
    """What of a memory is searched."""
    return _storable(f"{query}\n{raw.decode(errors='replace')}".casefold())


def position(connection: sqlite3.Connection) -> int:
    """How far the index has come."""
    return int(connection.execute(SQL["search_position"]).fetchone()[0])


def follow(connection: sqlite3.Connection, most: int) -> int:
    """Take the next log entries into the index, in the caller's transaction; return how many there were."""
    rows: list[tuple[Any, ...]] = connection.execute(
        SQL["next_to_search"], {"after": position(connection), "limit": most}
    ).fetchall()
    if rows:
        connection.executemany(SQL["insert_search"], ((row[0], _searchable(*row[1:])) for row in rows))
        connection.execute(SQL["move_search"], (rows[-1][0],))
    return len(rows)


def forget(connection: sqlite3.Connection, rows: Iterable[tuple[Any, ...]]) -> None:
    """Take entries out of the index: rows of (position, type, subject, actor, raw)."""
    last = position(connection)
    known = [(row[0], _searchable(*row[1:])) for row in rows if row[0] <= last]
    connection.executemany(SQL["delete_search"], known)
