-- Updates have been seen with their scopes under `data` as well as under `changes_requested`.
WITH
    arrayDistinct(arrayConcat(
        JSONExtract(rawLog, eventType, 'data', 'scopes', 'Array(String)'),
        JSONExtract(rawLog, eventType, 'changes_requested', 'scopes', 'Array(String)'))) AS scopes,
    arraySort(arrayFilter(scope -> arrayExists(pattern -> lower(scope) LIKE replaceAll(pattern, '*', '%'),
        {broad_scopes:Array(String)}), scopes)) AS broad
SELECT * EXCEPT (key), if(key = '', '(unnamed key)', key) AS entity,
    concat('asks for ', arrayStringConcat(arraySlice(broad, 1, 20), ', ')) AS detail
FROM
(
    SELECT *, JSONExtractString(rawLog, eventType, 'id') AS key
    FROM openai_audit_received(from = {from:DateTime}, to = {to:DateTime})
    WHERE eventType IN ('api_key.created', 'api_key.updated')
)
WHERE notEmpty(broad)
