-- Updates that ask for a scope which the key was made without. Whichever of the two came last is in the window. The
-- other one is looked up among the events of the same keys, at most {creation_seconds} from those in the window.
--
-- All of it is read without FINAL: a copy of an event is the same update, or the same creation.
WITH
    recent AS
    (
        SELECT resources[1] AS key, eventTime
        FROM openai_audit_logs
        WHERE receivedAt >= {from:DateTime} AND receivedAt < {to:DateTime}
            AND eventType IN ('api_key.created', 'api_key.updated') AND key LIKE '{"type":"api_key",%'
        SETTINGS final = 0
    ),
    (SELECT (minOrNull(eventTime), maxOrNull(eventTime)) FROM recent) AS span,
    asked AS
    (
        SELECT *, resources[1] AS key, receivedAt >= {from:DateTime} AS new,
            arrayConcat(
                JSONExtract(rawLog, eventType, 'data', 'scopes', 'Array(String)'),
                JSONExtract(rawLog, eventType, 'changes_requested', 'scopes', 'Array(String)')) AS scopes
        FROM openai_audit_logs
        WHERE eventType = 'api_key.updated'
            AND eventTime >= span.1
            AND eventTime <= span.2 + toIntervalSecond({creation_seconds:UInt32})
            AND key IN (SELECT key FROM recent)
            AND receivedAt < {to:DateTime}
        SETTINGS final = 0
    ),
    -- Nothing, and nothing more is read, unless an update asks for scopes.
    (SELECT (minOrNull(eventTime), maxOrNull(eventTime)) FROM asked WHERE notEmpty(scopes)) AS reach,
    made AS
    (
        SELECT workspaceID, sourceID, resources[1] AS key, eventTime AS madeAt, receivedAt >= {from:DateTime} AS madeNew,
            arrayConcat(
                JSONExtract(rawLog, eventType, 'data', 'scopes', 'Array(String)'),
                JSONExtract(rawLog, eventType, 'changes_requested', 'scopes', 'Array(String)')) AS first
        FROM openai_audit_logs
        WHERE eventType = 'api_key.created'
            AND eventTime >= reach.1 - toIntervalSecond({creation_seconds:UInt32})
            AND eventTime <= least(span.2, reach.2)
            AND key IN (SELECT key FROM recent)
            AND receivedAt < {to:DateTime}
        SETTINGS final = 0
    ),
    arraySort(arrayFilter(scope -> NOT has(first, scope), arrayDistinct(scopes))) AS wider
SELECT asked.* EXCEPT (key, new, scopes), JSONExtractString(key, 'id') AS entity,
    concat('made without ', arrayStringConcat(arraySlice(wider, 1, 20), ', ')) AS detail
FROM asked
INNER JOIN made USING (workspaceID, sourceID, key)
WHERE notEmpty(first) AND notEmpty(wider) AND (new OR madeNew)
    AND eventTime >= madeAt AND eventTime <= madeAt + toIntervalSecond({creation_seconds:UInt32})
