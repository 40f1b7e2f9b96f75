-- Updates that ask for a scope which the key was made without. Whichever of the two came last is in the window. The
-- other one is looked up among the events of the same keys, at most {creation_seconds} from those in the window.
--
-- All of it is read without FINAL: a copy of an event is the same update, or the same creation.
WITH
    recent AS
    (
        SELECT resources[1] AS key, toInt64(toUnixTimestamp(eventTime)) AS second
        FROM openai_audit_logs
        WHERE receivedAt >= {from:DateTime} AND receivedAt < {to:DateTime}
            AND eventType IN ('api_key.created', 'api_key.updated') AND key LIKE '{"type":"api_key",%'
        SETTINGS final = 0
    ),
    (SELECT (min(second), max(second)) FROM recent) AS span,
    asked AS
    (
        WITH
            -- JSON functions read nothing of a document with one odd byte or number in it: this is the repaired one.
            if(isValidJSON(rawLog), rawLog, replaceRegexpAll(
                replaceRegexpAll(toValidUTF8(rawLog), '\\\\u[dD][89a-fA-F][0-9a-fA-F]{2}', '\\\\ufffd'),
                '([:,\\[]\\s*-?)([0-9.]+[eE]\\+?[0-9]{3,}|[0-9]{20,})', '\\19223372036854775807')) AS readable
        SELECT *, resources[1] AS key, receivedAt >= {from:DateTime} AS new, toInt64(toUnixTimestamp(eventTime)) AS second,
            arrayConcat(
                JSONExtract(readable, eventType, 'data', 'scopes', 'Array(String)'),
                JSONExtract(readable, eventType, 'changes_requested', 'scopes', 'Array(String)')) AS scopes
        FROM openai_audit_logs
        WHERE eventType = 'api_key.updated'
            AND eventTime >= toDateTime(span.1, 'UTC')
            AND eventTime <= toDateTime(least(4294967295, span.2 + {creation_seconds:UInt32}), 'UTC')
            AND key IN (SELECT key FROM recent)
            AND receivedAt < {to:DateTime}
        SETTINGS final = 0
    ),
    -- Nothing, and nothing more is read, unless an update asks for scopes.
    (SELECT (min(second), max(second)) FROM asked WHERE notEmpty(scopes)) AS reach,
    made AS
    (
        WITH
            -- JSON functions read nothing of a document with one odd byte or number in it: this is the repaired one.
            if(isValidJSON(rawLog), rawLog, replaceRegexpAll(
                replaceRegexpAll(toValidUTF8(rawLog), '\\\\u[dD][89a-fA-F][0-9a-fA-F]{2}', '\\\\ufffd'),
                '([:,\\[]\\s*-?)([0-9.]+[eE]\\+?[0-9]{3,}|[0-9]{20,})', '\\19223372036854775807')) AS readable
        SELECT workspaceID, sourceID, resources[1] AS key, toInt64(toUnixTimestamp(eventTime)) AS madeAt,
            receivedAt >= {from:DateTime} AS madeNew,
            arrayConcat(
                JSONExtract(readable, eventType, 'data', 'scopes', 'Array(String)'),
                JSONExtract(readable, eventType, 'changes_requested', 'scopes', 'Array(String)')) AS first
        FROM openai_audit_logs
        WHERE eventType = 'api_key.created'
            AND eventTime >= toDateTime(greatest(0, reach.1 - {creation_seconds:UInt32}), 'UTC')
            AND eventTime <= toDateTime(least(span.2, reach.2), 'UTC')
            AND key IN (SELECT key FROM recent)
            AND receivedAt < {to:DateTime}
        SETTINGS final = 0
    ),
    arraySort(arrayFilter(scope -> NOT has(first, scope), arrayDistinct(scopes))) AS wider
SELECT asked.* EXCEPT (key, new, second, scopes), JSONExtractString(key, 'id') AS entity,
    concat('made without ', arrayStringConcat(arraySlice(wider, 1, 20), ', ')) AS detail
FROM asked
INNER JOIN made USING (workspaceID, sourceID, key)
WHERE notEmpty(first) AND notEmpty(wider) AND (new OR madeNew)
    AND second >= madeAt AND second <= madeAt + {creation_seconds:UInt32}
