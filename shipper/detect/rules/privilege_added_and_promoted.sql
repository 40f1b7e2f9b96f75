-- Both events of every pair. `followed` and `preceded` say whether the other one is there: 0 no, 1 known, 2 new.
SELECT * EXCEPT (new, added, followed, preceded), '' AS detail
FROM
(
    SELECT *,
        max(if(added, 0, 1 + new)) OVER (PARTITION BY workspaceID, sourceID, entity ORDER BY toUnixTimestamp(eventTime)
            RANGE BETWEEN CURRENT ROW AND {promotion_seconds:UInt32} FOLLOWING) AS followed,
        max(if(added, 1 + new, 0)) OVER (PARTITION BY workspaceID, sourceID, entity ORDER BY toUnixTimestamp(eventTime)
            RANGE BETWEEN {promotion_seconds:UInt32} PRECEDING AND CURRENT ROW) AS preceded
    FROM
    (
        WITH
            -- JSON functions read nothing of a document with one odd byte or number in it: this is the repaired one.
            if(isValidJSON(rawLog), rawLog, replaceRegexpAll(
                replaceRegexpAll(toValidUTF8(rawLog), '\\\\u[dD][89a-fA-F][0-9a-fA-F]{2}', '\\\\ufffd'),
                '([:,\\[]\\s*-?)([0-9.]+[eE]\\+?[0-9]{3,}|[0-9]{20,})', '\\19223372036854775807')) AS readable
        SELECT *, receivedAt >= {from:DateTime} AS new, eventType = 'user.added' AS added,
            JSONExtractString(readable, eventType, 'id') AS entity
        FROM openai_audit_around(from = {from:DateTime}, to = {to:DateTime}, seconds = {promotion_seconds:UInt32})
        WHERE eventType = 'user.added' OR (eventType = 'user.updated'
            AND has({roles:Array(String)}, lower(JSONExtractString(readable, eventType, 'changes_requested', 'role'))))
    )
    WHERE entity != ''
)
WHERE (added AND followed + new > 1) OR (NOT added AND preceded + new > 1)
