-- Every event of an account and a user agent that has another with another fingerprint within {seconds} of it.
--
-- Of a ja4 the hash of the ciphers is compared, the second of its three parts: the others change when a browser resumes a
-- connection. Over QUIC (q…) a browser offers other ciphers than over TCP (t…), so each is compared with its own kind.
--
-- Each event is two changes of the count: it comes, and it leaves {seconds} later. A fingerprint counts once, so its next
-- event within that time takes over from the last one. All windows only grow: frames that move are read anew per row.
--
-- Only what is compared goes through all this; the events themselves are read at the end, by their place in the table.
WITH
    sessions AS
    (
        SELECT
            workspaceID,
            sourceID,
            eventTime,
            id,
            receivedAt >= {from:DateTime} AS new,
            coalesce(nullIf(actorUserEmail, ''), actorUserID) AS account,
            toInt64(toUnixTimestamp(eventTime)) AS second,
            tags['userAgent'] AS agent,
            tags['ja4'] AS ja4,
            left(ja4, 1) AS transport,
            splitByChar('_', ja4) AS parts,
            if(length(parts) = 3, parts[2], ja4) AS fingerprint
        FROM openai_audit_around(from = {from:DateTime}, to = {to:DateTime}, seconds = {seconds:UInt32})
        WHERE ja4 != '' AND agent != '' AND account != '' AND NOT endsWith(eventType, '.failed')
    ),
    neighbours AS
    (
        SELECT
            *,
            lagInFrame(second, 1, -4294967296) OVER same AS before,
            leadInFrame(second, 1, 8589934592) OVER same AS after
        FROM sessions
        WINDOW same AS (PARTITION BY workspaceID, sourceID, account, agent, transport, fingerprint ORDER BY second
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
            sum(change) OVER passing AS fingerprints,
            max(if(comes AND new, second, 0)) OVER passing AS newest
        FROM changes
        WINDOW passing AS (PARTITION BY workspaceID, sourceID, account, agent, transport ORDER BY moment)
    ),
    marked AS
    (
        SELECT
            *,
            comes AND fingerprints >= 2 AND newest + {seconds:UInt32} >= moment AS enough,
            min(if(enough, moment, 8589934592)) OVER (PARTITION BY workspaceID, sourceID, account, agent, transport
                ORDER BY moment DESC) AS reached
        FROM counted
    )
SELECT
    *,
    coalesce(nullIf(actorUserEmail, ''), actorUserID) AS entity,
    concat('ja4 ', tags['ja4'], ' from ', if(srcIP = '', 'no address', srcIP)) AS detail
FROM openai_audit_logs
WHERE (workspaceID, sourceID, eventTime, id) IN
        (SELECT workspaceID, sourceID, eventTime, id FROM marked WHERE comes AND reached <= second + {seconds:UInt32})
    AND receivedAt < {to:DateTime}
SETTINGS final = 0
