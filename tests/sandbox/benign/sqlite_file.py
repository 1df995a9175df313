"""A database file with a write-ahead log, and one in memory."""

import os
import sqlite3
import tempfile

EXPECTED = {"rows": [["ada", 36]], "mode": "wal", "search": ["the quick fox"]}


def run(params):
    path = os.path.join(tempfile.mkdtemp(), "data.db")
    db = sqlite3.connect(path)
    mode = db.execute("pragma journal_mode=wal").fetchone()[0]
    db.execute("create table people (name text, age int)")
    with db:
        db.execute("insert into people values (?, ?)", ("ada", 36))
    other = sqlite3.connect(path)
    rows = [list(row) for row in other.execute("select * from people")]
    memory = sqlite3.connect(":memory:")
    memory.execute("create virtual table notes using fts5(text)")
    memory.execute("insert into notes values ('the quick fox')")
    search = [row[0] for row in memory.execute("select text from notes where notes match 'quick'")]
    for one in (db, other, memory):
        one.close()
    return {"rows": rows, "mode": mode, "search": search}
