-- Events of a type that the catalog does not know, the first of their type: `seen` has the others, and the join finds
-- the latest that is older than {settle}; where there is none, `at` is 0.
WITH
    fresh AS
    (
        SELECT *, toInt64(toUnixTimestamp(eventTime)) AS second
        FROM openai_audit_received(from = {from:DateTime}, to = {to:DateTime})
        WHERE tags['unmappedType'] = 'true'
    ),
    (SELECT (min(second), max(second)) FROM fresh) AS span
SELECT
    fresh.* EXCEPT (second, until),
    eventType AS entity,
    '' AS detail
FROM (SELECT *, second - {settle:UInt32} AS until FROM fresh) AS fresh
ASOF LEFT JOIN
(
    SELECT DISTINCT workspaceID, sourceID, eventType, toInt64(toUnixTimestamp(eventTime)) AS at
    FROM openai_audit_logs
    PREWHERE eventType IN (SELECT eventType FROM fresh)
        AND eventTime >= toDateTime(greatest(0, span.1 - {history:UInt32}), 'UTC')
        AND eventTime <= toDateTime(greatest(0, span.2 - {settle:UInt32}), 'UTC')
    WHERE receivedAt < {to:DateTime}
) AS seen
ON fresh.workspaceID = seen.workspaceID AND fresh.sourceID = seen.sourceID AND fresh.eventType = seen.eventType
    AND fresh.until >= seen.at
WHERE seen.at < fresh.second - {history:UInt32} OR seen.at = 0
