-- The schema of a new database. A test holds it equal to what the migrations make.
--
-- Times are seconds since the epoch (REAL); `raw...` columns are JSON as UTF-8 bytes. Every log position belongs to one
-- row of `events` or of `journal`. Whatever removes rows from the end of either must raise `position_floor` in `meta`,
-- so that no position is ever given twice.

CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value ANY
) STRICT, WITHOUT ROWID;

INSERT INTO meta (name, value) VALUES ('position_floor', 0);
INSERT INTO meta (name, value) VALUES ('search_position', 0);

-- Which log entries hold which three characters in a row. It says where to look; `holds_words` then decides.
CREATE VIRTUAL TABLE search USING fts5(
    text, content='', columnsize=0, detail=none, tokenize='trigram case_sensitive 1'
);

CREATE TABLE events (
    position INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    type TEXT NOT NULL,
    source TEXT NOT NULL,
    at REAL NOT NULL,
    raw BLOB NOT NULL,
    tenant TEXT NOT NULL,
    actor TEXT NOT NULL,
    subject TEXT,
    key TEXT,
    run TEXT,
    correlation_id TEXT NOT NULL,
    causation_id TEXT,
    hops INTEGER NOT NULL,
    traceparent TEXT,
    idempotency_key TEXT,
    schema_version INTEGER NOT NULL,
    path TEXT
, ce_type TEXT, raw_extensions BLOB, blob TEXT) STRICT;

CREATE INDEX events_by_time ON events (at);
CREATE INDEX events_by_type ON events (tenant, type);
CREATE INDEX events_by_id ON events (id);
CREATE INDEX events_by_correlation ON events (correlation_id);
CREATE INDEX events_by_run ON events (run) WHERE run IS NOT NULL;
CREATE INDEX events_by_blob ON events (tenant, blob) WHERE blob IS NOT NULL;

-- Payloads too large for the log, by their hash. A row is there as long as an event names it.
CREATE TABLE blobs (
    tenant TEXT NOT NULL,
    hash TEXT NOT NULL,
    raw BLOB NOT NULL,
    PRIMARY KEY (tenant, hash)
) STRICT, WITHOUT ROWID;

-- A row is a step event of the history and an entry of its run's journal at once. A hidden one has left the history.
CREATE TABLE journal (
    position INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    type TEXT NOT NULL,
    source TEXT NOT NULL,
    at REAL NOT NULL,
    raw BLOB NOT NULL,
    tenant TEXT NOT NULL,
    actor TEXT NOT NULL,
    subject TEXT,
    key TEXT,
    run TEXT,
    correlation_id TEXT NOT NULL,
    causation_id TEXT,
    hops INTEGER NOT NULL,
    traceparent TEXT,
    idempotency_key TEXT,
    schema_version INTEGER NOT NULL,
    path TEXT,
    attempt INTEGER NOT NULL
, hidden INTEGER NOT NULL DEFAULT 0) STRICT;

CREATE INDEX journal_by_type ON journal (tenant, type) WHERE hidden = 0;
CREATE INDEX journal_by_time ON journal (at) WHERE hidden = 0;
CREATE INDEX journal_by_id ON journal (id);
CREATE INDEX journal_by_correlation ON journal (correlation_id);
CREATE INDEX journal_by_run ON journal (run);

CREATE TABLE runs (
    id TEXT PRIMARY KEY NOT NULL,
    tenant TEXT NOT NULL,
    slug TEXT NOT NULL,
    definition TEXT NOT NULL,
    status TEXT NOT NULL,
    raw_inputs BLOB NOT NULL,
    actor TEXT NOT NULL,
    roles TEXT NOT NULL,
    created REAL NOT NULL,
    updated REAL NOT NULL,
    version INTEGER NOT NULL,
    raw_output BLOB,
    raw_error BLOB,
    correlation_id TEXT NOT NULL,
    causation_id TEXT,
    hops INTEGER NOT NULL,
    chain TEXT NOT NULL,
    traceparent TEXT,
    trigger_id TEXT,
    raw_trigger_event BLOB,
    parent TEXT,
    limit_key TEXT,
    owner TEXT,
    fence INTEGER NOT NULL,
    lease_until REAL NOT NULL,
    live INTEGER NOT NULL
) STRICT;

CREATE INDEX runs_by_slug ON runs (tenant, slug, id);
-- `live` says whether the status is one of the live ones. A condition on the status itself would have every move of a
-- run rewrite this index.
CREATE INDEX runs_live ON runs (tenant, slug, limit_key) WHERE live = 1;
CREATE INDEX runs_over ON runs (updated) WHERE live = 0;
CREATE INDEX runs_by_tenant ON runs (tenant, id);
CREATE INDEX runs_ended ON runs (tenant, status, id) WHERE live = 0;

CREATE TABLE definitions (
    hash TEXT PRIMARY KEY NOT NULL,
    tenant TEXT NOT NULL,
    slug TEXT NOT NULL,
    raw BLOB NOT NULL,
    created REAL NOT NULL
) STRICT;

CREATE TABLE timers (
    id TEXT PRIMARY KEY NOT NULL,
    tenant TEXT NOT NULL,
    due REAL NOT NULL,
    run TEXT NOT NULL,
    raw BLOB NOT NULL
) STRICT;

CREATE INDEX timers_by_due ON timers (due, id);

CREATE TABLE keys (
    tenant TEXT NOT NULL,
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    digest TEXT NOT NULL,
    ref TEXT NOT NULL,
    expires REAL NOT NULL,
    PRIMARY KEY (tenant, scope, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE cursors (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (tenant, name)
) STRICT, WITHOUT ROWID;

-- Which engine consumes a durable subscription, under which claim, until when. Owner NULL: it was given up.
CREATE TABLE cursor_claims (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    owner TEXT,
    fence INTEGER NOT NULL,
    lease_until REAL NOT NULL,
    PRIMARY KEY (tenant, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE deliveries (
    tenant TEXT NOT NULL,
    subscription TEXT NOT NULL,
    position INTEGER NOT NULL,
    state TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    next_at REAL NOT NULL,
    PRIMARY KEY (tenant, subscription, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE dead_letters (
    id TEXT PRIMARY KEY NOT NULL,
    tenant TEXT NOT NULL,
    subscription TEXT NOT NULL,
    position INTEGER NOT NULL,
    reason TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    at REAL NOT NULL
) STRICT;

CREATE INDEX dead_letters_by_time ON dead_letters (tenant, at, id);

CREATE TABLE plugin_states (
    tenant TEXT NOT NULL,
    plugin TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT,
    at REAL NOT NULL,
    content_hash TEXT,
    raw_registered BLOB,
    PRIMARY KEY (tenant, plugin)
) STRICT;

CREATE TABLE packages (
    tenant TEXT NOT NULL,
    plugin TEXT NOT NULL,
    state TEXT NOT NULL,
    operation TEXT NOT NULL,
    version TEXT NOT NULL,
    folder TEXT NOT NULL,
    source TEXT NOT NULL,
    digest TEXT NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (tenant, plugin)
) STRICT, WITHOUT ROWID;

CREATE TABLE plugin_settings (
    tenant TEXT NOT NULL,
    plugin TEXT NOT NULL,
    key TEXT NOT NULL,
    raw BLOB NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (tenant, plugin, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE memory (
    id TEXT PRIMARY KEY NOT NULL,
    tenant TEXT NOT NULL,
    owner TEXT NOT NULL,
    query TEXT NOT NULL,
    raw_result BLOB NOT NULL,
    at REAL NOT NULL
, model TEXT NOT NULL DEFAULT '', vector BLOB) STRICT;

CREATE INDEX memory_by_time ON memory (tenant, at, id);
CREATE INDEX memory_by_model ON memory (model, at, id);

-- Which memories hold which three characters in a row. It says where to look; `holds_words` then decides.
-- `memory_text` is a function of ours: the text to search, case folded.
CREATE VIRTUAL TABLE memory_search USING fts5(
    text, content='', columnsize=0, detail=none, tokenize='trigram case_sensitive 1'
);
CREATE TRIGGER memory_added AFTER INSERT ON memory BEGIN
    INSERT INTO memory_search (rowid, text) VALUES (new.rowid, memory_text(new.query, new.raw_result));
END;
CREATE TRIGGER memory_changed AFTER UPDATE OF query, raw_result ON memory BEGIN
    INSERT INTO memory_search (memory_search, rowid, text)
    VALUES ('delete', old.rowid, memory_text(old.query, old.raw_result));
    INSERT INTO memory_search (rowid, text) VALUES (new.rowid, memory_text(new.query, new.raw_result));
END;
CREATE TRIGGER memory_removed AFTER DELETE ON memory BEGIN
    INSERT INTO memory_search (memory_search, rowid, text)
    VALUES ('delete', old.rowid, memory_text(old.query, old.raw_result));
END;

CREATE TABLE schedules (
    id TEXT PRIMARY KEY NOT NULL,
    tenant TEXT NOT NULL,
    due REAL NOT NULL,
    raw BLOB NOT NULL
, owner TEXT NOT NULL DEFAULT '') STRICT;

CREATE INDEX schedules_by_due ON schedules (due, id) WHERE owner = '';
CREATE INDEX plans_by_due ON schedules (due, id) WHERE owner != '';

CREATE TABLE audit (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    tenant TEXT NOT NULL,
    at REAL NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    raw_old BLOB,
    raw_new BLOB
) STRICT;

CREATE INDEX audit_by_tenant ON audit (tenant);

-- What a run's step listens for; kept in memory by the engine that has the run, read from here when it begins.
CREATE TABLE listening (
    id TEXT PRIMARY KEY NOT NULL,
    tenant TEXT NOT NULL,
    run TEXT NOT NULL,
    path TEXT NOT NULL,
    event TEXT NOT NULL,
    raw BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Functions of plugins that the operator hooked to events (`plugins hook`).
CREATE TABLE plugin_hooks (
    tenant TEXT NOT NULL,
    plugin TEXT NOT NULL,
    event TEXT NOT NULL,
    function TEXT NOT NULL,
    PRIMARY KEY (tenant, plugin, event, function)
) STRICT, WITHOUT ROWID;

-- What a long run has come to; at most one a run. Its journal need then be read from `position` on only.
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
