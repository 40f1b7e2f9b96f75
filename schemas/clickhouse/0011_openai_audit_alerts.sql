-- The outbox: what is to be sent where, and what became of it. One row per route, finding and action.
--
-- A run adds `pending` before it says that its window is done, and `delivered` after the receiver has accepted. The
-- larger state wins, so that adding `pending` again changes nothing.
--
-- `trigger` opens a finding at its receiver, `resolve` ends that, after an acknowledgement. When an acknowledged finding
-- is added to, `trigger/MS` opens it anew and `resolve/MS` is the end of that: MS is the time of the acknowledgement
-- before it, in milliseconds since 1970, so that each acknowledgement leads to one more opening at most. What came later
-- about one finding and route has the later queuedAt, and is sent later.
CREATE TABLE IF NOT EXISTS openai_audit_alerts{on_cluster}
(
    route String COMMENT 'Name of the route',
    findingID String COMMENT 'Finding it is about',
    action String COMMENT 'trigger or resolve; trigger/MS or resolve/MS, of the opening after the acknowledgement at MS',
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
