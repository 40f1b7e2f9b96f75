-- Both events of every pair. `followed` and `preceded` say whether the other one is there: 0 no, 1 known, 2 new.
-- The removal knows the person by id only: the address is that of the keys before it.
SELECT * EXCEPT (new, made, person, followed, preceded, address), '' AS detail,
    coalesce(nullIf(if(made, actorUserEmail, address), ''), person) AS entity
FROM
(
    SELECT *,
        max(if(made, 0, 1 + new)) OVER (PARTITION BY workspaceID, sourceID, person ORDER BY toUnixTimestamp(eventTime)
            RANGE BETWEEN CURRENT ROW AND {removal_seconds:UInt32} FOLLOWING) AS followed,
        max(if(made, 1 + new, 0)) OVER before AS preceded,
        max(if(made, actorUserEmail, '')) OVER before AS address
    FROM
    (
        SELECT *, receivedAt >= {from:DateTime} AS new,
            eventType NOT IN ('user.deleted', 'tenant.user.removed') AS made,
            if(made, actorUserID, JSONExtractString(
                arrayFirst(resource -> JSONExtractString(resource, 'type') = 'user', resources), 'id')) AS person
        FROM openai_audit_around(from = {from:DateTime}, to = {to:DateTime}, seconds = {removal_seconds:UInt32})
        WHERE eventType IN ('api_key.created', 'tenant.project_api_key.created', 'tenant.admin_api_key.created',
            'user.deleted', 'tenant.user.removed')
    )
    WHERE person != ''
    WINDOW before AS (PARTITION BY workspaceID, sourceID, person ORDER BY toUnixTimestamp(eventTime)
        RANGE BETWEEN {removal_seconds:UInt32} PRECEDING AND CURRENT ROW)
)
WHERE (made AND followed + new > 1) OR (NOT made AND preceded + new > 1)
