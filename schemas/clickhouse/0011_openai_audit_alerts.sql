-- The outbox: what is to be sent where, and what became of it. One row per route, finding and action.
--
-- A run adds `pending` before it says that its window is done, and `delivered` after the receiver has accepted. The
-- larger state wins, so that adding `pending` again changes nothing.
CREATE TABLE IF NOT EXISTS openai_audit_alerts{on_cluster}
(
    route String COMMENT 'Name of the route',
    findingID String COMMENT 'Finding it is about',
    action String COMMENT 'trigger or resolve',
    state SimpleAggregateFunction(max, UInt8) COMMENT '1 pending, 2 delivered, 3 refused by the receiver for good',
    queuedAt SimpleAggregateFunction(min, DateTime64(3)) COMMENT 'When it was queued first (UTC)',
    doneAt SimpleAggregateFunction(max, DateTime64(3)) COMMENT 'When it was delivered or refused (UTC); 1970 before',
    attempts SimpleAggregateFunction(max, UInt32) COMMENT 'Tries to deliver it, in all runs',
    error SimpleAggregateFunction(anyLast, String) COMMENT 'What the last try that failed met'
)
ENGINE = {engine:AggregatingMergeTree}
ORDER BY (route, findingID, action)
SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'Outbox of the alerts';
