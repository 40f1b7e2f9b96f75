-- Dead letters that have become rows since. The letters themselves stay where they are, with their bytes.
CREATE TABLE IF NOT EXISTS openai_audit_dead_letters_resolved{on_cluster}
(
    workspaceID String COMMENT 'Workspace of the source',
    sourceID String COMMENT 'Source the bytes came from',
    id String COMMENT 'Id of the dead letter',
    resolvedAt DateTime COMMENT 'When its event was in the table (UTC)',
    runID String COMMENT 'Run that replayed it'
)
ENGINE = {engine:ReplacingMergeTree}
ORDER BY (workspaceID, sourceID, id)
SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'Dead letters that have become rows since';
