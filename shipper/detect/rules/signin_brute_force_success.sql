-- Every sign-in from an address that failed at least {failures} times for the account in the time before it, and those
-- failures. `failed` and `new` look at the {seconds} before an event, `hit` at those after it.
--
-- Each event is looked at twice, under the account's user id and under its e-mail address: either may be missing from
-- some of them. A /64 of IPv6 is one address.
SELECT * EXCEPT (account, address, failed, new, hit),
    coalesce(nullIf(lower(actorUserEmail), ''), actorUserID) AS entity, '' AS detail
FROM
(
    SELECT *, max(eventType = 'login.succeeded' AND failed >= {failures:UInt32} AND new) OVER (
        PARTITION BY workspaceID, sourceID, account, address ORDER BY toUnixTimestamp(eventTime)
        RANGE BETWEEN CURRENT ROW AND {seconds:UInt32} FOLLOWING) AS hit
    FROM
    (
        SELECT *,
            countIf(eventType = 'login.failed') OVER before AS failed,
            max(receivedAt >= {from:DateTime}) OVER before AS new
        FROM
        (
            SELECT *, cutIPv6(toIPv6OrDefault(srcIP), 8, 0) AS address,
                arrayJoin(arrayFilter(name -> name != '', [actorUserID, lower(actorUserEmail)])) AS account
            FROM openai_audit_around(from = {from:DateTime}, to = {to:DateTime}, seconds = {seconds:UInt32})
            WHERE eventType IN ('login.failed', 'login.succeeded') AND srcIP != ''
        )
        WINDOW before AS (PARTITION BY workspaceID, sourceID, account, address ORDER BY toUnixTimestamp(eventTime)
            RANGE BETWEEN {seconds:UInt32} PRECEDING AND CURRENT ROW)
    )
)
WHERE hit
