-- Leases: which run may write a source now. Append-only; the rows of one claim are read together, in any order.
--
-- Both times are the server's, so that the clocks of the hosts do not matter. No deduplication: each row is a new fact.
CREATE TABLE IF NOT EXISTS openai_audit_leases{on_cluster}
(
    workspaceID String COMMENT 'Workspace of the source',
    sourceID String COMMENT 'Source that is claimed',
    claimID String COMMENT 'The claim; one run may make several, one after the other',
    runID String COMMENT 'Run that claims the source',
    process String COMMENT 'Random name of the process the run is in',
    host String COMMENT 'Host of that process, for people',
    pid UInt32 COMMENT 'Id of that process on its host, for people',
    lasts UInt32 COMMENT 'How long the claim lasts from writtenAt on, in milliseconds',
    released Bool COMMENT 'True when the claim is given up',
    writtenAt DateTime64(3) DEFAULT now64(3) COMMENT 'When the row was written, by the clock of the server (UTC)',
    expiresAt DateTime64(3) DEFAULT writtenAt + toIntervalMillisecond(lasts) COMMENT 'When the claim ends unless renewed (UTC)'
)
ENGINE = {engine:MergeTree}
ORDER BY (workspaceID, sourceID, claimID)
TTL toDateTime(expiresAt) + toIntervalDay(1)
COMMENT 'Leases: which run may write a source';
