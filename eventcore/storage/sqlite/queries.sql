-- Every statement of the SQLite store. `-- name:` starts one; the comment under it says what it is for.
-- Words in {braces} are filled in by `history.py` with fragments from this package, never with anything from outside.

-- name: begin
-- A group of commits, and everything else that writes. IMMEDIATE: wait for another process here, not half-way.
BEGIN IMMEDIATE;

-- name: begin_read
-- Reads that take more than one statement see one state of the database.
BEGIN;

-- name: commit
-- Makes a group durable.
COMMIT;

-- name: rollback
-- Drops what a failed transaction wrote.
ROLLBACK;

-- name: last_position
-- The newest log position. The floor holds where the newest rows were removed.
SELECT max(
    ifnull((SELECT max(position) FROM events), 0),
    ifnull((SELECT max(position) FROM journal), 0),
    (SELECT value FROM meta WHERE name = 'position_floor')
);

-- name: insert_event
-- One log entry that is no step event.
INSERT INTO events (position, id, type, source, at, raw, tenant, actor, subject, key, run, correlation_id, causation_id,
                    hops, traceparent, idempotency_key, schema_version, path, ce_type, raw_extensions, blob)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: put_blob
-- A payload that is too large for the log. Two events may have the same one.
INSERT INTO blobs (tenant, hash, raw) VALUES (?, ?, ?) ON CONFLICT DO NOTHING;

-- name: blob
-- A payload by its hash.
SELECT raw FROM blobs WHERE tenant = ? AND hash = ?;

-- name: blobs_at
-- The blobs of events that are about to be removed.
SELECT DISTINCT tenant, blob FROM events
WHERE position IN (SELECT value FROM json_each(?)) AND blob IS NOT NULL;

-- name: delete_blob
-- Retention of a blob that no event names any more.
DELETE FROM blobs WHERE tenant = :tenant AND hash = :hash
AND NOT EXISTS (SELECT 1 FROM events WHERE events.tenant = :tenant AND events.blob = :hash);

-- name: insert_journal
-- One step event.
INSERT INTO journal (position, id, type, source, at, raw, tenant, actor, subject, key, run, correlation_id, causation_id,
                     hops, traceparent, idempotency_key, schema_version, path, attempt)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: event_by_id
-- Foreign ids may repeat over sources and tenants; the oldest is meant.
SELECT position, id, type, source, at, raw, tenant, actor, subject, key, run, correlation_id, causation_id, hops,
       traceparent, idempotency_key, schema_version, path, ce_type, raw_extensions, blob
FROM events WHERE id = :id AND (:tenant IS NULL OR tenant = :tenant) AND (:source IS NULL OR source = :source)
UNION ALL
SELECT position, id, type, source, at, raw, tenant, actor, subject, key, run, correlation_id, causation_id, hops,
       traceparent, idempotency_key, schema_version, path, NULL, NULL, NULL
FROM journal WHERE id = :id AND (:tenant IS NULL OR tenant = :tenant) AND (:source IS NULL OR source = :source)
ORDER BY 1 LIMIT 1;

-- name: journal_of_run
-- What recovery reads.
SELECT position, id, type, source, at, raw, tenant, actor, subject, key, run, correlation_id, causation_id, hops,
       traceparent, idempotency_key, schema_version, path, attempt
FROM journal WHERE run = ? ORDER BY position;

-- name: snapshot_of_run
-- Where recovery may begin to read.
SELECT run, tenant, position, count, format, reader, digest, raw FROM snapshots WHERE run = ?;

-- name: journal_after
-- What it then has to read.
SELECT position, id, type, source, at, raw, tenant, actor, subject, key, run, correlation_id, causation_id, hops,
       traceparent, idempotency_key, schema_version, path, attempt
FROM journal WHERE run = ? AND position > ? ORDER BY position;

-- name: put_snapshot
-- What a run has come to, in place of what it had come to before.
INSERT OR REPLACE INTO snapshots (run, tenant, position, count, format, reader, digest, raw)
VALUES (?, ?, ?, ?, ?, ?, ?, ?);

-- name: delete_snapshot
-- A run that is over, or gone.
DELETE FROM snapshots WHERE run = ?;

-- name: history_arm
-- One arm of a page of history: a table, and where it helps a tenant and type. The page is the merge of its arms.
SELECT position, id, type, source, at, raw, tenant, actor, subject, key, run, correlation_id, causation_id, hops,
       traceparent, idempotency_key, schema_version, path, {foreign}
FROM {table} WHERE {conditions} ORDER BY position {order} LIMIT :limit;

-- name: types_of_tenant
-- The types a tenant has in a table, by jumping from one to the next in the index instead of reading all of it.
WITH RECURSIVE found (type) AS (
    SELECT min(type) FROM {table} WHERE {shown} AND tenant = :tenant
    UNION ALL
    SELECT (SELECT min(type) FROM {table} WHERE {shown} AND tenant = :tenant AND type > found.type)
    FROM found WHERE found.type IS NOT NULL
)
SELECT type FROM found WHERE type IS NOT NULL LIMIT :most;

-- name: tenants
-- The tenants of a table, in the same way.
WITH RECURSIVE found (tenant) AS (
    SELECT min(tenant) FROM {table} WHERE {shown}
    UNION ALL
    SELECT (SELECT min(tenant) FROM {table} WHERE {shown} AND tenant > found.tenant) FROM found WHERE found.tenant IS NOT NULL
)
SELECT tenant FROM found WHERE tenant IS NOT NULL LIMIT :most;

-- name: count_in_time
-- Whether a stretch of time is so short that its index is the best way; counts no further than it must.
SELECT count(*) FROM (
    SELECT 1 FROM {table} INDEXED BY {table}_by_time WHERE {shown} AND {conditions} LIMIT :most
);

-- name: counts
-- How many events there are, by a field and a stretch of time.
SELECT {by}, CAST(at / :every AS INTEGER), count(*) FROM {table} WHERE {conditions} GROUP BY 1, 2;

-- name: search_position
-- How far the text search has come.
SELECT value FROM meta WHERE name = 'search_position';

-- name: move_search
-- It has come further.
UPDATE meta SET value = ? WHERE name = 'search_position';

-- name: next_to_search
-- What comes after it.
SELECT position, type, subject, actor, raw FROM events WHERE position > :after
UNION ALL
SELECT position, type, subject, actor, raw FROM journal WHERE position > :after AND hidden = 0
ORDER BY 1 LIMIT :limit;

-- name: insert_search
-- One log entry.
INSERT INTO search (rowid, text) VALUES (?, ?);

-- name: delete_search
-- A contentless index forgets what it is told again.
INSERT INTO search (search, rowid, text) VALUES ('delete', ?, ?);

-- name: prunable
-- What retention may remove: not what a cursor has not passed, what waits for delivery, or what a live run has.
SELECT {what} FROM {table}
WHERE {conditions}
  AND position <= ifnull((SELECT min(c.position) FROM cursors c WHERE c.tenant = {table}.tenant), 9e18)
  AND position NOT IN (SELECT position FROM deliveries)
  AND position NOT IN (SELECT position FROM dead_letters)
  AND (run IS NULL OR run NOT IN (SELECT id FROM runs WHERE live = 1))
ORDER BY {oldest} LIMIT :limit;

-- name: delete_event
-- Retention of events.
DELETE FROM events WHERE position = ?;

-- name: hide_step
-- Retention of step events: the journal keeps its row.
UPDATE journal SET hidden = 1 WHERE position = ?;

-- name: prunable_runs
-- Finished runs that retention may remove.
SELECT {what} FROM runs
WHERE live = 0 AND updated < :before AND (:tenant IS NULL OR tenant = :tenant)
  AND NOT EXISTS (
    SELECT 1 FROM runs parent
    WHERE parent.id = substr(runs.parent, 1, instr(runs.parent, '/') - 1) AND parent.live = 1)
  AND NOT EXISTS (
    SELECT 1 FROM journal WHERE run = runs.id AND (
      position > ifnull((SELECT min(c.position) FROM cursors c WHERE c.tenant = journal.tenant), 9e18)
      OR position IN (SELECT position FROM deliveries)
      OR position IN (SELECT position FROM dead_letters)))
ORDER BY updated LIMIT :limit;

-- name: searchable_entries
-- What the text index may know of a run.
SELECT position, type, subject, actor, raw FROM journal WHERE run = ?;

-- name: delete_entries
-- A run's journal.
DELETE FROM journal WHERE run = ?;

-- name: delete_run
-- A run's head row.
DELETE FROM runs WHERE id = ?;

-- name: delete_definitions
-- What no run is pinned to any more.
DELETE FROM definitions WHERE created < ? AND hash NOT IN (SELECT definition FROM runs);

-- name: raise_floor
-- No position is given twice, even if the newest rows went.
UPDATE meta SET value = max(value, ?) WHERE name = 'position_floor';

-- name: forget_keys
-- Idempotency keys that have expired.
DELETE FROM keys WHERE expires <= ?;

-- name: size
-- Bytes in use.
SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size;

-- name: run_heads
-- What the guards of a group ask about its runs, in one go.
SELECT id, version, fence, live FROM runs WHERE id IN (SELECT value FROM json_each(?));

-- name: run_head
-- The same for one run.
SELECT version, fence, live FROM runs WHERE id = ?;

-- name: insert_run
-- A new run.
INSERT INTO runs (id, tenant, slug, definition, status, raw_inputs, actor, roles, created, updated, version, raw_output,
                  raw_error, correlation_id, causation_id, hops, chain, traceparent, trigger_id, raw_trigger_event,
                  parent, limit_key, owner, fence, lease_until, live)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: move_run
-- A change of a run's head row that leaves it live, or not, as it was. Does not touch the index of live runs.
UPDATE runs SET status = ?, version = ?, updated = ?, raw_output = ?, raw_error = ? WHERE id = ?;

-- name: end_run
-- A change that ends a run, or brings it back to life.
UPDATE runs SET status = ?, version = ?, updated = ?, raw_output = ?, raw_error = ?, live = ? WHERE id = ?;

-- name: live_runs
-- How many runs take up a slot.
SELECT count(*) FROM runs
WHERE live = 1 AND status IN ('running', 'waiting')
  AND tenant = :tenant AND slug = :slug AND (:limit_key IS NULL OR limit_key = :limit_key);

-- name: run_by_id
-- One run.
SELECT id, tenant, slug, definition, status, raw_inputs, actor, roles, created, updated, version, raw_output, raw_error,
       correlation_id, causation_id, hops, chain, traceparent, trigger_id, raw_trigger_event, parent, limit_key, owner,
       fence, lease_until
FROM runs WHERE id = ?;

-- name: runs_page
-- A page of runs, newest first; ids sort by time.
SELECT id, tenant, slug, definition, status, raw_inputs, actor, roles, created, updated, version, raw_output, raw_error,
       correlation_id, causation_id, hops, chain, traceparent, trigger_id, raw_trigger_event, parent, limit_key, owner,
       fence, lease_until
FROM runs {index} WHERE {conditions} ORDER BY id DESC LIMIT :limit;

-- name: claimable_runs
-- Live runs that nobody drives.
SELECT id, tenant, slug, definition, status, raw_inputs, actor, roles, created, updated, version, raw_output, raw_error,
       correlation_id, causation_id, hops, chain, traceparent, trigger_id, raw_trigger_event, parent, limit_key, owner,
       fence, lease_until
FROM runs
WHERE live = 1 AND status <> 'paused'
  AND (owner IS NULL OR (owner <> :owner AND lease_until <= :now))
ORDER BY id LIMIT :limit;

-- name: claim_run
-- The claim itself; runs in the transaction of `claimable_runs`.
UPDATE runs SET owner = ?, fence = ?, lease_until = ? WHERE id = ?;

-- name: claimable_run
-- One run, in whatever status, unless another engine drives it.
SELECT id, tenant, slug, definition, status, raw_inputs, actor, roles, created, updated, version, raw_output, raw_error,
       correlation_id, causation_id, hops, chain, traceparent, trigger_id, raw_trigger_event, parent, limit_key, owner,
       fence, lease_until
FROM runs WHERE id = :run AND (owner IS NULL OR owner = :owner OR lease_until <= :now);

-- name: renew_runs
-- A longer lease for everything an owner drives.
UPDATE runs SET lease_until = :until
WHERE live = 1 AND owner = :owner;

-- name: release_runs
-- A clean stop.
UPDATE runs SET owner = NULL, lease_until = 0 WHERE owner = :owner;

-- name: put_definition
-- A definition, by content.
INSERT OR REPLACE INTO definitions (hash, tenant, slug, raw, created) VALUES (?, ?, ?, ?, ?);

-- name: definition
-- One definition.
SELECT hash, tenant, slug, raw, created FROM definitions WHERE hash = ?;

-- name: put_timer
-- A timer, new or moved.
INSERT OR REPLACE INTO timers (id, tenant, due, run, raw) VALUES (?, ?, ?, ?, ?);

-- name: delete_timer
-- A timer that went off or is not needed any more.
DELETE FROM timers WHERE id = ?;

-- name: due_timers
-- What should have gone off by now.
SELECT id, tenant, due, run, raw FROM timers WHERE due <= ? ORDER BY due, id LIMIT ?;

-- name: next_timer
-- When to look again.
SELECT min(due) FROM timers;

-- name: put_listening
-- A step that waits for an event.
INSERT OR REPLACE INTO listening (id, tenant, run, path, event, raw) VALUES (?, ?, ?, ?, ?, ?);

-- name: delete_listening
-- A step that does so no longer.
DELETE FROM listening WHERE id = ?;

-- name: listening
-- What an engine that begins has to know of.
SELECT id, tenant, run, path, event, raw FROM listening WHERE id > ? ORDER BY id LIMIT ?;

-- name: put_key
-- An idempotency key; that no living one is replaced was checked before.
INSERT OR REPLACE INTO keys (tenant, scope, key, digest, ref, expires) VALUES (?, ?, ?, ?, ?, ?);

-- name: key_expiry
-- What the guard asks.
SELECT expires FROM keys WHERE tenant = ? AND scope = ? AND key = ?;

-- name: live_key
-- A key that has not expired.
SELECT tenant, scope, key, digest, ref, expires FROM keys WHERE tenant = ? AND scope = ? AND key = ? AND expires > ?;

-- name: put_cursor
-- How far a subscription has come.
INSERT OR REPLACE INTO cursors (tenant, name, position) VALUES (?, ?, ?);

-- name: cursor
-- One cursor.
SELECT tenant, name, position FROM cursors WHERE tenant = ? AND name = ?;

-- name: cursors
-- Every durable subscription of a tenant.
SELECT tenant, name, position FROM cursors WHERE tenant = ? ORDER BY name;

-- name: forget_cursor
-- A durable subscription that nobody holds is given up.
DELETE FROM cursors WHERE tenant = :tenant AND name = :name AND NOT EXISTS (
  SELECT 1 FROM cursor_claims c
  WHERE c.tenant = :tenant AND c.name = :name AND c.owner IS NOT NULL AND c.lease_until > :now);

-- name: forget_deliveries
-- What was open for it, and what was settled out of order.
DELETE FROM deliveries WHERE tenant = :tenant AND subscription = :name;

-- name: begin_cursor
-- Where a new subscription begins; one that was there stays where it is.
INSERT OR IGNORE INTO cursors (tenant, name, position) VALUES (?, ?, ?);

-- name: claim_cursor
-- Takes a subscription that nobody holds, or whose holder's lease has ended; no row comes back if somebody does.
INSERT INTO cursor_claims (tenant, name, owner, fence, lease_until) VALUES (:tenant, :name, :owner, 1, :until)
ON CONFLICT (tenant, name) DO UPDATE
SET owner = excluded.owner, fence = fence + 1, lease_until = excluded.lease_until
WHERE owner IS NULL OR owner = excluded.owner OR lease_until <= :now
RETURNING fence;

-- name: cursor_fence
-- What the guard asks.
SELECT fence FROM cursor_claims WHERE tenant = ? AND name = ? AND owner IS NOT NULL;

-- name: release_cursor
-- Gives up one subscription.
UPDATE cursor_claims SET owner = NULL, lease_until = 0 WHERE tenant = :tenant AND name = :name AND fence = :fence;

-- name: renew_cursors
-- A longer lease for every subscription an owner consumes.
UPDATE cursor_claims SET lease_until = :until WHERE owner = :owner;

-- name: release_cursors
-- A clean stop.
UPDATE cursor_claims SET owner = NULL, lease_until = 0 WHERE owner = :owner;

-- name: put_delivery
-- A delivery that is pending, parked, or settled above its cursor.
INSERT OR REPLACE INTO deliveries (tenant, subscription, position, state, attempt, next_at) VALUES (?, ?, ?, ?, ?, ?);

-- name: delete_delivery
-- A delivery that the cursor has passed.
DELETE FROM deliveries WHERE tenant = ? AND subscription = ? AND position = ?;

-- name: deliveries
-- What a subscription has in hand.
SELECT tenant, subscription, position, state, attempt, next_at FROM deliveries
WHERE tenant = ? AND subscription = ? ORDER BY position LIMIT ?;

-- name: put_dead_letter
-- An event that was given up on.
INSERT OR REPLACE INTO dead_letters (id, tenant, subscription, position, reason, attempts, at)
VALUES (?, ?, ?, ?, ?, ?, ?);

-- name: delete_dead_letter
-- A dead letter that was redriven or dropped.
DELETE FROM dead_letters WHERE id = ?;

-- name: dead_letters
-- A tenant's dead letters, newest first.
SELECT id, tenant, subscription, position, reason, attempts, at FROM dead_letters
WHERE tenant = ? ORDER BY at DESC, id DESC LIMIT ?;

-- name: dead_letter
-- One dead letter.
SELECT id, tenant, subscription, position, reason, attempts, at FROM dead_letters WHERE id = ?;

-- name: put_plugin_state
-- What was decided about a plugin.
INSERT OR REPLACE INTO plugin_states (tenant, plugin, state, reason, at, content_hash, raw_registered)
VALUES (?, ?, ?, ?, ?, ?, ?);

-- name: plugin_states
-- All of a tenant's.
SELECT tenant, plugin, state, reason, at, content_hash, raw_registered FROM plugin_states
WHERE tenant = ? ORDER BY plugin;

-- name: put_package
-- What was installed or uninstalled.
INSERT OR REPLACE INTO packages (tenant, plugin, state, operation, version, folder, source, digest, at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: packages
-- All of a tenant's.
SELECT tenant, plugin, state, operation, version, folder, source, digest, at FROM packages
WHERE tenant = ? ORDER BY plugin;

-- name: put_plugin_setting
-- A setting that was set at run time.
INSERT OR REPLACE INTO plugin_settings (tenant, plugin, key, raw, at) VALUES (?, ?, ?, ?, ?);

-- name: delete_plugin_setting
-- It counts no more; the layer beneath it does.
DELETE FROM plugin_settings WHERE tenant = ? AND plugin = ? AND key = ?;

-- name: plugin_settings
-- All of a tenant's.
SELECT tenant, plugin, key, raw, at FROM plugin_settings WHERE tenant = ? ORDER BY plugin, key;

-- name: put_plugin_hook
-- A function of a plugin, hooked to an event.
INSERT OR REPLACE INTO plugin_hooks (tenant, plugin, event, function) VALUES (?, ?, ?, ?);

-- name: delete_plugin_hook
-- One hook.
DELETE FROM plugin_hooks WHERE tenant = ? AND plugin = ? AND event = ? AND function = ?;

-- name: plugin_hooks
-- All of a tenant's.
SELECT tenant, plugin, event, function FROM plugin_hooks WHERE tenant = ? ORDER BY plugin, event, function;

-- name: put_memory
-- One remembered result. Not INSERT OR REPLACE: the row keeps its place, by which the text index knows it.
INSERT INTO memory (id, tenant, owner, query, raw_result, at, model, vector) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET tenant = excluded.tenant, owner = excluded.owner, query = excluded.query,
    raw_result = excluded.raw_result, at = excluded.at, model = excluded.model, vector = excluded.vector;

-- name: delete_memory
-- One that is forgotten.
DELETE FROM memory WHERE id = ?;

-- name: memories
-- A tenant's memories, newest first; `holds_words` is a function of ours, the text index narrows down.
SELECT id, tenant, owner, query, raw_result, at, model, vector FROM memory
WHERE tenant = :tenant
    AND (:owner IS NULL OR owner = :owner)
    AND (:until IS NULL OR at < :until)
    AND (:search IS NULL OR rowid IN (SELECT rowid FROM memory_search WHERE memory_search MATCH :search))
    AND (:words = '' OR holds_words(:words, query, raw_result))
ORDER BY at DESC, id DESC LIMIT :limit;

-- name: vectors
-- What a tenant's newest memories mean to a model.
SELECT id, vector FROM memory WHERE tenant = :tenant AND model = :model AND vector IS NOT NULL
ORDER BY at DESC, id DESC LIMIT :among;

-- name: memory_by_id
-- One memory.
SELECT id, tenant, owner, query, raw_result, at, model, vector FROM memory WHERE id = ?;

-- name: unmeasured
-- Memories that a model was not asked about: those of the models before it, then after it, each by the index.
SELECT * FROM (
    SELECT id, tenant, owner, query, raw_result, at, model, vector FROM memory
    WHERE model < :model ORDER BY model, at, id LIMIT :limit
) UNION ALL SELECT * FROM (
    SELECT id, tenant, owner, query, raw_result, at, model, vector FROM memory
    WHERE model > :model ORDER BY model, at, id LIMIT :limit
) LIMIT :limit;

-- name: oldest_memories
-- What a tenant forgets first.
SELECT id, tenant, owner, query, raw_result, at, model, vector FROM memory
WHERE tenant = ? ORDER BY at, id LIMIT ?;

-- name: memory_owners
-- How much each owner of a tenant has remembered.
SELECT owner, count(*), max(at) FROM memory WHERE tenant = ? GROUP BY owner ORDER BY owner;

-- name: put_schedule
-- Something planned.
INSERT OR REPLACE INTO schedules (id, tenant, due, raw, owner) VALUES (?, ?, ?, ?, ?);

-- name: delete_schedule
-- A plan that is over.
DELETE FROM schedules WHERE id = ?;

-- name: schedule_due
-- When it is due, for a guard.
SELECT due FROM schedules WHERE id = ?;

-- name: is_listening
-- Whether a step still waits, for a guard.
SELECT 1 FROM listening WHERE id = ?;

-- name: due_schedules
-- Of workflows, what should have happened by now.
SELECT id, tenant, due, raw, owner FROM schedules WHERE due <= ? AND owner = '' ORDER BY due, id LIMIT ?;

-- name: due_plans
-- Of plugins, what should have happened by now.
SELECT id, tenant, due, raw, owner FROM schedules
WHERE due <= :due AND owner != ''
    AND (:tenant IS NULL OR tenant = :tenant) AND (:owner IS NULL OR owner = :owner)
ORDER BY due, id LIMIT :limit;

-- name: insert_audit
-- One entry; never changed.
INSERT INTO audit (id, tenant, at, actor, action, target, raw_old, raw_new) VALUES (?, ?, ?, ?, ?, ?, ?, ?);

-- name: audit
-- Newest first.
SELECT id, tenant, at, actor, action, target, raw_old, raw_new FROM audit
WHERE :tenant IS NULL OR tenant = :tenant ORDER BY seq DESC LIMIT :limit;
