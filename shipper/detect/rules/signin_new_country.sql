-- Every sign-in from a country in which the account did nothing in the {baseline} before it. The last {settle} are left out,
-- so that all events of the time looked at have arrived; and the account must have been seen then, or nobody is known yet.
WITH
    signins AS
    (
        SELECT
            *,
            coalesce(nullIf(actorUserEmail, ''), actorUserID) AS account,
            toInt64(toUnixTimestamp(eventTime)) AS second,
            second - {settle:UInt32} AS until
        FROM openai_audit_received(from = {from:DateTime}, to = {to:DateTime})
        WHERE eventType = 'login.succeeded' AND srcASCountryCode != '' AND account != ''
            AND NOT arrayExists(network -> isIPAddressInRange(if(srcIP = '', '::', srcIP), network),
                {office_networks:Array(String)})
    ),
    (SELECT (min(second), max(second)) FROM signins) AS span,
    -- Seen there in a time that counts for every one of these sign-ins. Nearly all are, which saves reading it all twice.
    familiar AS
    (
        SELECT workspaceID, sourceID, coalesce(nullIf(actorUserEmail, ''), actorUserID) AS account, srcASCountryCode
        FROM openai_audit_logs
        WHERE receivedAt < {to:DateTime}
            AND eventTime >= toDateTime(greatest(0, span.2 - {baseline:UInt32}), 'UTC')
            AND eventTime <= toDateTime(greatest(0, span.1 - {settle:UInt32}), 'UTC')
            AND NOT endsWith(eventType, '.failed')
            AND (workspaceID, sourceID, account, srcASCountryCode) IN
                (SELECT workspaceID, sourceID, account, srcASCountryCode FROM signins)
        SETTINGS final = 0
    ),
    known AS
    (
        SELECT DISTINCT
            workspaceID AS workspace,
            sourceID AS source,
            coalesce(nullIf(actorUserEmail, ''), actorUserID) AS account,
            srcASCountryCode AS country,
            toInt64(toUnixTimestamp(eventTime)) AS seen
        FROM openai_audit_logs
        WHERE receivedAt < {to:DateTime}
            AND eventTime >= toDateTime(greatest(0, span.1 - {baseline:UInt32}), 'UTC')
            AND eventTime <= toDateTime(greatest(0, span.2 - {settle:UInt32}), 'UTC')
            AND country != '' AND NOT endsWith(eventType, '.failed')
            AND (workspaceID, sourceID, account) IN
            (
                SELECT workspaceID, sourceID, account
                FROM signins
                WHERE (workspaceID, sourceID, account, srcASCountryCode) NOT IN
                    (SELECT workspaceID, sourceID, account, srcASCountryCode FROM familiar)
            )
        SETTINGS final = 0
    )
SELECT
    signins.* EXCEPT (account, second, until),
    signins.account AS entity,
    arrayStringConcat(arrayFilter(text -> text != '', [srcCity, srcASCountryCode]), ', ') AS detail
FROM signins
ASOF LEFT JOIN known AS anywhere
    ON anywhere.workspace = workspaceID AND anywhere.source = sourceID AND anywhere.account = signins.account
    AND anywhere.seen <= until
ASOF LEFT JOIN known AS there
    ON there.workspace = workspaceID AND there.source = sourceID AND there.account = signins.account
    AND there.country = srcASCountryCode AND there.seen <= until
WHERE anywhere.seen > 0 AND anywhere.seen >= second - {baseline:UInt32} AND there.seen < second - {baseline:UInt32}
