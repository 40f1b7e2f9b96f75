-- What the detections found, one row per rule, entity and bucket of time.
--
-- Runs add to a finding and never replace it: sets unite, times take the smallest or the largest. So the order of the
-- runs, a run that is repeated, and how time was cut into windows make no difference to what FINAL shows. The columns
-- with anyLast say how it was found by the last run that added to it.
CREATE TABLE IF NOT EXISTS openai_audit_findings{on_cluster}
(
    workspaceID String COMMENT 'Workspace of the events',
    findingID String COMMENT 'Id of the finding, a pure function of workspaceID, rule, entity and bucketStart',
    rule String COMMENT 'Id of the rule',
    entity String COMMENT 'Who or what it is about, as the rule says',
    bucketStart DateTime COMMENT 'Start of the stretch of eventTime whose events are one finding (UTC)',
    title SimpleAggregateFunction(anyLast, String) COMMENT 'Title of the rule',
    severity SimpleAggregateFunction(anyLast, String) COMMENT 'info, low, medium, high or critical',
    riskScore SimpleAggregateFunction(anyLast, UInt8) COMMENT '0 to 100',
    tactics SimpleAggregateFunction(anyLast, Array(String)) COMMENT 'MITRE ATT&CK tactics',
    techniques SimpleAggregateFunction(anyLast, Array(String)) COMMENT 'MITRE ATT&CK techniques',
    firstSeen SimpleAggregateFunction(min, DateTime) COMMENT 'eventTime of its first event (UTC)',
    lastSeen SimpleAggregateFunction(max, DateTime) COMMENT 'eventTime of its last event (UTC)',
    events SimpleAggregateFunction(groupUniqArrayArray, Array(Tuple(sourceID String, eventTime DateTime, id String))) COMMENT 'The rows of openai_audit_logs that prove it',
    eventTypes SimpleAggregateFunction(groupUniqArrayArray, Array(String)) COMMENT 'Their types',
    actors SimpleAggregateFunction(groupUniqArrayArray, Array(String)) COMMENT 'Who did it: e-mail address, or the id of a user, service account or key',
    srcIPs SimpleAggregateFunction(groupUniqArrayArray, Array(String)) COMMENT 'Addresses they came from',
    resources SimpleAggregateFunction(groupUniqArrayArray, Array(String)) COMMENT 'What was acted on, as in openai_audit_logs',
    details SimpleAggregateFunction(groupUniqArrayArray, Array(String)) COMMENT 'What the rule has to say about single events',
    firstDetectedAt SimpleAggregateFunction(min, DateTime64(3)) COMMENT 'When a run first found it (UTC)',
    lastDetectedAt SimpleAggregateFunction(max, DateTime64(3)) COMMENT 'When a run last added to it (UTC)',
    query SimpleAggregateFunction(anyLast, String) COMMENT 'The exact SQL of the rule' CODEC(ZSTD(3)),
    parameters SimpleAggregateFunction(anyLast, String) COMMENT 'Its parameters, JSON',
    runID SimpleAggregateFunction(anyLast, String) COMMENT 'Run that found it',
    version SimpleAggregateFunction(anyLast, String) COMMENT 'Version of the shipper'
)
ENGINE = {engine:AggregatingMergeTree}
ORDER BY (workspaceID, rule, bucketStart, entity, findingID)
SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'Findings of the detections';
