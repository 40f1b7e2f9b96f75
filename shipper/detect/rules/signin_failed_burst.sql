-- Every failed sign-in of an account among those within {seconds} that came from at least {failing_addresses} addresses.
-- A /64 of IPv6 is one address.
--
-- Each failure is two changes of the count: it comes, and it leaves {seconds} later. An address counts once, so its next
-- failure within that time takes over from the last one. All windows only grow: frames that move are read anew per row.
WITH
    failures AS
    (
        SELECT
            *,
            coalesce(nullIf(lower(actorUserEmail), ''), actorUserID) AS account,
            toInt64(toUnixTimestamp(eventTime)) AS second,
            cutIPv6(toIPv6OrDefault(srcIP), 8, 0) AS address
        FROM openai_audit_around(from = {from:DateTime}, to = {to:DateTime}, seconds = {seconds:UInt32})
        WHERE eventType = 'login.failed' AND srcIP != '' AND account != ''
    ),
    neighbours AS
    (
        SELECT
            *,
            lagInFrame(second, 1, -4294967296) OVER same AS before,
            leadInFrame(second, 1, 8589934592) OVER same AS after
        FROM failures
        WINDOW same AS (PARTITION BY workspaceID, sourceID, account, address ORDER BY second
            ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
    ),
    changes AS
    (
        SELECT
            *,
            arrayJoin([true, false]) AS comes,
            second + if(comes, 0, {seconds:UInt32} + 1) AS moment,
            if(comes, toInt8(before + {seconds:UInt32} < second),
                -toInt8(after > second + {seconds:UInt32})) AS change
        FROM neighbours
    ),
    counted AS
    (
        SELECT
            *,
            sum(change) OVER passing AS addresses,
            max(if(comes AND receivedAt >= {from:DateTime}, second, 0)) OVER passing AS newest
        FROM changes
        WINDOW passing AS (PARTITION BY workspaceID, sourceID, account ORDER BY moment)
    ),
    marked AS
    (
        SELECT
            *,
            comes AND addresses >= {failing_addresses:UInt32} AND newest + {seconds:UInt32} >= moment AS enough,
            min(if(enough, moment, 8589934592)) OVER (PARTITION BY workspaceID, sourceID, account ORDER BY moment DESC)
                AS reached
        FROM counted
    )
SELECT
    * EXCEPT (account, second, address, before, after, comes, moment, change, addresses, newest, enough, reached),
    account AS entity,
    '' AS detail
FROM marked
WHERE comes AND reached <= second + {seconds:UInt32}
