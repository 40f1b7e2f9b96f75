-- Every sign-in of an account whose last event before it is {quiet} to {history} old. The last {settle} are left out, so
-- that all events of the time looked at have arrived. The user id tells the account where there is one: keys of a user
-- name that and no e-mail address.
WITH
    signins AS
    (
        SELECT
            *,
            coalesce(nullIf(actorUserID, ''), actorUserEmail) AS account,
            toInt64(toUnixTimestamp(eventTime)) AS second,
            second - {settle:UInt32} AS until
        FROM openai_audit_received(from = {from:DateTime}, to = {to:DateTime})
        WHERE eventType = 'login.succeeded' AND account != ''
    ),
    (SELECT (min(second), max(second)) FROM signins) AS span,
    -- Seen in a time that is quiet for every one of these sign-ins. Nearly all are, which saves reading the year before.
    busy AS
    (
        SELECT workspaceID, sourceID, coalesce(nullIf(actorUserID, ''), actorUserEmail) AS account
        FROM openai_audit_logs
        WHERE receivedAt < {to:DateTime}
            AND eventTime > toDateTime(greatest(0, span.2 - {quiet:UInt32}), 'UTC')
            AND eventTime <= toDateTime(greatest(0, span.1 - {settle:UInt32}), 'UTC')
            AND NOT endsWith(eventType, '.failed')
            AND (workspaceID, sourceID, account) IN (SELECT workspaceID, sourceID, account FROM signins)
        SETTINGS final = 0
    ),
    active AS
    (
        SELECT DISTINCT
            workspaceID,
            sourceID,
            coalesce(nullIf(actorUserID, ''), actorUserEmail) AS account,
            toInt64(toUnixTimestamp(eventTime)) AS seen
        FROM openai_audit_logs
        WHERE receivedAt < {to:DateTime}
            AND eventTime >= toDateTime(greatest(0, span.1 - {history:UInt32}), 'UTC')
            AND eventTime <= toDateTime(greatest(0, span.2 - {settle:UInt32}), 'UTC')
            AND NOT endsWith(eventType, '.failed')
            AND (workspaceID, sourceID, account) IN
            (
                SELECT workspaceID, sourceID, account
                FROM signins
                WHERE (workspaceID, sourceID, account) NOT IN (SELECT workspaceID, sourceID, account FROM busy)
            )
        SETTINGS final = 0
    )
SELECT
    signins.* EXCEPT (account, second, until),
    coalesce(nullIf(actorUserEmail, ''), actorUserID) AS entity,
    '' AS detail
FROM signins
ASOF LEFT JOIN active
    ON active.workspaceID = signins.workspaceID AND active.sourceID = signins.sourceID
    AND active.account = signins.account AND active.seen <= signins.until
WHERE active.seen > 0 AND active.seen >= second - {history:UInt32} AND active.seen <= second - {quiet:UInt32}
