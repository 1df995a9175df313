-- Version 7: plans of plugins beside the schedules of workflows; text search and vectors of memories.

-- Who planned it: a plugin's slug; empty for a trigger of a workflow.
ALTER TABLE schedules ADD COLUMN owner TEXT NOT NULL DEFAULT '';
DROP INDEX schedules_by_due;
CREATE INDEX schedules_by_due ON schedules (due, id) WHERE owner = '';
CREATE INDEX plans_by_due ON schedules (due, id) WHERE owner != '';

-- What the memory means, as 32-bit floats of length 1, by which model; NULL until it was asked.
ALTER TABLE memory ADD COLUMN model TEXT NOT NULL DEFAULT '';
ALTER TABLE memory ADD COLUMN vector BLOB;
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
INSERT INTO memory_search (rowid, text) SELECT rowid, memory_text(query, raw_result) FROM memory;
