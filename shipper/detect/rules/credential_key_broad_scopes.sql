-- Updates have been seen with their scopes under `data` as well as under `changes_requested`.
SELECT * EXCEPT (key, broad), if(key = '', '(unnamed key)', key) AS entity,
    concat('asks for ', arrayStringConcat(arraySlice(broad, 1, 20), ', ')) AS detail
FROM
(
    WITH
        -- JSON functions read nothing of a document with one odd byte or number in it: this is the repaired one.
        if(isValidJSON(rawLog), rawLog, replaceRegexpAll(
            replaceRegexpAll(toValidUTF8(rawLog), '\\\\u[dD][89a-fA-F][0-9a-fA-F]{2}', '\\\\ufffd'),
            '([:,\\[]\\s*-?)([0-9.]+[eE]\\+?[0-9]{3,}|[0-9]{20,})', '\\19223372036854775807')) AS readable,
        arrayDistinct(arrayConcat(
            JSONExtract(readable, eventType, 'data', 'scopes', 'Array(String)'),
            JSONExtract(readable, eventType, 'changes_requested', 'scopes', 'Array(String)'))) AS scopes
    SELECT *, JSONExtractString(readable, eventType, 'id') AS key,
        arraySort(arrayFilter(scope -> arrayExists(pattern -> lower(scope) LIKE replaceAll(pattern, '*', '%'),
            {broad_scopes:Array(String)}), scopes)) AS broad
    FROM openai_audit_received(from = {from:DateTime}, to = {to:DateTime})
    WHERE eventType IN ('api_key.created', 'api_key.updated')
)
WHERE notEmpty(broad)
