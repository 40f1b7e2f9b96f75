-- Events of a type that the catalog does not know, the first of their type: `seen` has the others, and the join finds
-- the latest that is older than {settle}.
WITH
    fresh AS
    (
        SELECT *
        FROM openai_audit_received(from = {from:DateTime}, to = {to:DateTime})
        WHERE tags['unmappedType'] = 'true'
    )
SELECT
    fresh.* EXCEPT (settled),
    eventType AS entity,
    '' AS detail
FROM (SELECT *, eventTime - toIntervalSecond({settle:UInt32}) AS settled FROM fresh) AS fresh
ASOF LEFT JOIN
(
    SELECT DISTINCT workspaceID, sourceID, eventType, eventTime
    FROM openai_audit_logs
    PREWHERE eventType IN (SELECT eventType FROM fresh)
        AND eventTime >= (SELECT minOrNull(eventTime) FROM fresh) - toIntervalSecond({history:UInt32})
        AND eventTime <= (SELECT maxOrNull(eventTime) FROM fresh) - toIntervalSecond({settle:UInt32})
    WHERE receivedAt < {to:DateTime}
) AS seen
ON fresh.workspaceID = seen.workspaceID AND fresh.sourceID = seen.sourceID AND fresh.eventType = seen.eventType
    AND fresh.settled >= seen.eventTime
WHERE seen.eventTime < fresh.eventTime - toIntervalSecond({history:UInt32})
