-- The coverage ledger: which windows have been shipped whole. Append-only; what it does not cover is the work left.
CREATE TABLE IF NOT EXISTS openai_audit_coverage{on_cluster}
(
    workspaceID String COMMENT 'Workspace of the source',
    sourceID String COMMENT 'Source that was read',
    lane String COMMENT 'Lane that was read: organization or tenant',
    windowStart DateTime COMMENT 'First second of the window of effective_at (UTC), included',
    windowEnd DateTime COMMENT 'Last second of the window (UTC), not included',
    drainedAt DateTime COMMENT 'When the read of the window began (UTC): later events may be missing',
    events UInt64 COMMENT 'Events read from the window',
    runID String COMMENT 'Run that read it'
)
ENGINE = {engine:MergeTree}
ORDER BY (workspaceID, sourceID, lane, windowStart, windowEnd)
SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'Coverage ledger: windows whose every event is in the database';
