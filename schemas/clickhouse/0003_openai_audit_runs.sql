-- The run log: one row per run, source and lane.
CREATE TABLE IF NOT EXISTS openai_audit_runs{on_cluster}
(
    runID String COMMENT 'Id of the run, also in its log lines',
    command String COMMENT 'Command that was run',
    startedAt DateTime64(3) COMMENT 'When the run began (UTC)',
    finishedAt DateTime64(3) COMMENT 'When the run ended (UTC)',
    workspaceID String COMMENT 'Workspace of the source',
    sourceID String COMMENT 'Source that was read',
    lane String COMMENT 'Lane that was read: organization, tenant or archive',
    received UInt64 COMMENT 'Events received',
    inserted UInt64 COMMENT 'Events this run added to the table',
    alreadyThere UInt64 COMMENT 'Events that were in the database before, or twice in what was received',
    deadLettered UInt64 COMMENT 'Events this run added to the dead letters',
    pages UInt64 COMMENT 'Pages read',
    retries UInt64 COMMENT 'Requests made again',
    windows UInt64 COMMENT 'Windows the run set out to read',
    seconds Float64 COMMENT 'Time spent, in seconds',
    newest DateTime COMMENT 'Newest eventTime received (UTC); 1970 when none was',
    status String COMMENT 'ok, refused, failed or stopped',
    error String COMMENT 'What went wrong, empty when nothing did',
    version String COMMENT 'Version of the shipper'
)
ENGINE = {engine:MergeTree}
ORDER BY (workspaceID, sourceID, lane, startedAt, runID)
SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'Run log: what each run did, per source and lane';
