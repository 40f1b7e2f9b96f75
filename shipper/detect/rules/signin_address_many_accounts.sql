-- Every sign-in, failed or not, of an address among those within {seconds} that went to at least {accounts} accounts and
-- failed for {failed_accounts} of them. A /64 of IPv6 is one address.
--
-- Each sign-in is two changes of the counts: it comes, and it leaves {seconds} later. An account counts once, so its next
-- sign-in within that time takes over from the last one. All windows only grow: frames that move are read anew per row.
WITH
    signins AS
    (
        SELECT
            *,
            coalesce(nullIf(lower(actorUserEmail), ''), actorUserID) AS account,
            toInt64(toUnixTimestamp(eventTime)) AS second,
            cutIPv6(toIPv6OrDefault(srcIP), 8, 0) AS address
        FROM openai_audit_around(from = {from:DateTime}, to = {to:DateTime}, seconds = {seconds:UInt32})
        WHERE eventType IN ('login.failed', 'login.succeeded') AND srcIP != '' AND account != ''
            AND NOT arrayExists(network -> isIPAddressInRange(if(srcIP = '', '::', srcIP), network),
                {office_networks:Array(String)})
    ),
    neighbours AS
    (
        SELECT
            *,
            lagInFrame(second, 1, -4294967296) OVER same AS before,
            leadInFrame(second, 1, 8589934592) OVER same AS after,
            lagInFrame(second, 1, -4294967296) OVER same_result AS before_of_result,
            leadInFrame(second, 1, 8589934592) OVER same_result AS after_of_result
        FROM signins
        WINDOW
            same AS (PARTITION BY workspaceID, sourceID, address, account ORDER BY second
                ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING),
            same_result AS (PARTITION BY workspaceID, sourceID, address, account, eventType ORDER BY second
                ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
    ),
    changes AS
    (
        SELECT
            *,
            arrayJoin([true, false]) AS comes,
            second + if(comes, 0, {seconds:UInt32} + 1) AS moment,
            if(comes, toInt8(before + {seconds:UInt32} < second),
                -toInt8(after > second + {seconds:UInt32})) AS change,
            (eventType = 'login.failed') * if(comes, toInt8(before_of_result + {seconds:UInt32} < second),
                -toInt8(after_of_result > second + {seconds:UInt32})) AS failed_change
        FROM neighbours
    ),
    counted AS
    (
        SELECT
            *,
            sum(change) OVER passing AS tried,
            sum(failed_change) OVER passing AS failed,
            max(if(comes AND receivedAt >= {from:DateTime}, second, 0)) OVER passing AS newest
        FROM changes
        WINDOW passing AS (PARTITION BY workspaceID, sourceID, address ORDER BY moment)
    ),
    marked AS
    (
        SELECT
            *,
            comes AND tried >= {accounts:UInt32} AND failed >= {failed_accounts:UInt32}
                AND newest + {seconds:UInt32} >= moment AS enough,
            min(if(enough, moment, 8589934592)) OVER (PARTITION BY workspaceID, sourceID, address ORDER BY moment DESC)
                AS reached
        FROM counted
    )
SELECT
    * EXCEPT (account, second, address, before, after, before_of_result, after_of_result, comes, moment, change, failed_change,
        tried, failed, newest, enough, reached),
    if(isIPv4String(srcIP), srcIP, concat(address, '/64')) AS entity,
    if(eventType = 'login.succeeded', 'signed in as ' || account, '') AS detail
FROM marked
WHERE comes AND reached <= second + {seconds:UInt32}
