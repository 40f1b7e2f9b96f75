-- The dead letters of a source when there were at least {letters} of them in the {seconds} up to one in the window.
SELECT
    workspaceID,
    sourceID,
    id,
    eventTime,
    reason AS eventType,
    '' AS actorUserEmail,
    '' AS actorUserID,
    '' AS serviceAccountID,
    '' AS apiKeyID,
    '' AS srcIP,
    CAST([], 'Array(String)') AS resources,
    sourceID AS entity,
    '' AS detail
FROM
(
    SELECT *, max(new AND count >= {letters:UInt32}) OVER (
        PARTITION BY workspaceID, sourceID ORDER BY toUnixTimestamp(eventTime)
        RANGE BETWEEN CURRENT ROW AND {seconds:UInt32} FOLLOWING) AS hit
    FROM
    (
        SELECT
            workspaceID,
            sourceID,
            id,
            reason,
            receivedAt AS eventTime,
            receivedAt >= {from:DateTime} AS new,
            count() OVER (PARTITION BY workspaceID, sourceID ORDER BY toUnixTimestamp(eventTime)
                RANGE BETWEEN {seconds:UInt32} PRECEDING AND CURRENT ROW) AS count
        FROM openai_audit_dead_letters
        WHERE receivedAt >= {from:DateTime} - toIntervalSecond({seconds:UInt32}) AND receivedAt < {to:DateTime}
    )
)
WHERE hit
