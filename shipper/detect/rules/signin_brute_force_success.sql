-- Every sign-in from an address that failed at least {failures} times for the account in the time before it, and those
-- failures. `worked` and `failed` look at the {seconds} before an event; `ends` at those after it.
SELECT * EXCEPT (failed, new, hit), actorUserEmail AS entity, '' AS detail
FROM
(
    SELECT *, max(eventType = 'login.succeeded' AND failed >= {failures:UInt32} AND new) OVER (
        PARTITION BY workspaceID, sourceID, actorUserEmail, srcIP ORDER BY toUnixTimestamp(eventTime)
        RANGE BETWEEN CURRENT ROW AND {seconds:UInt32} FOLLOWING) AS hit
    FROM
    (
        SELECT *,
            countIf(eventType = 'login.failed') OVER before AS failed,
            max(receivedAt >= {from:DateTime}) OVER before AS new
        FROM openai_audit_around(from = {from:DateTime}, to = {to:DateTime}, seconds = {seconds:UInt32})
        WHERE eventType IN ('login.failed', 'login.succeeded') AND actorUserEmail != '' AND srcIP != ''
        WINDOW before AS (PARTITION BY workspaceID, sourceID, actorUserEmail, srcIP ORDER BY toUnixTimestamp(eventTime)
            RANGE BETWEEN {seconds:UInt32} PRECEDING AND CURRENT ROW)
    )
)
WHERE hit
