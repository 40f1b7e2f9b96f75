-- Every sign-in of an account among those within {seconds} that came from at least {addresses} networks. A network is an
-- autonomous system; where that is unknown it is a /24 of IPv4 or a /48 of IPv6. An address whose system is known of some
-- events only would count twice: the number of prefixes is taken if it is smaller.
--
-- Each sign-in is two changes of the counts: it comes, and it leaves {seconds} later. A network counts once, so its next
-- sign-in within that time takes over from the last one. All windows only grow: frames that move are read anew per row.
WITH
    signins AS
    (
        SELECT
            *,
            coalesce(nullIf(lower(actorUserEmail), ''), actorUserID) AS account,
            toInt64(toUnixTimestamp(eventTime)) AS second,
            cutIPv6(toIPv6OrDefault(srcIP), 10, 1) AS prefix,
            if(srcASNumber != 0, toString(srcASNumber), prefix) AS network
        FROM openai_audit_around(from = {from:DateTime}, to = {to:DateTime}, seconds = {seconds:UInt32})
        WHERE eventType = 'login.succeeded' AND srcIP != '' AND account != ''
    ),
    neighbours AS
    (
        SELECT
            *,
            lagInFrame(second, 1, -4294967296) OVER same_prefix AS prefix_before,
            leadInFrame(second, 1, 8589934592) OVER same_prefix AS prefix_after,
            lagInFrame(second, 1, -4294967296) OVER same_network AS network_before,
            leadInFrame(second, 1, 8589934592) OVER same_network AS network_after
        FROM signins
        WINDOW
            same_prefix AS (PARTITION BY workspaceID, sourceID, account, prefix ORDER BY second
                ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING),
            same_network AS (PARTITION BY workspaceID, sourceID, account, network ORDER BY second
                ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
    ),
    changes AS
    (
        SELECT
            *,
            arrayJoin([true, false]) AS comes,
            second + if(comes, 0, {seconds:UInt32} + 1) AS moment,
            if(comes, toInt8(prefix_before + {seconds:UInt32} < second),
                -toInt8(prefix_after > second + {seconds:UInt32})) AS prefix_change,
            if(comes, toInt8(network_before + {seconds:UInt32} < second),
                -toInt8(network_after > second + {seconds:UInt32})) AS network_change
        FROM neighbours
    ),
    counted AS
    (
        SELECT
            *,
            least(sum(prefix_change) OVER passing, sum(network_change) OVER passing) AS counts,
            max(if(comes AND receivedAt >= {from:DateTime}, second, 0)) OVER passing AS newest
        FROM changes
        WINDOW passing AS (PARTITION BY workspaceID, sourceID, account ORDER BY moment)
    ),
    marked AS
    (
        SELECT
            *,
            comes AND counts >= {addresses:UInt32} AND newest + {seconds:UInt32} >= moment AS enough,
            min(if(enough, moment, 8589934592)) OVER (PARTITION BY workspaceID, sourceID, account ORDER BY moment DESC)
                AS reached
        FROM counted
    )
SELECT
    * EXCEPT (account, second, prefix, network, prefix_before, prefix_after, network_before, network_after, comes, moment,
        prefix_change, network_change, counts, newest, enough, reached),
    account AS entity,
    arrayStringConcat(arrayFilter(text -> text != '', [srcIP, srcASOrganization, srcASCountryCode]), ', ') AS detail
FROM marked
WHERE comes AND reached <= second + {seconds:UInt32}
