-- The log of the detections: one row per run, rule and window.
CREATE TABLE IF NOT EXISTS openai_audit_detections{on_cluster}
(
    runID String COMMENT 'Id of the run, also in its log lines',
    rule String COMMENT 'Id of the rule',
    windowStart DateTime COMMENT 'First second of receivedAt that was looked at (UTC), included',
    windowEnd DateTime COMMENT 'Last second of it (UTC), not included',
    finishedAt DateTime COMMENT 'When it was done (UTC)',
    live Bool COMMENT 'False for a backtest, which moves no watermark and sends nothing',
    status String COMMENT 'ok or failed',
    findings UInt64 COMMENT 'Findings it added to',
    events UInt64 COMMENT 'Events that prove them',
    seconds Float64 COMMENT 'Time the query took, in seconds',
    error String COMMENT 'What went wrong, empty when nothing did',
    version String COMMENT 'Version of the shipper'
)
ENGINE = {engine:MergeTree}
ORDER BY (rule, finishedAt, windowStart)
TTL finishedAt + toIntervalDay(90)
SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'Log of the detections';
-- How far each rule has come: it has looked at all of receivedAt before this. Never goes back.
CREATE TABLE IF NOT EXISTS openai_audit_watermarks{on_cluster}
(
    rule String COMMENT 'Id of the rule',
    watermark SimpleAggregateFunction(max, DateTime) COMMENT 'End of its last finished window (UTC), not included'
)
ENGINE = {engine:AggregatingMergeTree}
ORDER BY rule
COMMENT 'Watermarks of the detections';
