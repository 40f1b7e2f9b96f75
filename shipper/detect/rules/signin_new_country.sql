-- Every sign-in from a country in which the account did nothing in the {baseline} before it. The last {settle} are left out,
-- so that all events of the time looked at have arrived; and the account must have been seen then, or nobody is known yet.
WITH
    -- Which accounts to look for, and where. Read without the view, as this is asked for often: a copy too many is no harm.
    names AS
    (
        SELECT workspaceID, sourceID, coalesce(nullIf(actorUserEmail, ''), actorUserID) AS account,
            srcASCountryCode AS country, toInt64(toUnixTimestamp(eventTime)) AS second
        FROM openai_audit_logs
        WHERE receivedAt >= {from:DateTime} AND receivedAt < {to:DateTime}
            AND eventType = 'login.succeeded' AND country != '' AND account != ''
        SETTINGS final = 0
    ),
    (SELECT (min(second), max(second)) FROM names) AS span,
    -- In three days that count for every one of these sign-ins nearly all were where they are now. The others are `rare`.
    rare AS
    (
        SELECT *
        FROM names
        WHERE (workspaceID, sourceID, account, country) NOT IN
        (
            SELECT workspaceID, sourceID, coalesce(nullIf(actorUserEmail, ''), actorUserID), srcASCountryCode
            FROM openai_audit_logs
            WHERE receivedAt < {to:DateTime}
                AND eventTime >= toDateTime(greatest(0, span.2 - {baseline:UInt32}, span.1 - {settle:UInt32} - 259200), 'UTC')
                AND eventTime <= toDateTime(greatest(0, span.1 - {settle:UInt32}), 'UTC')
                AND NOT endsWith(eventType, '.failed')
            SETTINGS final = 0
        )
    ),
    (SELECT (min(second), max(second)) FROM rare) AS reach,
    -- When an account was where: each twice, with its country and, as '', with any.
    known AS
    (
        SELECT DISTINCT workspaceID, sourceID, coalesce(nullIf(actorUserEmail, ''), actorUserID) AS account,
            arrayJoin(['', srcASCountryCode]) AS place, toInt64(toUnixTimestamp(eventTime)) AS at
        FROM openai_audit_logs
        WHERE receivedAt < {to:DateTime}
            AND eventTime >= toDateTime(greatest(0, reach.1 - {baseline:UInt32}), 'UTC')
            AND eventTime <= toDateTime(greatest(0, reach.2 - {settle:UInt32}), 'UTC')
            AND srcASCountryCode != '' AND NOT endsWith(eventType, '.failed')
            AND if(actorUserEmail = '', actorUserID, actorUserEmail) IN (SELECT account FROM rare)
        SETTINGS final = 0
    ),
    news AS
    (
        SELECT workspaceID, sourceID, account, country, second
        FROM (SELECT *, arrayJoin(['', country]) AS place, second - {settle:UInt32} AS until FROM rare) AS rare
        ASOF INNER JOIN known
            ON known.workspaceID = rare.workspaceID AND known.sourceID = rare.sourceID AND known.account = rare.account
            AND known.place = rare.place AND known.at <= rare.until
        GROUP BY ALL
        HAVING maxIf(at, place = '') >= second - {baseline:UInt32} AND maxIf(at, place != '') < second - {baseline:UInt32}
    )
SELECT
    *,
    coalesce(nullIf(actorUserEmail, ''), actorUserID) AS entity,
    arrayStringConcat(arrayFilter(text -> text != '', [srcCity, srcASCountryCode]), ', ') AS detail
FROM openai_audit_received(from = {from:DateTime}, to = {to:DateTime})
WHERE eventType = 'login.succeeded'
    AND (workspaceID, sourceID, entity, srcASCountryCode, toInt64(toUnixTimestamp(eventTime))) IN
        (SELECT workspaceID, sourceID, account, country, second FROM news)
    AND NOT arrayExists(network -> isIPAddressInRange(if(srcIP = '', '::', srcIP), network), {office_networks:Array(String)})
