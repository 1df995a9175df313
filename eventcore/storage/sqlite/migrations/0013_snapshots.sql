-- Version 13: what long runs have come to, so that their journals need not be read from the start.

-- At most one a run.
CREATE TABLE snapshots (
    run TEXT PRIMARY KEY NOT NULL,
    tenant TEXT NOT NULL,
    position INTEGER NOT NULL,
    count INTEGER NOT NULL,
    format INTEGER NOT NULL,
    reader TEXT NOT NULL,
    digest TEXT NOT NULL,
    raw BLOB NOT NULL
) STRICT;
