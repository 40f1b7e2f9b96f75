-- Every change that sets a limit to at least {factor} times what another change had set in the time before it, and to
-- more. `lowest` is what was set before: in any change when this one is new, else in a new one.
--
-- Read without FINAL: a copy of a change sets the same limits again, which is no raise.
WITH
    recent AS
    (
        SELECT workspaceID, sourceID, eventTime, projectID, resources[1] AS resource
        FROM openai_audit_logs
        WHERE receivedAt >= {from:DateTime} AND receivedAt < {to:DateTime} AND eventType = 'rate_limit.updated'
        SETTINGS final = 0
    ),
    (SELECT (minOrNull(eventTime), maxOrNull(eventTime)) FROM recent) AS span
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
        WITH
            -- JSON functions read nothing of a document with one odd byte or number in it: this is the repaired one.
            if(isValidJSON(rawLog), rawLog, replaceRegexpAll(
                replaceRegexpAll(toValidUTF8(rawLog), '\\\\u[dD][89a-fA-F][0-9a-fA-F]{2}', '\\\\ufffd'),
                '([:,\\[]\\s*-?)([0-9.]+[eE]\\+?[0-9]{3,}|[0-9]{20,})', '\\19223372036854775807')) AS readable
        SELECT
            *,
            JSONExtractString(readable, 'rate_limit.updated', 'id') AS limit,
            arrayJoin(JSONExtractKeysAndValues(readable, 'rate_limit.updated',
                if(JSONHas(readable, 'rate_limit.updated', 'changes_requested'), 'changes_requested', 'data'), 'UInt64'))
                AS change
        FROM openai_audit_logs
        PREWHERE eventType = 'rate_limit.updated'
            AND eventTime >= span.1 - toIntervalSecond({history:UInt32})
            AND eventTime <= span.2 + toIntervalSecond({history:UInt32})
            AND resources[1] IN (SELECT resource FROM recent)
            AND (workspaceID, sourceID, projectID, resources[1])
                IN (SELECT workspaceID, sourceID, projectID, resource FROM recent)
        WHERE receivedAt < {to:DateTime}
        SETTINGS final = 0
    )
    WINDOW before AS (PARTITION BY workspaceID, sourceID, projectID, limit, change.1 ORDER BY toUnixTimestamp(eventTime)
        RANGE BETWEEN {history:UInt32} PRECEDING AND CURRENT ROW)
)
WHERE change.2 > lowest AND change.2 >= {factor:Float64} * lowest
