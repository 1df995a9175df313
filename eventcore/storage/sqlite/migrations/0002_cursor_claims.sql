-- Durable subscriptions are consumed by one engine at a time.

-- Which engine consumes a durable subscription, under which claim, until when. Owner NULL: it was given up.
CREATE TABLE cursor_claims (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    owner TEXT,
    fence INTEGER NOT NULL,
    lease_until REAL NOT NULL,
    PRIMARY KEY (tenant, name)
) STRICT, WITHOUT ROWID;
