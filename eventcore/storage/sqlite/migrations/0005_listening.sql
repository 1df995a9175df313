-- Version 5: steps that wait for events, and runs by the run that started them.

-- What a run's step listens for; kept in memory by the engine that has the run, read from here when it begins.
CREATE TABLE listening (
    id TEXT PRIMARY KEY NOT NULL,
    tenant TEXT NOT NULL,
    run TEXT NOT NULL,
    path TEXT NOT NULL,
    event TEXT NOT NULL,
    raw BLOB NOT NULL
) STRICT, WITHOUT ROWID;
