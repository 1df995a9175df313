-- Version 4: payloads too large for the log, by their hash.

ALTER TABLE events ADD COLUMN blob TEXT;
CREATE INDEX events_by_blob ON events (tenant, blob) WHERE blob IS NOT NULL;

-- A row is there as long as an event names it.
CREATE TABLE blobs (
    tenant TEXT NOT NULL,
    hash TEXT NOT NULL,
    raw BLOB NOT NULL,
    PRIMARY KEY (tenant, hash)
) STRICT, WITHOUT ROWID;
