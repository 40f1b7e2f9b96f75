-- Findings that somebody has looked at. The findings stay as they are.
CREATE TABLE IF NOT EXISTS openai_audit_findings_acknowledged{on_cluster}
(
    findingID String COMMENT 'Id of the finding',
    acknowledgedAt DateTime64(3) COMMENT 'When (UTC)',
    acknowledgedBy String COMMENT 'Who, as they said',
    note String COMMENT 'What they found'
)
ENGINE = {engine:ReplacingMergeTree}
ORDER BY findingID
SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'Findings that were acknowledged'
