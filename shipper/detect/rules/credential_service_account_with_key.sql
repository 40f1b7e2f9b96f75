-- Both events of every pair. `followed` and `preceded` say whether the other one is there: 0 no, 1 known, 2 new.
SELECT * EXCEPT (new, made, followed, preceded), '' AS detail
FROM
(
    SELECT *,
        max(if(made, 0, 1 + new)) OVER (PARTITION BY workspaceID, sourceID, entity, projectID
            ORDER BY toUnixTimestamp(eventTime)
            RANGE BETWEEN CURRENT ROW AND {pair_seconds:UInt32} FOLLOWING) AS followed,
        max(if(made, 1 + new, 0)) OVER (PARTITION BY workspaceID, sourceID, entity, projectID
            ORDER BY toUnixTimestamp(eventTime)
            RANGE BETWEEN {pair_seconds:UInt32} PRECEDING AND CURRENT ROW) AS preceded
    FROM
    (
        SELECT *, receivedAt >= {from:DateTime} AS new, eventType = 'service_account.created' AS made,
            coalesce(nullIf(actorUserEmail, ''), nullIf(serviceAccountID, ''), nullIf(actorUserID, ''),
                nullIf(apiKeyID, ''), '') AS entity
        FROM openai_audit_around(from = {from:DateTime}, to = {to:DateTime}, seconds = {pair_seconds:UInt32})
        WHERE eventType IN ('service_account.created', 'api_key.created') AND projectID != ''
    )
    WHERE entity != ''
)
WHERE (made AND followed + new > 1) OR (NOT made AND preceded + new > 1)
