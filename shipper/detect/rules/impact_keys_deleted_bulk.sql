-- `count` looks at the {seconds} before an event, `hit` at those after it. So every event of a burst is returned. One
-- removal may be logged under several types, so the types are counted apart and the largest number is taken.
SELECT * EXCEPT (who, count, new, hit), who AS entity, '' AS detail
FROM
(
    SELECT *, max(count >= {deleted_keys:UInt32} AND new) OVER (
        PARTITION BY workspaceID, sourceID, who ORDER BY toUnixTimestamp(eventTime)
        RANGE BETWEEN CURRENT ROW AND {seconds:UInt32} FOLLOWING) AS hit
    FROM
    (
        SELECT *,
            coalesce(nullIf(actorUserEmail, ''), nullIf(serviceAccountID, ''), nullIf(actorUserID, ''), nullIf(apiKeyID, ''), '(nobody)') AS who,
            greatest(
                countIf(eventType = 'api_key.deleted') OVER before,
                countIf(eventType = 'tenant.admin_api_key.deleted') OVER before) AS count,
            max(receivedAt >= {from:DateTime}) OVER before AS new
        FROM openai_audit_around(from = {from:DateTime}, to = {to:DateTime}, seconds = {seconds:UInt32})
        WHERE eventType IN ('api_key.deleted', 'tenant.admin_api_key.deleted')
        WINDOW before AS (PARTITION BY workspaceID, sourceID, who ORDER BY toUnixTimestamp(eventTime)
            RANGE BETWEEN {seconds:UInt32} PRECEDING AND CURRENT ROW)
    )
)
WHERE hit
