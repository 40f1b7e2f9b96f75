-- Every sign-in of an account whose last event before it is {quiet} to {history} old. The last {settle} are left out, so
-- that all events of the time looked at have arrived. The user id tells the account where there is one: keys of a user
-- name that and no e-mail address.
WITH
    -- Which accounts to look for. Read without the view, as this is asked for often: a copy too many is no harm.
    names AS
    (
        SELECT workspaceID, sourceID, if(actorUserID = '', actorUserEmail, actorUserID) AS account,
            toInt64(toUnixTimestamp(eventTime)) AS second
        FROM openai_audit_logs
        WHERE receivedAt >= {from:DateTime} AND receivedAt < {to:DateTime}
            AND eventType = 'login.succeeded' AND account != ''
        SETTINGS final = 0
    ),
    (SELECT (min(second), max(second)) FROM names) AS span,
    -- In three days that are quiet for every one of these sign-ins nearly all did something. The others are `rare`.
    rare AS
    (
        SELECT *
        FROM names
        WHERE (workspaceID, sourceID, account) NOT IN
        (
            SELECT workspaceID, sourceID, if(actorUserID = '', actorUserEmail, actorUserID)
            FROM openai_audit_logs
            WHERE receivedAt < {to:DateTime}
                AND eventTime > toDateTime(greatest(0, span.2 - {quiet:UInt32}, span.1 - {settle:UInt32} - 259200), 'UTC')
                AND eventTime <= toDateTime(greatest(0, span.1 - {settle:UInt32}), 'UTC')
                AND NOT endsWith(eventType, '.failed')
            SETTINGS final = 0
        )
    ),
    (SELECT (min(second), max(second)) FROM rare) AS reach,
    active AS
    (
        SELECT DISTINCT workspaceID, sourceID, if(actorUserID = '', actorUserEmail, actorUserID) AS account,
            toInt64(toUnixTimestamp(eventTime)) AS at
        FROM openai_audit_logs
        WHERE receivedAt < {to:DateTime}
            AND eventTime >= toDateTime(greatest(0, reach.1 - {history:UInt32}), 'UTC')
            AND eventTime <= toDateTime(greatest(0, reach.2 - {settle:UInt32}), 'UTC')
            AND NOT endsWith(eventType, '.failed')
            AND account IN (SELECT account FROM rare)
        SETTINGS final = 0
    ),
    back AS
    (
        SELECT workspaceID, sourceID, account, second
        FROM (SELECT *, second - {settle:UInt32} AS until FROM rare) AS rare
        ASOF INNER JOIN active
            ON active.workspaceID = rare.workspaceID AND active.sourceID = rare.sourceID
            AND active.account = rare.account AND active.at <= rare.until
        WHERE at >= second - {history:UInt32} AND at <= second - {quiet:UInt32}
    )
SELECT
    *,
    coalesce(nullIf(actorUserEmail, ''), actorUserID) AS entity,
    '' AS detail
FROM openai_audit_received(from = {from:DateTime}, to = {to:DateTime})
WHERE eventType = 'login.succeeded'
    AND (workspaceID, sourceID, if(actorUserID = '', actorUserEmail, actorUserID), toInt64(toUnixTimestamp(eventTime))) IN
        (SELECT workspaceID, sourceID, account, second FROM back)
