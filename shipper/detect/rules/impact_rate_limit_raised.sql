-- Every change that sets a limit to at least {factor} times what another change had set in the time before it, and to
-- more. `lowest` is what was set before: in any change when this one is new, else in a new one.
WITH recent AS
(
    SELECT workspaceID, sourceID, eventTime, projectID, resources[1] AS resource
    FROM openai_audit_received(from = {from:DateTime}, to = {to:DateTime})
    WHERE eventType = 'rate_limit.updated'
)
SELECT
    * EXCEPT (limit, change, lowest),
    coalesce(nullIf(actorUserEmail, ''), nullIf(serviceAccountID, ''), nullIf(actorUserID, ''), nullIf(apiKeyID, ''), '(nobody)') AS entity,
    concat(limit, ': ', change.1, ' = ', toString(change.2)) AS detail
FROM
(
    SELECT
        *,
        if(receivedAt >= {from:DateTime}, min(change.2) OVER before,
            minOrNullIf(change.2, receivedAt >= {from:DateTime}) OVER before) AS lowest
    FROM
    (
        SELECT
            *,
            JSONExtractString(rawLog, 'rate_limit.updated', 'id') AS limit,
            arrayJoin(JSONExtractKeysAndValues(rawLog, 'rate_limit.updated',
                if(JSONHas(rawLog, 'rate_limit.updated', 'changes_requested'), 'changes_requested', 'data'), 'UInt64'))
                AS change
        FROM openai_audit_logs
        PREWHERE eventType = 'rate_limit.updated'
            AND eventTime >= (SELECT minOrNull(eventTime) FROM recent) - toIntervalSecond({history:UInt32})
            AND eventTime <= (SELECT maxOrNull(eventTime) FROM recent) + toIntervalSecond({history:UInt32})
            AND (workspaceID, sourceID, projectID, resources[1])
                IN (SELECT workspaceID, sourceID, projectID, resource FROM recent)
        WHERE receivedAt < {to:DateTime}
    )
    WINDOW before AS (PARTITION BY workspaceID, sourceID, projectID, limit, change.1 ORDER BY toUnixTimestamp(eventTime)
        RANGE BETWEEN {history:UInt32} PRECEDING AND CURRENT ROW)
)
WHERE change.2 > lowest AND change.2 >= {factor:Float64} * lowest
