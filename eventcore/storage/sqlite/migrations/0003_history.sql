-- Version 3: foreign CloudEvents, hidden step events, the index for time, and text search that follows behind.

ALTER TABLE events ADD COLUMN ce_type TEXT;
ALTER TABLE events ADD COLUMN raw_extensions BLOB;
ALTER TABLE journal ADD COLUMN hidden INTEGER NOT NULL DEFAULT 0;

CREATE INDEX events_by_time ON events (at);
CREATE INDEX journal_by_time ON journal (at) WHERE hidden = 0;
DROP INDEX journal_by_type;
CREATE INDEX journal_by_type ON journal (tenant, type) WHERE hidden = 0;

-- Which log entries hold which three characters in a row. It says where to look; `holds_words` then decides.
CREATE VIRTUAL TABLE search USING fts5(
    text, content='', columnsize=0, detail=none, tokenize='trigram case_sensitive 1'
);

INSERT INTO meta (name, value) VALUES ('search_position', 0);
