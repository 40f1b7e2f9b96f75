-- What was received and could not become a row of openai_audit_logs, with its bytes and the reason.
CREATE TABLE IF NOT EXISTS openai_audit_dead_letters{on_cluster}
(
    workspaceID String COMMENT 'Workspace of the source',
    sourceID String COMMENT 'Source the bytes came from',
    lane String COMMENT 'Lane they were read in: organization, tenant or archive',
    id String COMMENT 'SHA-256 of the bytes, hexadecimal',
    receivedAt DateTime COMMENT 'When they were received (UTC)',
    reason String COMMENT 'Why they could not be a row, one of a small set of labels',
    detail String COMMENT 'The same for a person',
    raw String COMMENT 'The bytes exactly as received' CODEC(ZSTD(3)),
    runID String COMMENT 'Run that received them'
)
ENGINE = {engine:ReplacingMergeTree}
ORDER BY (workspaceID, sourceID, id)
SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'Dead letters: events that could not be a row';
