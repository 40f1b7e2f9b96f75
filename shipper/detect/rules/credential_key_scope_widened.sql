-- Updates that ask for a scope which the key was made without. Whichever of the two came last is in the window. The
-- other one is looked up among the events of the same keys, at most {creation_seconds} from those in the window.
WITH
    recent AS
    (
        SELECT workspaceID, sourceID, eventTime, resources[1] AS key
        FROM openai_audit_received(from = {from:DateTime}, to = {to:DateTime})
        WHERE eventType IN ('api_key.created', 'api_key.updated') AND key LIKE '{"type":"api_key",%'
    ),
    known AS
    (
        SELECT *, resources[1] AS key, receivedAt >= {from:DateTime} AS new,
            arrayConcat(
                JSONExtract(rawLog, eventType, 'data', 'scopes', 'Array(String)'),
                JSONExtract(rawLog, eventType, 'changes_requested', 'scopes', 'Array(String)')) AS scopes
        FROM openai_audit_logs
        WHERE eventType IN ('api_key.created', 'api_key.updated')
            AND eventTime >= (SELECT minOrNull(eventTime) FROM recent) - toIntervalSecond({creation_seconds:UInt32})
            AND eventTime <= (SELECT maxOrNull(eventTime) FROM recent) + toIntervalSecond({creation_seconds:UInt32})
            AND (workspaceID, sourceID, resources[1]) IN (SELECT workspaceID, sourceID, key FROM recent)
            AND receivedAt < {to:DateTime}
        SETTINGS final = 0
    ),
    made AS
    (
        SELECT workspaceID, sourceID, key, eventTime AS madeAt, new AS madeNew, scopes AS first
        FROM known
        WHERE eventType = 'api_key.created' AND notEmpty(scopes)
    ),
    arraySort(arrayFilter(scope -> NOT has(first, scope), arrayDistinct(scopes))) AS wider
SELECT known.* EXCEPT (key, new, scopes), JSONExtractString(key, 'id') AS entity,
    concat('made without ', arrayStringConcat(arraySlice(wider, 1, 20), ', ')) AS detail
FROM known
INNER JOIN made USING (workspaceID, sourceID, key)
WHERE eventType = 'api_key.updated' AND eventTime >= (SELECT minOrNull(eventTime) FROM recent)
    AND notEmpty(wider) AND (new OR madeNew)
    AND eventTime >= madeAt AND eventTime <= madeAt + toIntervalSecond({creation_seconds:UInt32})
