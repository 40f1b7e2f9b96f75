-- Every key in a stretch of {seconds} in which one actor made {keys}. One key may be logged under several types, so the
-- types are counted apart and the largest number is taken.
SELECT * EXCEPT (made, new, hit), '' AS detail
FROM
(
    SELECT *, max(made >= {keys:UInt32} AND new) OVER (
        PARTITION BY workspaceID, sourceID, entity ORDER BY toUnixTimestamp(eventTime)
        RANGE BETWEEN CURRENT ROW AND {seconds:UInt32} FOLLOWING) AS hit
    FROM
    (
        SELECT *,
            greatest(
                countIf(eventType = 'api_key.created') OVER before,
                countIf(eventType = 'tenant.project_api_key.created') OVER before,
                countIf(eventType = 'tenant.admin_api_key.created') OVER before) AS made,
            max(receivedAt >= {from:DateTime}) OVER before AS new
        FROM
        (
            SELECT *, coalesce(nullIf(actorUserEmail, ''), nullIf(serviceAccountID, ''), nullIf(actorUserID, ''),
                nullIf(apiKeyID, ''), '') AS entity
            FROM openai_audit_around(from = {from:DateTime}, to = {to:DateTime}, seconds = {seconds:UInt32})
            WHERE eventType IN ('api_key.created', 'tenant.project_api_key.created', 'tenant.admin_api_key.created')
        )
        WHERE entity != ''
        WINDOW before AS (PARTITION BY workspaceID, sourceID, entity ORDER BY toUnixTimestamp(eventTime)
            RANGE BETWEEN {seconds:UInt32} PRECEDING AND CURRENT ROW)
    )
)
WHERE hit
